"""Rows survive kills, ranks share work, memory halves batches, merges are the released format."""

import contextlib
import json
import os
import shutil
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_captioning import ToyCaptioner, kill_again_and_again, write_two_coloured

from tvilfm_plugin.captioning.engine import Shard, describe_images
from tvilfm_plugin.captioning.rows import RowStore, merge, read_descriptions
from tvilfm_plugin.captioning.sources import Source, SourceSet, find_sources
from tvilfm_plugin.data.captions import CaptionBank
from tvilfm_plugin.modality import Modality

KILLS = int(os.environ.get("TVILFM_KILLS", "5"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("people")
    write_two_coloured(root)
    return root


@pytest.fixture
def images(data: Path) -> SourceSet:
    return find_sources("sysu", str(data), Modality.RGB)


def files_of(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(out.glob("*.json"))}


def run(images: SourceSet, out: Path, **options: object) -> None:
    options = {"batch_size": 5, "workers": 2, **options}
    describe_images(options.pop("captioner", ToyCaptioner()), images, out, **options)  # type: ignore[arg-type]


def test_merged_files_are_read_by_the_loaders(images: SourceSet, tmp_path: Path) -> None:
    run(images, tmp_path)
    bank = CaptionBank.from_files(
        tmp_path / "caption_dict_Blip_RGB.json", None, tmp_path / "id_caption_map_Blip_RGB.json", images.relative
    )
    assert sorted(bank) == [source.key for source in images.sources]
    assert len(bank.of_person(3)) == 8
    before = files_of(tmp_path)
    run(images, tmp_path)
    assert files_of(tmp_path) == before


def test_rows_carry_their_provenance_and_others_are_refused(images: SourceSet, tmp_path: Path) -> None:
    run(images, tmp_path, limit=7)
    rows = [json.loads(line) for line in (tmp_path / "rows/captions/rank00000.jsonl").read_text().splitlines()]
    assert len(rows) == 7 and all(row["provenance"] == {"captioner": "toy", "seed": 0} for row in rows)
    assert not list(tmp_path.glob("*.json"))
    other = ToyCaptioner()
    other.provenance = lambda: {"captioner": "toy", "seed": 1}  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="seed: 0 then, 1 now"):
        run(images, tmp_path, captioner=other)
    run(images, tmp_path, captioner=other, restart=True)
    assert (tmp_path / "rows/captions.1/rank00000.jsonl").is_file()


@pytest.mark.parametrize("said", [None, 5, [], {"a": 1}, True, "", " ", "\ud800", "absent"])
def test_a_row_that_says_nothing_is_done_again(images: SourceSet, tmp_path: Path, said: object) -> None:
    run(images, tmp_path / "whole")
    run(images, tmp_path / "odd", limit=7)
    file = tmp_path / "odd/rows/captions/rank00000.jsonl"
    first, *others = file.read_text().splitlines(keepends=True)
    row = {**json.loads(first), "text": said}
    if said == "absent":
        del row["text"]
    file.write_text(json.dumps(row) + "\n" + "".join(others))
    run(images, tmp_path / "odd")
    assert files_of(tmp_path / "odd") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("line", [b"\xff\xfe{}\n", b"[" * 100_000 + b"\n", b'{"image": "x"\n', b"null\n", b'{"image": 5}\n'])
def test_a_damaged_line_is_named(images: SourceSet, tmp_path: Path, line: bytes) -> None:
    run(images, tmp_path, limit=7)
    file = tmp_path / "rows/captions/rank00000.jsonl"
    file.write_bytes(line + file.read_bytes())
    with pytest.raises(ValueError, match="rank00000.jsonl"):
        run(images, tmp_path)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_row_with_a_flipped_bit_is_made_again_or_refused(tmp_path: Path, at: int, bit: int) -> None:
    """Also where the bit makes another letter of a word."""
    folder = tmp_path / "rows"
    shutil.rmtree(folder, ignore_errors=True)
    store = RowStore(folder, {"captioner": "a"})
    with store.writer(0) as append:
        append([{"image": "a.jpg", "text": "a man in red"}])
    file = folder / "rank00000.jsonl"
    data = bytearray(file.read_bytes())
    data[at % len(data)] ^= 1 << bit
    file.write_bytes(data)
    with contextlib.suppress(ValueError):
        row = store.read().get("a.jpg", {"error": "none"})
        assert "error" in row or row["text"] == "a man in red"
    with contextlib.suppress(ValueError):
        assert read_descriptions(file) in ({}, {"a.jpg": "a man in red"})


def test_descriptions_are_texts(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"x": {"description": "a man"}, "y": "b", "z": {"description": null}}')
    assert read_descriptions(file) == {"x": "a man", "y": "b"}
    file.write_text('{"x": {"description": 5}}')
    with pytest.raises(ValueError, match="of 'x' is a number"):
        read_descriptions(file)


def test_several_ranks_write_the_file_of_one(images: SourceSet, tmp_path: Path) -> None:
    run(images, tmp_path / "one")
    for rank in (2, 0, 1):
        run(images, tmp_path / "three", shard=Shard(rank, 3))
    assert files_of(tmp_path / "three") == files_of(tmp_path / "one")
    # Another number of processes goes on where three stopped.
    run(images, tmp_path / "mixed", shard=Shard(1, 3))
    run(images, tmp_path / "mixed")
    assert files_of(tmp_path / "mixed") == files_of(tmp_path / "one")
    rows = [line for file in (tmp_path / "mixed/rows/captions").glob("*.jsonl") for line in file.open()]
    assert len(rows) == len(images.sources)


def test_kills_lose_nothing_and_double_nothing(images: SourceSet, tmp_path: Path) -> None:
    run(images, tmp_path / "whole")
    out = tmp_path / "killed"

    def work(begun: Event) -> None:
        run(images, out, captioner=ToyCaptioner(before=lambda n: (begun.set(), time.sleep(0.004))), batch_size=2)

    kill_again_and_again(work, out / "rows/captions/rank00000.jsonl", len(images.sources), KILLS)
    run(images, out, batch_size=4)
    assert files_of(out) == files_of(tmp_path / "whole")
    keys = [json.loads(line)["image"] for line in (out / "rows/captions/rank00000.jsonl").open()]
    assert sorted(keys) == [source.key for source in images.sources]


def test_a_torn_line_is_cut_and_done_again(images: SourceSet, tmp_path: Path) -> None:
    run(images, tmp_path, limit=6)
    file = tmp_path / "rows/captions/rank00000.jsonl"
    whole = file.read_bytes()
    for torn in (b'{"image": "cam1/00', b'{"image": "' + b"x" * 70_000):
        file.write_bytes(whole + torn)
        store = RowStore(file.parent, {"captioner": "toy", "seed": 0})
        assert len(store.read()) == 6
        with store.writer(0):
            pass
        assert file.read_bytes() == whole


def test_splits_that_are_captioned_one_by_one_share_a_file(data: Path, images: SourceSet, tmp_path: Path) -> None:
    run(images, tmp_path / "at once")
    for split in ("train", "test"):
        run(find_sources("sysu", str(data), Modality.RGB, split=split), tmp_path / "apart")
    assert files_of(tmp_path / "apart") == files_of(tmp_path / "at once")


def test_two_writers_of_one_rank_are_refused(tmp_path: Path) -> None:
    store = RowStore(tmp_path / "rows", {})
    with store.writer(0), pytest.raises(RuntimeError, match="Another process writes"), store.writer(0):
        pass


def test_out_of_memory_halves_the_batch_for_good(images: SourceSet, tmp_path: Path) -> None:
    toy = ToyCaptioner(most=3)
    run(images, tmp_path, captioner=toy, batch_size=16)
    assert toy.batches[:4] == [16, 8, 4, 2]
    assert max(toy.batches[4:]) <= 3 or toy.batches.count(4) <= 4
    assert len(read_descriptions(tmp_path / "caption_dict_Blip_RGB.json")) == len(images.sources)
    with pytest.raises(RuntimeError, match="single image"):
        run(images, tmp_path / "none", captioner=ToyCaptioner(most=0))


def test_unreadable_images_are_listed_skipped_and_tried_again(tmp_path: Path) -> None:
    write_two_coloured(tmp_path, people=6, test_people=2)
    images = find_sources("sysu", str(tmp_path), Modality.RGB)
    broken = Path(images.sources[3].path)
    content = broken.read_bytes()
    broken.write_bytes(b"no image")
    out = tmp_path / "out"
    outcome = describe_images(ToyCaptioner(), images, out, batch_size=4)
    assert list(outcome.failed) == [images.sources[3].key] and outcome.files
    assert images.sources[3].key in (out / "rows/captions_failed.txt").read_text()
    assert len(read_descriptions(out / "caption_dict_Blip_RGB.json")) == len(images.sources) - 1
    broken.write_bytes(content)
    outcome = describe_images(ToyCaptioner(), images, out, batch_size=4)
    assert outcome.made == 1 and not outcome.failed
    assert len(read_descriptions(out / "caption_dict_Blip_RGB.json")) == len(images.sources)


def test_captions_of_another_origin_are_not_overwritten(images: SourceSet, tmp_path: Path) -> None:
    (tmp_path / "caption_dict_Blip_RGB.json").write_text("{}")
    with pytest.raises(FileExistsError, match="another origin"):
        run(images, tmp_path)


def test_merge_orders_by_number_and_names_each_text_once(tmp_path: Path) -> None:
    sources = [Source(f"Visible/{pid}/a_{n}.bmp", "", pid, "test") for pid in (10, 9) for n in (10, 9)]
    texts = {source.key: "same" if source.pid == 9 else source.key for source in sources}
    merge(tmp_path, "Blip_RGB", sources, texts)
    persons = json.loads((tmp_path / "id_caption_map_Blip_RGB.json").read_text())
    assert persons == {"9": ["same"], "10": ["Visible/10/a_9.bmp", "Visible/10/a_10.bmp"]}
    assert list(json.loads((tmp_path / "caption_dict_Blip_RGB.json").read_text()))[0] == "Visible/9/a_9.bmp"


def test_every_layout_has_sources(tmp_path: Path) -> None:
    from tiny_trees import write_llcm, write_regdb

    write_regdb(tmp_path)
    write_llcm(tmp_path)
    for dataset in ("regdb", "llcm"):
        for modality in (Modality.RGB, Modality.IR):
            found = find_sources(dataset, str(tmp_path), modality)
            assert {source.split for source in found.sources} == {"train", "test"}
            assert all(Path(source.path).is_file() for source in found.sources)
    with pytest.raises(ValueError, match="sysu, regdb, llcm"):
        find_sources("market", str(tmp_path), Modality.RGB)
