"""The page on a real server, with a trained model and a gallery on disk."""

import base64
import contextlib
import gc
import io
import json
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("fastreid")
from hostile_requests import attack_all, picture
from hostile_requests import request as raw
from PIL import Image
from web_server import ask, running, search

from tvilfm_plugin.data import tokenizer
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval import web
from tvilfm_plugin.retrieval.records import Record
from tvilfm_plugin.retrieval.retriever import Retriever
from tvilfm_plugin.retrieval.web import Example, Page, listen, make_app
from tvilfm_plugin.retrieval.web_query import decode_picture

WATCHED = frozenset({"open", "os.system", "os.exec", "subprocess.Popen", "os.remove", "os.rename", "os.mkdir", "shutil.move"})
WORDS = {"text": "a man in a red jacket", "infrared_text": "a man in a jacket"}


@pytest.fixture(scope="module")
def gallery(tiny, tmp_path_factory):
    """A copy, because a test takes a picture away."""
    folder = tmp_path_factory.mktemp("gallery")
    records = []
    for source in sorted((tiny.folder / "data" / "SYSU-MM01").glob("cam[1245]/*/*.jpg")):
        copy = folder / f"{source.parts[-3]}_{source.parts[-2]}_{source.name}"
        copy.write_bytes(source.read_bytes())
        records.append(Record(str(copy), int(source.parts[-2]), int(source.parts[-3][3])))
    return records


@pytest.fixture(scope="module")
def retriever(tiny, trained, gallery):
    found = Retriever.from_checkpoint(tiny.config, trained / "model_final.pth", device="cpu")
    found.embed_gallery(gallery)
    return found


@pytest.fixture(scope="module")
def infrared(tiny):
    return sorted((tiny.folder / "data" / "SYSU-MM01").glob("cam3/*/*.jpg"))[-1]


@pytest.fixture(scope="module")
def port(retriever, infrared):
    offered = [Example(str(infrared), **WORDS, person=25)]
    with running(make_app(retriever, offered, "The gallery")) as port:
        yield port


@pytest.fixture(scope="session")
def events():
    """What this process opens, runs and moves while `events` is a list and not None; an audit hook stays for ever."""
    seen = {"list": None}

    def hook(event: str, arguments: tuple) -> None:
        if seen["list"] is not None and event in WATCHED:
            seen["list"].append((event, str(arguments[0])))

    sys.addaudithook(hook)
    return seen


@contextlib.contextmanager
def nothing_else_is_touched(events, *allowed):
    """No file is opened but those named and modules that are imported late; nothing is written, run or moved."""
    events["list"], writes = [], sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # a module that is first imported here would leave its compiled form
    try:
        yield
    finally:
        seen, events["list"], sys.dont_write_bytecode = events["list"], None, writes
    libraries = tuple({os.path.dirname(os.__file__), *filter(None, sys.path)})
    code = lambda path: path.startswith(libraries) and path.endswith((".py", ".pyc"))
    assert not [(event, path) for event, path in seen if path not in allowed and not (event == "open" and code(path))]


CASES = [
    ({"image", "text", "infrared_text"}, None, ["ir", "text", "fusion"]),
    ({"image", "text", "infrared_text"}, ["text", "ir"], ["ir", "text"]),
    ({"image", "text", "infrared_text"}, ["fusion"], ["fusion"]),
    ({"image", "text"}, None, ["ir", "text"]),
    ({"image"}, None, ["ir"]),
    ({"text"}, None, ["text"]),
]


@pytest.mark.parametrize(("given", "members", "voting"), CASES)
def test_hits_are_the_retrievers(port, retriever, infrared, given, members, voting):
    image = infrared.read_bytes() if "image" in given else None
    words = {name: text for name, text in WORDS.items() if name in given}
    reply = search(port, image, members=members, top=5, **words)
    assert reply.status == 200
    expected = retriever.search(infrared=infrared if image else None, top=5, members=members, **words)
    assert reply.json["note"] == expected.note
    assert [(hit["person"], hit["camera"], hit["time"]) for hit in reply.json["hits"]] == [h[1:4] for h in expected.hits]
    for hit, own in zip(reply.json["hits"], expected.hits, strict=True):
        assert list(hit["shares"]) == voting and hit["shares"] == {m.value: s for m, s in own.shares.items()}
        assert hit["similarity"] == own.similarity == pytest.approx(sum(hit["shares"].values()))
        shown = ask(port, f"/gallery/{hit['picture']}")
        assert shown.headers["content-type"] == "image/jpeg"
        with Image.open(own.path) as there, Image.open(io.BytesIO(shown.body)) as here:
            assert here.size == there.size  # smaller than the page shows them: as they are
            distance = np.abs(np.asarray(here, float) - np.asarray(there.convert("RGB"), float)).mean()
            assert distance < 12


