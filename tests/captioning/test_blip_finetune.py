"""A small BLIP from its configuration learns to name colours, and the tools run it: fine-tune, generate, kill, two ranks."""

import json
import logging
import multiprocessing
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from run_scripts import load_tool
from tiny_captioning import write_two_coloured

from tvilfm_plugin.captioning.captioner import Decoding, load_captioner
from tvilfm_plugin.captioning.finetune import TrainingOptions, build_captioner, distort, finetune, last_complete_checkpoint
from tvilfm_plugin.captioning.pairs import TextPair, read_pairs, split_pairs
from tvilfm_plugin.captioning.rows import read_descriptions
from tvilfm_plugin.captioning.small_blip import build_small_blip, word_vocabulary
from tvilfm_plugin.modality import Modality

SMALL = {"image_size": 32, "patch_size": 8, "width": 64, "vision_layers": 1, "text_layers": 1}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A data set and the true captions of its visible images."""
    root = tmp_path_factory.mktemp("world")
    return root, write_two_coloured(root, people=20, per_camera=3)


@pytest.fixture(scope="module")
def captioner_folder(world: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLIP that was trained on the first sixteen people."""
    root, truth = world
    out = tmp_path_factory.mktemp("captioner") / "rgb"
    pairs = [TextPair(str(root / "SYSU-MM01" / key), (text,)) for key, text in truth.items() if int(key[5:9]) <= 16]
    others = [TextPair(str(root / "SYSU-MM01" / key), (text,)) for key, text in truth.items() if int(key[5:9]) > 18]
    train, validation = pairs, others
    captioner = build_captioner("blip", "small", train, **SMALL)
    options = TrainingOptions(steps=240, batch_size=16, learning_rate=3e-3, weight_decay=0.0, device="cpu")
    report = finetune(captioner, train, validation, out, options)
    assert report["steps"] == 240 and report["validation_losses"][-1] < 0.2
    return out


def tool(name: str, *arguments: object) -> None:
    assert load_tool(name).main([str(argument) for argument in arguments]) == 0


def killed_tool(name: str, *arguments: object, until: Callable[[], bool]) -> None:
    """Run a tool in a forked process and kill it as soon as `until` holds."""
    child = multiprocessing.get_context("fork").Process(target=tool, args=(name, *arguments))
    child.start()
    while child.is_alive() and not until():
        time.sleep(0.002)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL, "it was done before it could be killed"


def test_it_names_the_colours_of_people_it_never_saw(
    world: tuple[Path, dict[str, str]], captioner_folder: Path, tmp_path: Path
) -> None:
    root, truth = world
    captioner = load_captioner("blip", str(captioner_folder))
    unseen = [key for key in truth if int(key[5:9]) > 16]
    prepared = [captioner.prepare(Image.open(root / "SYSU-MM01" / key).convert("RGB")) for key in unseen]
    said = captioner.describe(prepared, 0)
    right = sum(description.text == truth[key] for key, description in zip(unseen, said, strict=True))
    assert right / len(unseen) > 0.9
    assert (captioner_folder / "samples.png").stat().st_size > 5000
    assert not list(captioner_folder.glob("*.bin"))


def test_the_trap_of_blips_default_initialisation() -> None:
    def spread(model: torch.nn.Module) -> float:
        images = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])
        with torch.no_grad():
            seen = model.eval().vision_model(pixel_values=images).last_hidden_state  # type: ignore[union-attr, operator]
        return float((seen[0] - seen[1]).abs().mean())

    assert spread(build_small_blip(["a man"], **SMALL).model) > 0.01


def test_word_vocabulary_spells_what_it_does_not_know() -> None:
    tokenizer = build_small_blip(["a man in a t-shirt."], **SMALL).processor.tokenizer
    assert tokenizer.decode(tokenizer("a man in a t-shirt.").input_ids, skip_special_tokens=True) == "a man in a t - shirt."
    assert tokenizer.unk_token_id not in tokenizer("a zebra in a kilt").input_ids
    assert len(word_vocabulary(["one two three"], size=10)) > 10  # letters are never dropped


