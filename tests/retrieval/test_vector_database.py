"""The gallery on Milvus against a real server, started here: it answers what a flat index answers."""

import importlib.util
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.fingerprint import Fingerprint, FingerprintError
from tvilfm_plugin.retrieval.hits import search_index
from tvilfm_plugin.retrieval.index import GalleryIndex
from tvilfm_plugin.retrieval.records import Filter, Record
from tvilfm_plugin.retrieval.vector_database import DatabaseGallery

DIM = 2048
PRINT = Fingerprint(weights="abc", dim=DIM, normalisation="L2", preprocessing="none")
MISSING = [name for name in ("pymilvus", "milvus_lite") if importlib.util.find_spec(name) is None]
REMEDY = "pip install pymilvus milvus-lite"
needs_server = pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: {REMEDY}")


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    folder = tmp_path_factory.mktemp("milvus")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ["server", "--host", "127.0.0.1", "--port", str(port), "--data-dir", str(folder)]
    command = [sys.executable, "-m", "milvus_lite", *server]
    with open(folder / "log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            while True:
                assert server.poll() is None, (folder / "log").read_text()
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def gallery(count=120):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(count, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    unknown = lambda n, value: None if n % 5 == 0 else value
    known = lambda n: (unknown(n, n // 10), unknown(n + 1, n % 4), unknown(n + 2, n / 2))
    return vectors, [Record(f"o'neil \"{n}\".jpg", *known(n)) for n in range(count)]


FILTERS = (
    Filter(),
    Filter(cameras=[1, 2]),
    Filter(times=(10, 30)),
    Filter(cameras=[3], times=(None, 40.0)),
    Filter(cameras=[9]),
)


@needs_server
def test_it_answers_what_a_flat_index_answers(uri):
    vectors, records = gallery()
    flat, there = GalleryIndex.build(vectors, records, PRINT), DatabaseGallery(uri, "answers", PRINT)
    there.add(vectors, records)
    for step in range(2):
        assert len(there) == len(flat)
        for n, allowed in enumerate(FILTERS):
            members = {Modality.IR: vectors[n], Modality.TEXT: vectors[n + 7]}
            ours, theirs = (search_index(index, members, 12, allowed) for index in (flat, there))
            assert [hit[:4] for hit in theirs] == [hit[:4] for hit in ours]
            np.testing.assert_allclose([h.similarity for h in theirs], [h.similarity for h in ours], atol=1e-6)
            assert all(hit.similarity == sum(hit.shares.values()) for hit in theirs)
        if not step:
            gone = [record.path for record in records[::3]]
            assert there.remove(gone) == flat.remove(gone) == 40
    again = DatabaseGallery(uri, "answers", PRINT)
    assert len(again) == 80


@needs_server
def test_what_does_not_fit_is_refused_and_changes_nothing(uri):
    vectors, records = gallery(4)
    there = DatabaseGallery(uri, "refused", PRINT)
    there.add(vectors[:3], records[:3])
    with pytest.raises(ValueError, match="1 of these are there already"):
        there.add(vectors[2:], records[2:])
    with pytest.raises(ValueError, match=r"1 records, but vectors of shape \(1, 9\)"):
        there.add(vectors[3:, :9], records[3:])
    with pytest.raises(ValueError, match="Only unit vectors"):
        there.add(2 * vectors[3:], records[3:])
    with pytest.raises(KeyError, match="1 of 2 paths are not there, e.g. 'nowhere.jpg'"):
        there.remove(["nowhere.jpg", records[0].path])
    assert len(there) == 3
    other = Fingerprint(**{**PRINT.to_dict(), "weights": "xyz"})
    with pytest.raises(FingerprintError, match="'refused' does not belong to this model: weights 'abc' instead of 'xyz'"):
        DatabaseGallery(uri, "refused", other)


def test_the_missing_client_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ImportError, match=r"pip install pymilvus"):
        DatabaseGallery("http://127.0.0.1:1", "x", PRINT)