def test_members_change_the_ranking(port, infrared):
    ranks = {
        tuple(hit["picture"] for hit in search(port, infrared.read_bytes(), members=[name], top=20, **WORDS).json["hits"])
        for name in ("ir", "text")
    }
    assert len(ranks) == 2


def test_several_pictures_and_a_threshold(port, retriever, gallery, infrared):
    others = sorted(infrared.parent.glob("*.jpg"))[:3]
    encoded = [base64.b64encode(path.read_bytes()).decode() for path in (infrared, *others)]
    reply = search(port, infrared.read_bytes(), images=encoded[1:], members=["ir"], top=5)
    expected = retriever.search(infrared=[infrared, *others], members=["ir"], top=5)
    assert [hit["similarity"] for hit in reply.json["hits"]] == [hit.similarity for hit in expected.hits]
    assert reply.json["note"] == expected.note and f"{1 + len(others)} images of one person" in expected.note
    middle = expected.hits[2].similarity
    some = search(port, infrared.read_bytes(), images=encoded[1:], members=["ir"], top=5, threshold=middle).json
    assert len(some["hits"]) == 3
    nobody = search(port, infrared.read_bytes(), threshold=2.9).json
    assert nobody["hits"] == [] and "nobody: the most similar image has" in nobody["note"]


def test_about(port, retriever):
    about = ask(port, "/about").json
    assert about["gallery"] == len(retriever.index) and about["title"] == "The gallery"
    assert about["members"] == ["ir", "text", "fusion"]
    assert about["examples"] == [{**WORDS, "person": 25}]
    assert about["limits"] == {
        "image_bytes": 8 << 20,
        "image_pixels": 16_000_000,
        "formats": ["PNG", "JPEG", "BMP"],
        "text_characters": 500,
    }


def test_an_example_comes_without_loss(port, infrared):
    reply = ask(port, "/examples/0")
    assert reply.headers["content-type"] == "image/png"
    assert decode_picture(reply.body).tobytes() == decode_picture(infrared.read_bytes()).tobytes()
    for number in ("1", "-1", "00", "9" * 5000, "..%2f0"):
        assert ask(port, f"/examples/{number}").status == 404


def test_the_page_and_its_parts(port):
    assert ask(port, "/").headers["content-type"] == "text/html; charset=utf-8"
    for name, kind in (("page.css", "text/css; charset=utf-8"), ("page.js", "text/javascript; charset=utf-8")):
        assert ask(port, f"/{name}").headers["content-type"] == kind
        assert f"/{name}".encode() in ask(port, "/").body
    # The policy forbids scripts, styles and handlers inside the page; and nothing names another host.
    for path in ("/", "/page.css", "/page.js"):
        content = ask(port, path).body.decode()
        assert "://" not in content.replace("http://www.w3.org/2000/svg", "")
    assert not [word for word in ("<style", "style=", "onclick=", "<script>") if word in ask(port, "/").body.decode()]


def test_only_found_pictures_are_served(retriever, gallery):
    with running(make_app(retriever)) as port:
        page = Page(retriever)
        names = {page.hit(hit)["picture"] for hit in retriever.search(text="a man", top=3).hits}
        places = [*names, "0", "1", gallery[0].path.replace("/", "%2f"), Path(gallery[0].path).name, "", "%00", "f" * 32]
        assert {ask(port, f"/gallery/{place}").status for place in places} == {404}
        found = search(port, text="a man", top=3).json["hits"]
        assert {ask(port, f"/gallery/{hit['picture']}").status for hit in found} == {200}
        assert not names & {hit["picture"] for hit in found}, "names are those of one start of the server"


@pytest.mark.parametrize(
    ("image", "fields", "reason"),
    [
        (False, {"text": "a man", "members": ["ir"]}, "With a text alone, ir cannot vote"),
        (True, {"members": ["text", "fusion"]}, "With an image alone, text, fusion cannot vote"),
        (True, {"members": []}, "Every member is switched off; switch one on."),
        (False, {}, "Nothing to search for"),
    ],
)
def test_what_cannot_be_searched_is_said(port, image, fields, reason):
    reply = search(port, picture() if image else None, **fields)
    assert reply.status == 422 and reply.json["error"].startswith(reason)


