"""The endpoint on a real server: the retriever's own answers, shared passes, its description, and refusals in plain words."""

import base64
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("fastreid")
from oracles_modeling import small_model, write_tower
from PIL import Image
from web_server import ask, running, search

from tvilfm_plugin.cli.main import main
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.retriever import Retriever
from tvilfm_plugin.retrieval.serving import make_endpoint

WORDS = {"text": "a man in a red jacket", "infrared_text": "a man in a jacket"}


@pytest.fixture(scope="module")
def pictures():
    noise = np.random.default_rng(2)
    return [Image.fromarray(noise.integers(0, 256, (60, 30, 3), dtype=np.uint8)) for _ in range(12)]


@pytest.fixture(scope="module")
def retriever(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    for number, picture in enumerate(pictures[:6]):
        picture.save(folder / f"{number}.png")
    found = Retriever(small_model("TVILFM", write_tower(tmp_path_factory.mktemp("tower"))), image_size=(48, 24))
    found.embed_gallery(str(folder))
    return found


@pytest.fixture(scope="module")
def port(retriever):
    with running(make_endpoint(retriever, "Six pictures", batch=8)) as port:
        yield port


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def coded(picture: Image.Image) -> str:
    return base64.b64encode(png(picture)).decode()


def embed(port: int, **fields) -> np.ndarray:
    reply = ask(port, "/embed", json.dumps(fields).encode())
    assert reply.status == 200, reply.body
    return np.array(reply.json["vectors"])


@pytest.mark.parametrize("fields", [{}, WORDS, {"text": WORDS["text"]}, {**WORDS, "members": ["text"], "top": 2}])
def test_a_search_is_the_retrievers(port, retriever, pictures, fields):
    query = pictures[7]
    reply = search(port, png(query), **fields)
    expected = retriever.search(query, **fields)
    hits = reply.json["hits"]
    assert reply.status == 200 and reply.json["note"] == expected.note
    assert [hit["similarity"] for hit in hits] == pytest.approx([hit.similarity for hit in expected.hits], abs=1e-6)
    picture = Image.open(io.BytesIO(ask(port, f"/gallery/{hits[0]['picture']}").body))
    assert picture.format == "JPEG" and picture.size == (30, 60)


def test_several_pictures_and_a_threshold(port, retriever, pictures):
    reply = search(port, png(pictures[7]), images=[coded(pictures[8])], threshold=2.9)
    expected = retriever.search([pictures[7], pictures[8]], threshold=2.9)
    assert reply.json == {"hits": [], "note": expected.note} and "nobody" in expected.note


def test_embeddings_are_the_retrievers(port, retriever, pictures):
    some = pictures[6:9]
    for name, modality in (("ir", Modality.IR), ("rgb", Modality.RGB)):
        vectors = embed(port, images=[coded(one) for one in some], modality=name)
        np.testing.assert_allclose(vectors, retriever.embed_images(some, modality), atol=1e-6)
    texts = ["a man", "a woman in a blue coat", "a man"]
    np.testing.assert_allclose(embed(port, texts=texts), retriever.embed_texts(texts), atol=1e-6)


def test_requests_that_wait_share_a_pass(retriever, pictures, monkeypatch):
    sizes, gate, each = [], threading.Event(), retriever.embed_each

    def slow(parts):
        sizes.append(len(parts))
        assert gate.wait(20)
        return each(parts)

    alone = [retriever.search(one, **WORDS).hits[0].similarity for one in pictures]
    monkeypatch.setattr(retriever, "embed_each", slow)
    with running(make_endpoint(retriever, batch=8)) as port, ThreadPoolExecutor(len(pictures)) as pool:
        asked = [pool.submit(search, port, png(one), **WORDS) for one in pictures]
        threading.Timer(0.5, gate.set).start()  # the first pass is under way; the others arrive behind it
        replies = [one.result() for one in asked]
    assert sum(sizes) == len(pictures) and max(sizes) > 1 and max(sizes) <= 8
    together = [reply.json["hits"][0]["similarity"] for reply in replies]
    assert together == pytest.approx(alone, abs=1e-5)


def test_memory_has_a_bound_since_three_threads_do_all_the_work(retriever, pictures):
    before = set(threading.enumerate())
    with running(make_endpoint(retriever)) as port, ThreadPoolExecutor(len(pictures)) as pool:
        names = [one.json["hits"][0]["picture"] for one in pool.map(lambda one: search(port, png(one), **WORDS), pictures)]
        assert {one.status for one in pool.map(lambda name: ask(port, f"/gallery/{name}"), names)} == {200}
        made = [thread.name.partition("_")[0] for thread in set(threading.enumerate()) - before]
    assert made.count("network") == 1 and made.count("decoder") == 2 and not any("AnyIO" in name for name in made), made


def test_a_pass_that_fails_does_not_end_the_next(retriever, pictures, monkeypatch):
    each, broken = retriever.embed_each, [True]

    def once(parts):
        if broken and broken.pop():
            raise FloatingPointError("secret")
        return each(parts)

    monkeypatch.setattr(retriever, "embed_each", once)
    with running(make_endpoint(retriever)) as port:
        first, second = (search(port, png(pictures[0])) for _ in range(2))
    assert (first.status, second.status) == (500, 200) and b"secret" not in first.body


def test_what_cannot_be_meant_is_refused(port, retriever, pictures):
    for fields, status, said in (
        ({"picture": "x"}, 422, "Unknown field; images, modality and texts"),
        ({}, 422, "Give either images"),
        ({"images": ["x"], "texts": ["x"]}, 422, "Give either images"),
        ({"texts": ["x"] * 17}, 422, "at most 16"),
        ({"texts": ["x" * 501]}, 413, "too long"),
        ({"texts": ["\n"]}, 422, "A text is empty"),
        ({"images": ["not base64!"]}, 422, "base64"),
        ({"images": [base64.b64encode(b"no picture").decode()]}, 422, "no picture that can be read"),
        ({"images": [coded(pictures[0])], "modality": "xray"}, 422, "modality is ir or rgb"),
    ):
        reply = ask(port, "/embed", json.dumps(fields).encode())
        assert (reply.status, said in reply.json["error"]) == (status, True), (fields, reply.body)
    assert ask(port, "/embed", b"[]").status == 400 and ask(port, "/embed").status == 405
    assert ask(port, "/health", host="evil.example").status == 403
    assert ask(port, "/search", b"{}", origin="http://evil.example").status == 403
    assert search(port, png(pictures[0]), members=["fusion"]).status == 422
    assert b"this endpoint has none" in search(port, png(pictures[0]), answers={}).body
    assert ask(port, "/embed", b"{}", content_type="text/plain").status == 415


def test_more_than_there_are_places_for(retriever, pictures, monkeypatch):
    entered, gate, each = threading.Event(), threading.Event(), retriever.embed_each

    def slow(parts):
        entered.set()
        assert gate.wait(20)
        return each(parts)

    monkeypatch.setattr(retriever, "embed_each", slow)
    with running(make_endpoint(retriever, places=1)) as port, ThreadPoolExecutor(1) as pool:
        first = pool.submit(search, port, png(pictures[0]))
        assert entered.wait(20)
        second = search(port, png(pictures[1]))
        gate.set()
        assert (second.status, first.result().status) == (503, 200) and "Too many requests" in second.json["error"]


def test_it_describes_itself(port, retriever):
    assert ask(port, "/health").json == {"status": "ok"}
    info = ask(port, "/info").json
    assert info["gallery"] == 6 and info["weights"] == retriever.fingerprint.weights and info["model"] == "TVILFM"
    described = ask(port, "/openapi.json").json
    assert described["openapi"] == "3.1.0" and described["info"]["title"] == "Six pictures"
    assert set(described["paths"]) == {"/search", "/embed", "/health", "/info", "/gallery/{picture}"}
    body = described["paths"]["/search"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {"image", "images", "text", "infrared_text", "members", "top", "threshold"}
    page = ask(port, "/")
    assert page.headers["content-type"].startswith("text/html") and b"POST /embed" in page.body and b"<script" not in page.body


def test_the_command_names_what_is_missing(capsys, tmp_path):
    assert main(["serve", str(tmp_path / "nothing")]) == 2 and "No weights" in capsys.readouterr().err
    assert main(["serve", str(tmp_path), "--batch", "0"]) == 2 and "at least 1" in capsys.readouterr().err