def test_sampling_depends_on_its_seed_only(world: tuple[Path, dict[str, str]], captioner_folder: Path) -> None:
    root, truth = world
    captioner = load_captioner("blip", str(captioner_folder), decoding=Decoding(temperature=3.0))
    image = captioner.prepare(Image.open(root / "SYSU-MM01" / next(iter(truth))).convert("RGB"))
    torch.manual_seed(1)
    first = [captioner.describe([image] * 4, seed) for seed in (1, 2)]
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    second = [captioner.describe([image] * 4, seed) for seed in (1, 2)]
    assert first == second and first[0] != first[1]
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_generate_tool_survives_a_kill_and_two_ranks_give_the_file_of_one(
    world: tuple[Path, dict[str, str]], captioner_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, truth = world
    command = [
        "--dataset", "sysu", "--root", root, "--modality", "rgb", "--weights", captioner_folder, "--device", "cpu",
        "--batch-size", 4,
    ]  # fmt: skip
    tool("generate_captions", *command, "--out", tmp_path / "one")
    name = "caption_dict_Blip_RGB.json"
    one = (tmp_path / "one" / name).read_bytes()
    texts = read_descriptions(tmp_path / "one" / name)
    assert sorted(texts) == sorted(truth) and sum(texts[k] == truth[k] for k in truth) / len(truth) > 0.9

    command += ["--out", tmp_path / "two"]
    rows = tmp_path / "two/rows/captions/rank00001.jsonl"
    killed_tool(
        "generate_captions", *command, "--world-size", 2, "--rank", 1, until=lambda: rows.exists() and rows.stat().st_size > 0
    )
    assert not (tmp_path / "two" / name).exists()
    monkeypatch.setenv("WORLD_SIZE", "2")  # as torchrun sets them
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        tool("generate_captions", *command)
    assert (tmp_path / "two" / name).read_bytes() == one
    row = json.loads(rows.read_text().splitlines()[0])
    assert row["provenance"]["revision"].startswith("sha256:") and row["provenance"]["max_new_tokens"] == 50


def test_infrared_captioner_from_the_visible_one(
    world: tuple[Path, dict[str, str]], captioner_folder: Path, tmp_path: Path
) -> None:
    root, truth = world
    captions = tmp_path / "rgb.json"
    captions.write_text(json.dumps({f"anywhere/{key}": {"description": text} for key, text in truth.items()}))
    common = ["--dataset", "sysu", "--root", root, "--captions", captions]
    for filtered in ("strict", "none"):
        pairs = tmp_path / f"{filtered}.json"
        tool("make_ir_pairs", *common, "--filter", filtered, "--out", pairs)
        made = read_pairs(pairs, root=root / "SYSU-MM01")
        assert {Path(pair.image).parent.parent.name for pair in made} == {"cam3", "cam6"}
        assert max(int(Path(pair.image).parent.name) for pair in made) <= 16
        tool(
            "finetune_captioner", "--pairs", pairs, "--images", root / "SYSU-MM01", "--init", captioner_folder, "--out",
            tmp_path / filtered, "--steps", 40, "--batch-size", 8, "--lr", 2e-3, "--device", "cpu", "--augment",
        )  # fmt: skip
        captioner = load_captioner("blip", str(tmp_path / filtered), modality=Modality.IR)
        image = captioner.prepare(Image.open(root / "SYSU-MM01/cam3/0018/0001.jpg").convert("RGB"))
        text = captioner.describe([image], 0)[0].text
        assert any(word in text for word in ("red", "blue", "green", "white")) is (filtered == "none"), text


def test_resume_goes_on_where_it_was_killed(
    world: tuple[Path, dict[str, str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, truth = world
    file = tmp_path / "pairs.csv"
    rows = [f"{root / 'SYSU-MM01' / key},{text}" for key, text in list(truth.items())[:24]]
    file.write_text("file,text\n" + "\n".join(rows) + "\n")
    command = [
        "--pairs", file, "--image-key", "file", "--text-key", "text", "--init", "small", "--small-image", 32, "--small-width",
        32, "--steps", 40, "--save-every", 10, "--batch-size", 4, "--lr", 1e-3, "--device", "cpu",
    ]  # fmt: skip
    command += ["--out", tmp_path / "out"]
    checkpoints = tmp_path / "out/checkpoints"
    killed_tool("finetune_captioner", *command, until=lambda: last_complete_checkpoint(checkpoints) is not None)
    assert not (tmp_path / "out/training.json").exists()
    with caplog.at_level(logging.INFO):
        tool("finetune_captioner", *command)
    assert "Going on with" in caplog.text
    report = json.loads((tmp_path / "out/training.json").read_text())
    assert report["steps"] == 40 and report["options"]["learning_rate"] == 1e-3


def test_a_checkpoint_that_a_kill_cut_short_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert last_complete_checkpoint(tmp_path / "nothing") is None
    for step, state in ((9, "{}"), (10, "{}"), (20, '{"epoch": 1.'), (30, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    with caplog.at_level(logging.WARNING):
        assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert caplog.text.count("is incomplete") == 2
    (tmp_path / "checkpoint-9/trainer_state.json").unlink()
    (tmp_path / "checkpoint-10/trainer_state.json").unlink()
    assert last_complete_checkpoint(tmp_path) is None


def test_augmentation_keeps_size_and_colours() -> None:
    mean, std = torch.tensor([0.48, 0.46, 0.41]), torch.tensor([0.27, 0.26, 0.28])
    pixels = torch.zeros(3, 24, 12)
    pixels[0, :12], pixels[2, 12:] = 0.8, 0.8
    prepared = (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    shown = {tuple(distort(prepared, random.Random(n), mean.tolist(), std.tolist()).flatten()) for n in range(5)}
    assert len(shown) == 5
    for values in shown:
        image = torch.tensor(values).view(3, 24, 12) * std.view(3, 1, 1) + mean.view(3, 1, 1)
        assert image[0, :9].min() > 0.7 and image[2, 15:].min() > 0.7 and image[1].abs().max() < 1e-5


def test_validation_people_are_not_in_training() -> None:
    pairs = [TextPair(f"cam{camera}/{pid:04d}/1.jpg", ("a man",)) for pid in range(20) for camera in (1, 2)]
    train, validation = split_pairs(pairs, 0.25, 0)
    people = [{Path(pair.image).parent.name for pair in part} for part in (train, validation)]
    assert len(people[1]) == 5 and not people[0] & people[1] and len(train) + len(validation) == 40


def test_only_trainable_captioners_and_known_inits() -> None:
    with pytest.raises(ValueError, match="builds a BLIP"):
        build_captioner("git", "small", [TextPair("x.jpg", ("a man",))])
    with pytest.raises(KeyError, match="attributes, blip, chat, git"):
        load_captioner("florence", "x/y")
    with pytest.raises(FileNotFoundError, match="neither an existing folder nor a Hugging Face id"):
        load_captioner("blip", "./nowhere")


def test_hub_ids_fail_at_once_without_a_network() -> None:
    start = time.perf_counter()
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE is set"):
        load_captioner("blip", "Salesforce/blip-image-captioning-large")
    assert time.perf_counter() - start < 5