def test_a_missing_description_is_noted(port):
    assert "no text of the infrared image" in search(port, picture(), text="a man").json["note"]


def test_a_text_that_is_too_long_for_the_model_is_noted(port):
    words = [letter + other for letter in "abcdefgh" for other in "abcdefghij"]
    note = search(port, text=" ".join(words)).json["note"]
    read = max(n for n in range(80) if tokenizer.tokenize([" ".join(words[:n])])[0, -1] == 0)
    assert note.endswith(f'a text is read up to "{" ".join(words[: read + 1][-4:])}", the model does not hear its rest')
    assert "read up to" not in search(port, text="man " * 75).json["note"]
    assert "read up to" in search(port, text="a", infrared_text="man " * 76).json["note"]


def test_a_picture_that_is_gone(retriever, gallery, tmp_path):
    lost = tmp_path / "lost.jpg"
    lost.write_bytes(Path(gallery[0].path).read_bytes())
    before = retriever.index
    try:
        retriever.embed_gallery([lost])
        with running(make_app(retriever)) as port:
            (hit,) = search(port, text="a man").json["hits"]
            assert ask(port, f"/gallery/{hit['picture']}").status == 200
            for content in (b"root:x:0:0:a secret", None):
                lost.write_bytes(content) if content else lost.unlink()
                reply = ask(port, f"/gallery/{hit['picture']}")
                assert (reply.status, reply.json) == (404, {"error": "There is nothing here."})
    finally:
        retriever.index = before


def test_a_failing_search_does_not_explain_itself(port, retriever, monkeypatch):
    def fail(*query, **options):
        raise FileNotFoundError(2, "No such file", "/a/secret/place")

    monkeypatch.setattr(retriever, "find", fail)
    reply = search(port, text="a man")
    assert (reply.status, reply.json) == (500, {"error": "The search failed; the reason is in the log of the server."})
    monkeypatch.undo()
    assert search(port, text="a man").status == 200


def test_nothing_of_a_search_remains(port, events):
    size = (613, 487)  # of no other picture in this process
    with nothing_else_is_touched(events):
        reply = search(port, picture("PNG", size), text="a zorgblat man", infrared_text="a frumious man")
    assert reply.status == 200
    gc.collect()
    kept = [one for one in gc.get_objects() if issubclass(type(one), (Image.Image, np.ndarray))]
    assert not [one for one in kept if isinstance(one, Image.Image) and one.size == size]
    assert not [one for one in kept if isinstance(one, np.ndarray) and one.shape[:2] == size[::-1]]
    assert set(tokenizer.open_clip_tokenizer().cache) == set(tokenizer.SPECIAL)


def test_searches_wait_for_each_other_and_give_the_same(port, infrared):
    alone = search(port, infrared.read_bytes(), **WORDS).json
    with ThreadPoolExecutor(web.SEARCHES) as pool:
        replies = list(pool.map(lambda _: search(port, infrared.read_bytes(), **WORDS), range(3 * web.SEARCHES)))
    assert {reply.status for reply in replies} == {200} and all(reply.json == alone for reply in replies)


def test_too_many_searches_at_once_are_refused(port):
    half = raw("/search", b"{", port=port, content_length="99")
    waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(web.SEARCHES)]
    try:
        for one in waiting:
            one.sendall(half)
        replies = [search(port, text="a man") for _ in range(20)]
        assert replies[-1].json == {"error": "Too many searches at once; try again in a moment."}
        assert replies[-1].status == 503 and ask(port, "/about").status == 200
    finally:
        for one in waiting:
            one.close()
    # The places are free again as soon as the server has noticed.
    assert any(search(port, text="a man").status == 200 for _ in range(1000))


# --- hostile requests ------------------------------------------------------------------------------------------------


def test_hostile_requests(port, infrared, events):
    """No crash, no file but the offered picture, and no word of this machine. What 1,000 of them did: docs/web.md."""
    ordinary = search(port, infrared.read_bytes(), **WORDS)
    with nothing_else_is_touched(events, str(infrared)):
        counted, wrong = attack_all(195, port)
    assert not wrong, "\n".join(wrong)
    assert {status for _, status in counted} >= {200, 400, 403, 404, 405, 413, 415, 422}
    assert search(port, infrared.read_bytes(), **WORDS).json == ordinary.json


