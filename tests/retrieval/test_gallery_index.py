"""GalleryIndex against literal twins: every type, filters, changes, files, and what must be refused."""

import concurrent.futures
import json
import os
import re
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import faiss
import numpy as np
import pytest
from flipped_bits import FLIPS, flipped
from hypothesis import given, settings
from hypothesis import strategies as st

import tvilfm_plugin.retrieval.index as index_module
from tvilfm_plugin.retrieval.approximation import compare_with_flat
from tvilfm_plugin.retrieval.fingerprint import Fingerprint, FingerprintError
from tvilfm_plugin.retrieval.index import GalleryIndex
from tvilfm_plugin.retrieval.index_file import FlatFile, read_index_file
from tvilfm_plugin.retrieval.kinds import KINDS, two_stages
from tvilfm_plugin.retrieval.records import Filter, Record, Records

ROOT = Path(__file__).parents[2]
DIM, COUNT = 16, 400
PRINT = Fingerprint(weights="abc", dim=DIM, normalisation="L2", preprocessing="96x48")


def gallery(count=COUNT, seed=0):
    """Unit vectors of persons with ten images each, and records with some unknown values."""
    rng = np.random.default_rng(seed)
    vectors = np.repeat(rng.normal(size=(-(-count // 10), DIM)), 10, axis=0)[:count] + 0.4 * rng.normal(size=(count, DIM))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    known = lambda n: (n // 10, None if n % 7 == 0 else n % 4, None if n % 5 == 0 else float(n))
    return vectors, [Record(f"{seed}/{n}.jpg", *known(n)) for n in range(count)]


def built(kind, count=COUNT, seed=0):
    vectors, records = gallery(count, seed)
    return GalleryIndex.build(vectors, records, PRINT, kind, say=None), vectors, records


def on_disk(folder):
    """A file with twenty images, their index and their vectors."""
    index, vectors, _ = built("flat", 20)
    index.save(folder / "a.index")
    return folder / "a.index", index, vectors


def twin_passes(record, allowed):
    if allowed.cameras is not None and record.camid not in allowed.cameras:
        return False
    if allowed.times is None:
        return True
    first, last = allowed.times
    if record.time is None:
        return False
    return (first is None or first <= record.time) and (last is None or record.time <= last)


def twin_search(query, vectors, records, top, allowed):
    """One gallery image at a time."""
    scored = [(-float(query @ v), n) for n, v in enumerate(vectors) if twin_passes(records[n], allowed)]
    return [n for _, n in sorted(scored)[:top]]


FILTERS = [
    Filter(),
    Filter(cameras=[1, 3]),
    Filter(times=(100, 200)),
    Filter(times=(None, 33.0)),
    Filter(cameras=[2], times=(390, None)),
]


@pytest.mark.parametrize("allowed", FILTERS)
def test_flat_equals_the_literal_twin(allowed):
    index, vectors, records = built("flat")
    queries = 2.5 * np.random.default_rng(1).normal(size=(5, DIM)).astype(np.float32)
    scores, rows = index.search(queries, 7, allowed)
    for query, score, row in zip(queries, scores, rows, strict=True):
        expected = twin_search(query, vectors, records, 7, allowed)
        assert row[row >= 0].tolist() == expected
        np.testing.assert_allclose(score[: len(expected)], vectors[expected] @ query, rtol=1e-5, atol=1e-6)
        assert np.isneginf(score[len(expected) :]).all()


def test_a_filter_may_leave_nothing_and_equal_images_keep_their_order():
    vectors, records = gallery(20)
    vectors[[3, 11, 17]] = vectors[3]
    index = GalleryIndex.build(vectors, records, PRINT)
    assert index.search(vectors[[3]], 3)[1].tolist() == [[3, 11, 17]]
    scores, rows = index.search(vectors[:2], 4, Filter(cameras=[99]))
    assert (rows == -1).all() and np.isneginf(scores).all()
    assert index.nearest(vectors[0], 4, Filter(cameras=[99]))[0] == []
    assert index.search(vectors[:1], 50)[1].tolist()[0][20:] == [-1] * 30


NO_NUMBERS = [(name, value) for name in ("pid", "camid") for value in ("x", "5", [1], np.inf, 2**70, 1.5, np.nan)]


@pytest.mark.parametrize(("name", "value"), [*NO_NUMBERS, *(("time", value) for value in ("x", "5", [1], np.inf))])
def test_what_is_known_of_an_image_is_a_number(name, value):
    with pytest.raises(ValueError, match=f"{name} .*(is no number of 64 bits|is no whole number|is infinite); None is unknown"):
        Records.of([Record("a.jpg"), Record("b.jpg", **{name: value})])


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_finds_filters_changes_and_comes_back_from_its_file(kind, tmp_path):
    index, vectors, records = built(kind)
    asked = np.arange(0, COUNT, 40)
    assert (index.search(vectors[asked], 1)[1][:, 0] // 10 == asked // 10).mean() >= (0.6 if kind == "pq" else 1)
    # Ten images pass: wherever the type looks first, all of them must come.
    narrow = Filter(times=(100, 112))
    passing = sorted(n for n, record in enumerate(records) if twin_passes(record, narrow))
    for row in index.search(vectors[asked], 20, narrow)[1]:
        assert sorted(row[row >= 0].tolist()) == passing

    file = tmp_path / "gallery.index"
    index.save(file)
    for mapped in (True, False):
        loaded = GalleryIndex.load(file, PRINT, mapped=mapped)
        assert (loaded.kind, len(loaded), loaded.records[13]) == (kind, COUNT, records[13])
        np.testing.assert_array_equal(loaded.search(vectors[:9], 5)[1], index.search(vectors[:9], 5)[1])
        np.testing.assert_array_equal(loaded.vectors(asked), index.vectors(asked))

    # The map of the file must not stand in the way of changes, nor the changes reach the file.
    loaded = GalleryIndex.load(file, PRINT)
    more, others = gallery(30, seed=1)
    loaded.add(more, others)
    assert len(loaded) == COUNT + 30 and loaded.records[COUNT + 2] == others[2]
    gone = {records[n].path for n in range(0, COUNT, 3)}
    assert loaded.remove(gone) == len(gone)
    kept = [record for record in records if record.path not in gone] + others
    assert [loaded.records[n] for n in range(len(loaded))] == kept
    alive = np.concatenate([vectors[[n for n in range(COUNT) if n % 3]], more])
    # int8 has learned its range from the first images: numbers beyond it are cut off.
    rounding = {"int8": 0.25, "fp16": 1e-3, "pq": 0.7}.get(kind, 0)
    np.testing.assert_allclose(loaded.vectors(np.arange(len(kept))), alive, atol=rounding)
    everything = loaded.search(alive[:5], len(kept))[1]
    assert all(sorted(row.tolist()) == list(range(len(kept))) for row in everything)
    assert len(GalleryIndex.load(file)) == COUNT


@pytest.mark.parametrize("kind", ["int8", "ivf", "hnsw", "pq"])
def test_an_approximate_type_says_what_it_costs(kind):
    vectors, records = gallery()
    said = []
    index = GalleryIndex.build(vectors, records, PRINT, kind, say=said.append)
    (text,) = said
    assert f"Index {kind} against flat, 200 gallery images as queries: recall@10" in text and "Rank-1" in text
    report = compare_with_flat(index, vectors, queries=40, top=5, seed=3)
    rows = np.sort(np.random.default_rng(3).choice(COUNT, 40, replace=False))
    recall, first, right = [], [], []
    for row in rows:
        flat = [n for n in twin_search(vectors[row], vectors, records, 6, Filter()) if n != row][:5]
        mine = [n for n in index.search(vectors[[row]], 6)[1][0] if n != row][:5]
        recall.append(len(set(flat) & set(mine)) / 5)
        first.append(flat[0] == mine[0])
        right.append((mine[0] // 10 == row // 10, flat[0] // 10 == row // 10))
    assert report.recall == pytest.approx(np.mean(recall)) and report.same_first == pytest.approx(np.mean(first))
    assert (report.rank1, report.flat_rank1) == pytest.approx(tuple(np.mean(right, axis=0)))


def test_without_identities_there_is_no_rank_1():
    vectors, records = gallery()
    index = GalleryIndex.build(vectors, [Record(r.path) for r in records], PRINT, "fp16", say=None)
    report = compare_with_flat(index, vectors)
    assert report.rank1 is None and "Rank-1" not in str(report)


def test_blocks_on_the_disk_are_what_faiss_would_have_written(tmp_path):
    vectors, records = gallery()
    with open(tmp_path / "grown", "w+b") as file:
        flat = FlatFile(file, DIM)
        flat.append(vectors[:150])
        flat.append(vectors[:50])
        flat.truncate(150)
        flat.append(vectors[150:])
        flat.finish(PRINT, Records.of(records))
    index = GalleryIndex.build(vectors, records, PRINT)
    index.save(tmp_path / "saved")
    assert (tmp_path / "grown").read_bytes() == (tmp_path / "saved").read_bytes()
    # faiss alone reads it too.
    assert faiss.read_index(str(tmp_path / "grown")).ntotal == COUNT


def test_another_models_index_is_refused(tmp_path):
    index, *_ = built("flat", 20)
    index.save(tmp_path / "a.index")
    other = Fingerprint(weights="xyz", dim=DIM, normalisation="L2", preprocessing="288x144")
    with pytest.raises(FingerprintError, match=r"weights 'abc' instead of 'xyz'; preprocessing '96x48' instead of '288x144'"):
        GalleryIndex.load(tmp_path / "a.index", other)


def test_damaged_files_are_refused(tmp_path):
    file, index, _ = on_disk(tmp_path)
    whole = file.read_bytes()
    with pytest.raises(FileNotFoundError, match="There is no gallery index"):
        GalleryIndex.load(tmp_path / "b.index")
    for broken in (b"", b"short", whole[:-1], whole[:500], b"x" * 2000):
        file.write_bytes(broken)
        with pytest.raises(ValueError, match="no gallery index, or not a complete one"):
            GalleryIndex.load(file)
    for broken, message in (
        (whole[:-2] + b"99", r"no gallery index of a version that is read here \(99; known: 02\)"),
        (b"\0" * 100 + whole[100:], "damaged: faiss cannot read it"),
        (whole[:-16].replace(b'"paths"', b'"pathz"') + whole[-16:], "description cannot be read"),
        (whole[:-16].replace(b'"fingerprint":{', b'"fingerprinx":{') + whole[-16:], "has no fingerprint"),
        (whole[:-16].replace(b'"dim":16', b'"dim":61') + whole[-16:], "damaged: 20 vectors of 16 numbers"),
    ):
        file.write_bytes(broken)
        with pytest.raises(ValueError, match=message):
            GalleryIndex.load(file)
    file.write_bytes(whole)
    assert len(read_index_file(file).records) == 20


def test_a_failed_save_leaves_the_old_file(tmp_path):
    index, vectors, _ = built("flat", 20)
    index.save(tmp_path / "a.index")
    index.records.paths[3] = object()  # cannot be written
    with pytest.raises(TypeError):
        index.save(tmp_path / "a.index")
    assert len(GalleryIndex.load(tmp_path / "a.index")) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["a.index"]


def test_what_does_not_fit_is_refused_and_changes_nothing():
    index, vectors, records = built("flat", 20)
    more, others = gallery(3, seed=1)
    with pytest.raises(ValueError, match=r"Vectors of shape \(3, 15\) do not fit an index of \(N, 16\)"):
        index.add(more[:, 1:], others)
    with pytest.raises(ValueError, match="3 of 3 vectors are not unit vectors"):
        index.add(2 * more, others)
    with pytest.raises(ValueError, match="1 of 3 vectors are not unit vectors"):
        index.add(np.where(np.arange(3)[:, None] == 1, np.nan, more), others)
    with pytest.raises(ValueError, match="23 vectors for 22 records"):
        index.add(more, others[:2])
    with pytest.raises(ValueError, match=r"'0/1.jpg' would be in the index twice"):
        index.add(more, [*others[:2], records[1]])
    with pytest.raises(KeyError, match=r"1 of 2 paths are not in the index, e.g. 'nowhere.jpg': nothing was removed"):
        index.remove(["nowhere.jpg", records[0].path])
    with pytest.raises(ValueError, match="Unknown type of index 'lsh'; choices are flat, fp16"):
        GalleryIndex(PRINT, "lsh")
    with pytest.raises(ValueError, match="learns from 256 images or more; this gallery has 20"):
        GalleryIndex.build(vectors, records, PRINT, "pq")
    with pytest.raises(ValueError, match=r"Queries of shape \(2, 15\)"):
        index.search(vectors[:2, 1:], 3)
    with pytest.raises(ValueError, match="not finite"):
        index.search(np.full((1, DIM), np.inf), 3)
    with pytest.raises(ValueError, match="2 paths, 1 pids"):
        Records(["a", "b"], np.zeros(1, int), np.zeros(2, int), np.zeros(2))
    assert len(index) == 20 and index.search(vectors[:1], 1)[1] == 0


def test_searching_needs_neither_torch_nor_the_host(tmp_path):
    """What an exported runtime uses, in a process that has neither."""
    index, vectors, _ = built("flat", 20)
    index.save(tmp_path / "a.index")
    np.save(tmp_path / "q.npy", vectors[:2])
    code = f"""
        import importlib.machinery, sys
        find = importlib.machinery.PathFinder.find_spec
        hidden = ("torch", "fastreid", "yacs", "pandas", "open_clip")
        hide = lambda name, *rest: None if name.split(".")[0] in hidden else find(name, *rest)
        importlib.machinery.PathFinder.find_spec = hide
        import numpy as np
        from tvilfm_plugin.modality import Modality
        from tvilfm_plugin.retrieval.hits import search_index
        from tvilfm_plugin.retrieval.index import GalleryIndex
        a, b = np.load({str(tmp_path / "q.npy")!r})
        hits = search_index(GalleryIndex.load({str(tmp_path / "a.index")!r}), {{Modality.IR: a, Modality.TEXT: b}}, 3)
        assert not set(hidden) & {{name.split(".")[0] for name in sys.modules}}
        print(len(hits), all(hit.similarity == sum(hit.shares.values()) for hit in hits))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=ROOT, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == "3 True\n", done.stderr


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Kind -> an index file, its bytes, and what it answers to three queries."""
    vectors, records = gallery(300)
    made = {}
    for kind in KINDS:
        file = tmp_path_factory.mktemp(kind) / "a.index"
        GalleryIndex.build(vectors, records, PRINT, kind, say=None).save(file)
        made[kind] = (file, file.read_bytes(), GalleryIndex.load(file).search(vectors[:3], 5))
    return made, vectors[:3], Records.of(records).to_dict()


@settings(max_examples=120, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), flips=FLIPS, end=st.booleans(), mapped=st.booleans())
def test_flipped_bits_are_refused_or_change_nothing(stored, kind, flips, end, mapped):
    made, asked, records = stored
    file, content, truth = made[kind]
    # The description stands at the end; most of a file is vectors.
    first = len(content) - 4000 if end else 0
    file.write_bytes(content[:first] + flipped(content[first:], flips))
    try:
        found = GalleryIndex.load(file, mapped=mapped)
    except ValueError as error:
        assert re.search(r"a\.index.*(damaged|no gallery index)", str(error))
    else:
        assert found.records.to_dict() == records
        np.testing.assert_array_equal(found.search(asked, 5), truth)


def test_two_writers_at_once_keep_what_both_add(tmp_path):
    """Whoever is refused loads again and repeats the change, as the error says: nothing of anybody is lost."""
    file, *_ = on_disk(tmp_path)
    vectors, records = gallery(12, seed=1)

    def add(rows):
        for n in rows:
            while True:
                mine = GalleryIndex.load(file)
                mine.add(vectors[n : n + 1], [records[n]])
                try:
                    mine.save(file)
                except ValueError as error:
                    assert "was replaced by another process" in str(error)
                else:
                    break

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(add, range(0, 12, 2)), pool.submit(add, range(1, 12, 2))]:
            done.result()
    assert sorted(GalleryIndex.load(file).records.paths[20:]) == sorted(record.path for record in records)


def test_records_of_unequal_length_name_the_file(tmp_path):
    file, index, _ = on_disk(tmp_path)
    file.write_bytes(file.read_bytes().replace(b'"pids":[0,0', b'"pids":[100', 1))
    with pytest.raises(ValueError, match=r"a\.index.*damaged"):
        GalleryIndex.load(file)


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    file, *_ = on_disk(tmp_path)
    read = index_module.read_index_file

    def replaced_once(path, mapped):
        monkeypatch.setattr(index_module, "read_index_file", read)
        built("flat", 12)[0].save(path)
        raise ValueError("half of one file and half of the next")

    monkeypatch.setattr(index_module, "read_index_file", replaced_once)
    assert len(GalleryIndex.load(file)) == 12


def test_two_writers_lose_nothing(tmp_path):
    file, index, _ = on_disk(tmp_path)
    ours, theirs = GalleryIndex.load(file), GalleryIndex.load(file)
    more, others = gallery(4, seed=1)
    new = [record._replace(path=f"new/{n}.jpg") for n, record in enumerate(others)]
    theirs.add(more[:2], new[:2])
    theirs.save(file)
    ours.remove([ours.records.paths[0]])  # reads what it was loaded from, not what lies there now
    ours.add(more[2:], new[2:])
    assert len(ours) == 21 and ours.search(more[2:3], 1)[1][0, 0] == 19
    with pytest.raises(ValueError, match=r"a\.index was replaced by another process.*Load the file again"):
        ours.save(file)
    assert [path for path in GalleryIndex.load(file).records.paths if path.startswith("new")] == ["new/0.jpg", "new/1.jpg"]
    ours.save(tmp_path / "b.index")
    theirs.remove(["new/0.jpg"])
    theirs.save(file)
    assert len(GalleryIndex.load(file)) == 21
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.index", "b.index"]


def test_a_mapped_file_that_is_written_into_is_noticed(tmp_path):
    file, index, vectors = on_disk(tmp_path)
    loaded = GalleryIndex.load(file)
    with open(file, "r+b") as stream:
        stream.seek(100)
        stream.write(b"\0")
        os.fsync(stream.fileno())
    os.utime(file, ns=(1, 1))
    for use in (lambda: loaded.search(vectors[:1], 1), lambda: loaded.remove([loaded.records.paths[0]])):
        with pytest.raises(ValueError, match=r"a\.index was overwritten while it is in use"):
            use()


def test_counts_are_checked_before_a_good_file_is_replaced(tmp_path):
    index, *_ = built("flat", 20)
    index.save(tmp_path / "a.index")
    index.records = index.records.where(np.arange(20) < 19)
    with pytest.raises(ValueError, match="not written: the index has 20 vectors of 16 numbers, but records of 19 images"):
        index.save(tmp_path / "a.index")
    assert len(GalleryIndex.load(tmp_path / "a.index")) == 20


def test_a_file_of_the_first_version_is_read(tmp_path):
    file, index, vectors = on_disk(tmp_path)
    content = file.read_bytes()
    start = content.index(b'{"kind"')
    described = json.loads(content[start:-16])
    del described["digests"]
    text = json.dumps(described).encode()
    file.write_bytes(content[:start] + text + struct.pack("<Q", len(text)) + b"TVILFM01")
    assert GalleryIndex.load(file).search(vectors[:1], 1)[1] == 0


@pytest.mark.parametrize("top", [0, -1, 2.5, None, "5", True])
def test_a_number_of_hits_is_a_number(top):
    index, vectors, _ = built("flat", 20)
    with pytest.raises(ValueError, match="one hit or more, not"):
        index.search(vectors[:1], top)
    assert len(index.nearest(vectors[0], 10**9)[0]) == 20
    with pytest.raises(ValueError, match="cannot be asked for at once"):
        index.search(vectors[:1], 10**9)


@pytest.mark.parametrize(
    "wrong",
    [Filter(cameras=3), Filter(cameras=["a"]), Filter(cameras=[1.5]), Filter(cameras="12"), Filter(times=(1,)),
     Filter(times=(9, 1)), Filter(times=(float("nan"), None)), Filter(times=5)],
)  # fmt: skip
def test_what_is_no_filter_is_refused(wrong):
    index, vectors, _ = built("flat", 20)
    with pytest.raises(ValueError, match="A filter by"):
        index.search(vectors[:1], 3, wrong)


def test_a_filter_that_finds_nothing_says_why():
    _, records = gallery(20)
    known, unknown = Records.of(records), Records.of([Record(record.path) for record in records])
    assert "no image is of camera 99; the gallery has" in Filter(cameras=[99]).nothing_found(known)
    with pytest.raises(ValueError, match=r"No image of this gallery has a camera.*column camid"):
        Filter(cameras=[1]).nothing_found(unknown)


def test_it_says_what_it_is():
    assert repr(built("flat", 20)[0]) == "GalleryIndex(20 images of 16 numbers, flat, weights abc)"


def test_the_width_of_short_codes_keeps_the_energy():
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(600, 40)) @ rng.normal(size=(40, 256)) + 0.5
    vectors = (latent / np.linalg.norm(latent, axis=1, keepdims=True)).astype(np.float32)
    index = two_stages(vectors)
    turn = faiss.downcast_VectorTransform(faiss.downcast_index(index.base_index).chain.at(0))
    axes = faiss.vector_to_array(turn.A).reshape(turn.d_out, turn.d_in)
    assert 32 <= turn.d_out <= 48 and np.allclose(axes @ axes.T, np.eye(turn.d_out), atol=1e-5)
    assert ((vectors @ axes.T) ** 2).sum() >= 0.95 * (vectors**2).sum()
    records = [Record(f"{n}.jpg") for n in range(600)]
    built = GalleryIndex.build(vectors, records, Fingerprint(**{**PRINT.to_dict(), "dim": 256}), "refined", say=None)
    np.testing.assert_array_equal(built.vectors(np.arange(600)), vectors)
    report = compare_with_flat(built, vectors)
    assert report.recall >= 0.99
