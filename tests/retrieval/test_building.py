"""Building an index in blocks: killed with signal 9 for real, resumed, refused, started anew."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tvilfm_plugin.retrieval.building import Embedded, Unreadable, embed_in_memory, embed_to_file
from tvilfm_plugin.retrieval.fingerprint import Fingerprint
from tvilfm_plugin.retrieval.index import GalleryIndex
from tvilfm_plugin.retrieval.records import Record

ROOT = Path(__file__).parents[2]
DIM, COUNT, BLOCK = 8, 300, 10
PRINT = Fingerprint(weights="abc", dim=DIM, normalisation="L2", preprocessing="none")
IMAGES = [Record(f"{n}.jpg", n // 10, n % 3, float(n)) for n in range(COUNT)]


class Network:
    """Vectors that depend on the path alone; every 50th image cannot be read.

    Args:
        log: a file that gets the number of every image that is embedded.
        seconds: per block.
    """

    def __init__(self, log: Path | None = None, seconds: float = 0.0):
        self.log, self.seconds, self.seen = log, seconds, []

    def __call__(self, images):
        time.sleep(self.seconds)
        numbers = [int(image.path.split(".")[0]) for image in images]
        self.seen += numbers
        if self.log:
            with open(self.log, "a") as file:
                file.write("".join(f"{n}\n" for n in numbers))
        good = [n for n in numbers if n % 50 != 49]
        vectors = np.array([np.random.default_rng(n).normal(size=DIM) for n in good], dtype=np.float32).reshape(-1, DIM)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        bad = [Unreadable(image.path, "broken") for image, n in zip(images, numbers, strict=True) if n % 50 == 49]
        return Embedded(vectors, [image for image, n in zip(images, numbers, strict=True) if n % 50 != 49], bad)


# Building needs neither torch nor the host, whose imports take most of the time.
CHILD = """
import importlib.machinery, sys
find = importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = lambda name, *rest: None if name in ("torch", "fastreid") else find(name, *rest)
from pathlib import Path
from test_building import BLOCK, IMAGES, PRINT, Network
from tvilfm_plugin.retrieval.building import embed_to_file
embed_to_file(IMAGES, Network(Path(sys.argv[2]), 0.1), PRINT, sys.argv[1], block=BLOCK)
"""


def test_killed_while_it_indexes(tmp_path):
    file, log = tmp_path / "gallery.index", tmp_path / "log"
    old = embed_to_file(IMAGES[:30], Network(), PRINT, file, block=BLOCK)[0]
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    command = [sys.executable, "-c", CHILD, str(file), str(log)]
    child = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path})
    while not log.exists() or len(log.read_text().splitlines()) < 80:
        assert child.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL

    # The old index is there, whole.
    assert len(GalleryIndex.load(file, PRINT)) == len(old) == 30
    before = [int(n) for n in log.read_text().split()]
    assert 80 <= len(before) < COUNT

    network = Network()
    index, unreadable = embed_to_file(IMAGES, network, PRINT, file, block=BLOCK)
    whole, all_bad = embed_in_memory(IMAGES, Network(), PRINT, block=BLOCK)
    assert unreadable == all_bad and [bad.path for bad in unreadable] == [f"{n}.jpg" for n in range(49, COUNT, 50)]
    assert index.records.to_dict() == whole.records.to_dict()
    np.testing.assert_array_equal(index.vectors(np.arange(len(index))), whole.vectors(np.arange(len(whole))))
    # Nothing that was on the disk is done again: of the blocks that the killed process had begun, only the last one.
    assert network.seen == list(range(network.seen[0], COUNT)) and network.seen[0] >= len(before) - BLOCK > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gallery.index", "log"]


def test_one_index_is_not_built_twice_at_once(tmp_path):
    file = tmp_path / "gallery.index"

    def meanwhile(images):
        with pytest.raises(RuntimeError, match="Another process is building"):
            embed_to_file(IMAGES, Network(), PRINT, file, block=BLOCK)
        return Network()(images)

    assert len(embed_to_file(IMAGES[:40], meanwhile, PRINT, file, block=BLOCK)[0]) == 40


class Stop(Exception):
    pass


class StopsAt(Network):
    """Raises in the middle."""

    def __call__(self, images):
        if len(self.seen) >= 100:
            raise Stop
        return super().__call__(images)


def interrupted(file, kind="flat"):
    with pytest.raises(Stop):
        embed_to_file(IMAGES, StopsAt(), PRINT, file, kind, BLOCK)


def test_the_exact_vectors_of_two_stages_are_read_where_they_lie(tmp_path):
    """The same file as from memory; what is then added lies beside them."""
    vectors, records, _ = Network()([image for n, image in enumerate(IMAGES) if n % 50 != 49])
    flat, file = tmp_path / "flat.index", tmp_path / "refined.index"
    GalleryIndex.build(vectors, records, PRINT).save(flat)
    mapped = GalleryIndex.build(vectors, records, PRINT, "refined", say=None, stored=flat)
    embed_to_file(IMAGES, Network(), PRINT, file, "refined", BLOCK)
    mapped.save(tmp_path / "mapped.index")
    GalleryIndex.build(vectors, records, PRINT, "refined", say=None).save(tmp_path / "memory.index")
    assert (tmp_path / "mapped.index").read_bytes() == (tmp_path / "memory.index").read_bytes() == file.read_bytes()
    mapped.add(vectors[:1], [Record("new.jpg")])
    flat.unlink()
    assert mapped.search(vectors[:1], 2)[1].tolist() == [[0, len(records)]]


@pytest.mark.parametrize("kind", ["flat", "fp16"])
def test_a_torn_line_and_vectors_without_one_are_dropped(tmp_path, kind):
    file = tmp_path / "gallery.index"
    interrupted(file, kind)
    part, journal = tmp_path / "gallery.index.part", tmp_path / "gallery.index.part.jsonl"
    with open(journal, "ab") as lines:
        lines.write(b'{"taken": 110, "rec')
    with open(part, "ab") as vectors:
        vectors.write(b"\1" * 33)
    network = Network()
    index, _ = embed_to_file(IMAGES, network, PRINT, file, kind, BLOCK)
    assert network.seen[0] == 100 and index.kind == kind
    whole = embed_in_memory(IMAGES, Network(), PRINT, kind)[0]
    np.testing.assert_array_equal(index.vectors(np.arange(len(index))), whole.vectors(np.arange(len(whole))))
    assert [path.name for path in tmp_path.iterdir()] == ["gallery.index"]


@pytest.mark.parametrize("change", ["images", "weights", "times"])
def test_another_task_starts_anew(tmp_path, change):
    file = tmp_path / "gallery.index"
    interrupted(file)
    images, fingerprint, network = IMAGES, PRINT, Network()
    if change == "images":
        images = IMAGES[1:]
    elif change == "times":
        images = [image._replace(time=None) for image in IMAGES]
    else:
        fingerprint = Fingerprint(**{**PRINT.to_dict(), "weights": "xyz"})
    index, _ = embed_to_file(images, network, fingerprint, file, block=BLOCK)
    assert len(network.seen) == len(images) and index.fingerprint == fingerprint


def test_lost_vectors_are_noticed(tmp_path):
    file = tmp_path / "gallery.index"
    interrupted(file)
    os.truncate(tmp_path / "gallery.index.part", 200)
    with pytest.raises(ValueError, match="has lost vectors: it should hold 98"):
        embed_to_file(IMAGES, Network(), PRINT, file, block=BLOCK)


def test_nothing_readable_is_an_error(tmp_path):
    broken = [image for image in IMAGES if image.path in ("49.jpg", "99.jpg")]
    with pytest.raises(ValueError, match="None of the 2 gallery images can be read"):
        embed_in_memory(broken, Network(), PRINT)
    with pytest.raises(ValueError, match="None of the 2 gallery images can be read"):
        embed_to_file(broken, Network(), PRINT, tmp_path / "gallery.index")
    assert not (tmp_path / "gallery.index").exists()


def test_the_journal_is_plain_json(tmp_path):
    interrupted(tmp_path / "gallery.index")
    lines = [json.loads(line) for line in (tmp_path / "gallery.index.part.jsonl").read_text().splitlines()]
    assert lines[0]["fingerprint"] == PRINT.to_dict() and lines[-1]["taken"] == 100


@pytest.mark.parametrize("damaged", ["part", "part.jsonl"])
def test_damage_to_what_is_unfinished_is_named_or_harmless(tmp_path, damaged):
    file = tmp_path / "gallery.index"
    interrupted(file)
    whole = embed_in_memory(IMAGES, Network(), PRINT)[0]
    kept = {suffix: (tmp_path / f"gallery.index.{suffix}").read_bytes() for suffix in ("part", "part.jsonl")}
    rng = np.random.default_rng(0)
    for _ in range(30):
        for suffix, content in kept.items():
            (tmp_path / f"gallery.index.{suffix}").write_bytes(content)
        data = bytearray(kept[damaged])
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        (tmp_path / f"gallery.index.{damaged}").write_bytes(data[: rng.integers(len(data))] if rng.random() < 0.2 else data)
        try:
            index, _ = embed_to_file(IMAGES, Network(), PRINT, file, block=BLOCK)
        except ValueError as error:
            assert "gallery.index.part" in str(error) or "has lost vectors" in str(error)
            continue
        np.testing.assert_array_equal(index.vectors(np.arange(len(index))), whole.vectors(np.arange(len(whole))))
        assert index.records.paths == whole.records.paths


def test_a_picture_that_was_replaced_meanwhile_is_embedded_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("0.jpg").write_bytes(b"one")
    interrupted(tmp_path / "gallery.index")
    Path("0.jpg").write_bytes(b"another")
    network = Network()
    embed_to_file(IMAGES, network, PRINT, tmp_path / "gallery.index", block=BLOCK)
    assert network.seen[0] == 0


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks the system which files are open")
def test_the_finished_file_is_closed_when_it_gets_its_name(tmp_path, monkeypatch):
    """Windows refuses to rename a file that is open or mapped."""
    replace, renamed = os.replace, []

    def watched(old, new):
        handles = [f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd")]
        assert str(old) not in [os.readlink(handle) for handle in handles if os.path.exists(handle)]
        renamed.append(Path(old).name)
        replace(old, new)

    monkeypatch.setattr("tvilfm_plugin.retrieval.building.os.replace", watched)
    embed_to_file(IMAGES[:30], Network(), PRINT, tmp_path / "gallery.index", block=BLOCK)
    assert renamed == ["gallery.index.part"]


def test_a_file_of_another_kind_is_not_replaced(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("path,identity\n0.jpg,1\n")
    with pytest.raises(ValueError, match=r"table.csv is no gallery index, and the index would replace it. Name another file"):
        embed_to_file(IMAGES[:20], Network(), PRINT, file)
    assert file.read_text().startswith("path,") and os.listdir(tmp_path) == ["table.csv"]
    index = tmp_path / "g.index"
    embed_to_file(IMAGES[:20], Network(), PRINT, index)
    for damaged in (index.read_bytes()[:-9], b"??" + index.read_bytes()[2:], b""):
        index.write_bytes(damaged)
        assert len(embed_to_file(IMAGES[:20], Network(), PRINT, index)[0]) == 20