def test_an_opened_file_is_noticed(events, infrared, tmp_path):
    """The check of the test above can fail."""
    for touch in (infrared.read_bytes, lambda: (tmp_path / "new").write_text("a"), lambda: os.mkdir(tmp_path / "folder")):
        with pytest.raises(AssertionError), nothing_else_is_touched(events):
            touch()
    with nothing_else_is_touched(events, str(infrared)):
        infrared.read_bytes()


def test_hostile_answers_are_recognised():
    """The check that the test above relies on can fail."""
    from hostile_requests import Answer, wrong

    page = b"HTTP/1.1 422 x\n\n"
    assert not wrong(Answer("odd text", 422, page + b'{"error": "text is too long; at most 500 characters."}'))
    for leak in (b"OSError: x", b"/home/me/x", b"Traceback (most", b"root:x:0:0:", b"web.py line 5", b"<X at 0x7f0012345678>"):
        assert "the answer holds" in wrong(Answer("odd text", 422, page + leak))
    assert "status 500" in wrong(Answer("odd text", 500, b"")) and "status 0" in wrong(Answer("odd text", 0, b""))
    assert not wrong(Answer("no HTTP", 0, b""))
    asked, answer = b'{"text": "../../etc/passwd"}', page + b'{"note": "Words that the model does not know: /etc/"}'
    assert not wrong(Answer("path in a field", 200, answer, asked)) and wrong(Answer("path in a field", 422, answer, asked))


# --- start -----------------------------------------------------------------------------------------------------------


def test_a_taken_port_is_named():
    with listen("127.0.0.1", 0) as first:
        number = first.getsockname()[1]
        with pytest.raises(OSError, match=rf"Cannot listen on 127.0.0.1, port {number}: .* Choose another --port or --host"):
            listen("127.0.0.1", number)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(ValueError, match=f"--port is a number from 0 .* to 65535, not {port}"):
        listen("127.0.0.1", port)


def test_a_retriever_without_a_gallery(retriever, monkeypatch):
    monkeypatch.setattr(retriever, "index", None)
    with pytest.raises(ValueError, match="no gallery yet: call embed_gallery or load_gallery first"):
        make_app(retriever)


def test_a_model_without_text(tiny, trained, gallery, infrared):
    stage1 = Retriever.from_checkpoint(tiny.stage1, trained / "stage1" / "model_final.pth", device="cpu")
    stage1.embed_gallery(gallery)
    assert stage1.members == (Modality.IR,)
    with running(make_app(stage1)) as port:
        assert ask(port, "/about").json["members"] == ["ir"]
        assert list(search(port, infrared.read_bytes()).json["hits"][0]["shares"]) == ["ir"]
        for image in (None, infrared.read_bytes()):
            reply = search(port, image, text="a man")
            assert (reply.status, reply.json) == (422, {"error": "This model has no text: search with a picture only."})


def test_bytes_of_the_picture_are_what_counts(port, infrared):
    """A name or a type that a client claims is no part of a query, so the content alone decides."""
    encoded = base64.b64encode(infrared.read_bytes()).decode()
    reply = ask(port, "/search", json.dumps({"image": f"data:image/png;base64,{encoded}"}).encode())
    assert (reply.status, reply.json) == (422, {"error": "image is the picture's bytes in base64."})


def test_a_witness_is_asked_and_answers(retriever, gallery, infrared):
    with running(make_app(retriever)) as port:
        image = infrared.read_bytes()
        assert search(port, image).json["question"] is None  # none is wanted
        first = search(port, image, top=50, answers={}).json
        question = first["question"]
        assert question["text"] and 1 < len(question["choices"]) <= web.CHOICES
        again = search(port, image, top=50, answers={question["slot"]: question["choices"][-1]}).json
        assert again["question"]["slot"] != question["slot"]
        people = lambda found: [hit["picture"] for hit in found["hits"]]
        assert people(first) != people(again) and len(again["hits"]) == len(first["hits"])
        silent = search(port, image, top=50, answers={question["slot"]: ""}).json
        assert people(silent) == people(first)
        for wrong, reason in (
            (["sex"], "answers is an object"), ({"shoe size": "42"}, "answers is an object"),
            ({"sex": 1}, "an answer is a text"), ({"sex": "Thursday"}, "Is it a man or a woman?"),
        ):  # fmt: skip
            refused = search(port, image, answers=wrong)
            assert refused.status == 422 and reason in refused.json["error"], wrong
