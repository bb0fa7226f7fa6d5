"""Pre-training the small ViT: a file that the real loader reads, from people of its own, and that names what it shows."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mip_models import mip_config

from tvilfm_plugin.modeling.mip.mip import MIP
from tvilfm_plugin.modeling.mip.pretrained import load_vit, read_vit
from tvilfm_plugin.synthetic import vit_pretraining as pretraining
from tvilfm_plugin.synthetic.strangers import draw_strangers
from tvilfm_plugin.synthetic.vit_pretraining import PlainViT, PretrainingSpec, attribute_loss, pretrain_vit

SMALL = PretrainingSpec(
    width=16, depth=3, heads=2, mlp_ratio=2.0, patch=8, stride=6, parts=2, shift=2, groups=2, image_size=(32, 16),
    people=12, held_out=6, visible=2, infrared=1, steps=3, batch_size=8,
)  # fmt: skip


def config(path: Path):  # type: ignore[no-untyped-def]
    cfg = mip_config((32, 16), 6, WIDTH=16, DEPTH=3, HEADS=2, MLP_RATIO=2.0, PATCH=8, STRIDE=6, PARTS=2, SHIFT=2, DROP_PATH=0.0)
    cfg.MODEL.MIP.MODALITY_PROMPTS = cfg.MODEL.MIP.INSTANCE_PROMPTS = cfg.MODEL.MIP.CAMERAS = 0
    cfg.MODEL.BACKBONE.PRETRAIN, cfg.MODEL.BACKBONE.PRETRAIN_PATH = True, str(path)
    return cfg


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pretraining.Named]:
    path = tmp_path_factory.mktemp("vit") / "vit.pth"
    return path, pretrain_vit(SMALL, path, progress=False)


def test_the_loader_of_published_weights_reads_it_and_computes_the_same(made: tuple[Path, pretraining.Named]) -> None:
    path, _ = made
    model = MIP(config(path)).eval()
    report = load_vit(model.visual, read_vit(path), 3)
    assert report.initial == [] and all(name.startswith("head") for name in report.unused)
    state = torch.load(path, weights_only=True)
    vit = PlainViT(SMALL, len(state["head.1.bias"])).eval()
    vit.load_state_dict(state)
    pictures = torch.rand(2, 3, 32, 16) * 2 - 1
    with torch.no_grad():
        ours = model.visual.describe(pictures, torch.zeros(2, dtype=torch.int64), None).features
        assert torch.allclose(ours, vit.describe(pictures), atol=1e-5)


def test_same_spec_same_weights_and_no_second_training(
    made: tuple[Path, pretraining.Named], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, result = made
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert pretrain_vit(SMALL, tmp_path / "b.pth", progress=False) == result
    assert torch.equal(before, torch.get_rng_state())  # the caller's randomness is left alone
    a, b = (torch.load(file, weights_only=True) for file in (path, tmp_path / "b.pth"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    monkeypatch.setattr(pretraining, "_train", lambda *_: pytest.fail("trained again"))
    assert pretrain_vit(SMALL, path, progress=False) == result
    assert json.loads(path.with_suffix(".json").read_text())["held_out"]["people"] == 6
    (tmp_path / "mine.pth").write_bytes(b"somebody's weights")
    with pytest.raises(FileExistsError, match="not written by this tool. Give another --out, or remove it first"):
        pretrain_vit(SMALL, tmp_path / "mine.pth", progress=False)


def test_colours_are_asked_of_coloured_pictures_only_and_identities_never() -> None:
    people, _ = draw_strangers(12, 6, 7)
    values = pretraining.attribute_values(people)
    album = pretraining._album(people, values=values, spec=SMALL, name="learn")
    assert album.pictures.shape == (36, 3, 32, 16) and album.coloured.tolist() == [True, True, False] * 12
    assert [known[n] for known, n in zip(values, album.labels[3].tolist(), strict=True)][:2] == [
        people[1].shape.gender,
        people[1].shape.build,
    ]
    torch.manual_seed(0)
    logits = torch.randn(36, sum(map(len, values)))
    total, start = 0.0, 0
    for n, known in enumerate(values):
        for row in range(36):
            if n < 10 or album.coloured[row]:
                total += F.cross_entropy(logits[row, start : start + len(known)], album.labels[row, n]).item()
        start += len(known)
    expected = total / 36 / len(values)
    assert attribute_loss(logits, album.labels, album.coloured, values).item() == pytest.approx(expected, rel=1e-5)


def test_gray_pictures_have_no_colour_left() -> None:
    torch.manual_seed(0)
    pictures, gray = pretraining._augment(torch.randint(256, (64, 3, 32, 16), dtype=torch.uint8), SMALL)
    spread = (pictures.amax(dim=1) - pictures.amin(dim=1)).flatten(1).amax(dim=1)
    assert 0 < gray.sum() < 64 and spread[gray].max() < 1e-5 and spread[~gray].min() > 0.5


def test_it_learns_to_name_what_it_sees() -> None:
    spec = replace(SMALL, people=6, visible=1, infrared=0, gray=0.0, moved=0, steps=150, batch_size=16, lr=3e-3)
    people, _ = draw_strangers(spec.people, 1, 7)
    values = pretraining.attribute_values(people)
    album = pretraining._album(people, values=values, spec=spec, name="learn")
    torch.manual_seed(0)
    vit = pretraining._train(album, values, spec, False)
    named = pretraining._measure(vit, album, album, values, len(people))
    assert named.shape > named.shape_guess + 0.15 and named.colours > named.colours_guess + 0.15
