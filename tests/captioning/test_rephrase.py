"""Rephrasing with a local model and with a server: the same guards, the same files."""

import contextlib
import gzip
import json
import os
import socketserver
import threading
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
from tiny_captioning import Script, build_tiny_llm, chat_answer, kill_again_and_again, openai_server, write_two_coloured

from tvilfm_plugin.captioning.captioner import Decoding
from tvilfm_plugin.captioning.rephrase import LocalRephraser, Rephraser, instruct, rephrase_captions, vicuna_prompt
from tvilfm_plugin.captioning.server import ServerError, ServerRephraser
from tvilfm_plugin.captioning.sources import SourceSet, find_sources
from tvilfm_plugin.data.captions import CaptionBank
from tvilfm_plugin.modality import Modality

SHADES = ("red", "blue", "green", "white")
GREEDY = Decoding(max_new_tokens=40)
KILLS = int(os.environ.get("TVILFM_KILLS", "5"))


def caption(upper: str, lower: str) -> str:
    return f"a person in a {upper} shirt and {lower} trousers"


def reworded(upper: str, lower: str) -> str:
    return f"A pedestrian wears {lower} pants and a {upper} shirt."


class Scripted(Rephraser):
    """Gives the answers of a list, for ever the last one."""

    def __init__(self, answers: Sequence[str | Exception], temperature: float = 0.7) -> None:
        self.answers, self.decoding, self.seen = list(answers), Decoding(temperature=temperature), 0
        self.begun: Any = None  # an event: answers come slowly, and the first is announced

    def answer(self, messages: Sequence[str], seed: int) -> list[str | Exception]:
        given = []
        if self.begun is not None:
            self.begun.set()
            time.sleep(0.004)
        for _ in messages:
            given.append(self.answers[min(self.seen, len(self.answers) - 1)])
            self.seen += 1
        return given

    def provenance(self) -> dict[str, Any]:
        return {"rephraser": "scripted"}


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    root = tmp_path_factory.mktemp("people")
    return root, write_two_coloured(root, people=8, per_camera=2, test_people=2)


@pytest.fixture
def images(truth: tuple[Path, dict[str, str]]) -> SourceSet:
    return find_sources("sysu", str(truth[0]), Modality.RGB, split="train")


@pytest.fixture(scope="module", params=[True, False], ids=["chat", "vicuna"])
def llm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model that has learned to rephrase captions."""
    pairs = [(instruct(caption(u, lo)), reworded(u, lo)) for u in SHADES for lo in SHADES]
    return build_tiny_llm(tmp_path_factory.mktemp("llm"), pairs, chat=request.param, steps=110)


def run(rephraser: Rephraser, images: SourceSet, texts: dict[str, str], out: Path, **options: Any) -> Any:
    return rephrase_captions(rephraser, images, texts, out, **{"batch_size": 4, **options})


def test_prompts() -> None:
    assert instruct("a man.") == "a man. Rephrase the person's description above using similar words. Answer:"
    assert instruct("a man.", "released").startswith("a man.rephrase the person's")
    assert vicuna_prompt("hello").endswith(" USER: hello ASSISTANT:")
    with pytest.raises(ValueError, match="paper, released"):
        instruct("a man.", "short")


def test_local_model_and_server_write_the_same_file(
    llm: Path, truth: tuple[Path, dict[str, str]], images: SourceSet, tmp_path: Path
) -> None:
    local = LocalRephraser.load(str(llm), decoding=GREEDY)
    outcome = run(local, images, truth[1], tmp_path / "local")
    assert outcome.made == len(images.sources) and outcome.empty == 0, outcome
    name = "caption_llm_dict_Blip_RGB.json"
    bank = CaptionBank.from_files(None, tmp_path / "local" / name, None, images.relative)
    assert len(bank) == len(truth[1])
    for source in images.sources:
        upper, lower = truth[1][source.key].split()[4], truth[1][source.key].split()[7]
        assert bank[source.key].rephrase == reworded(upper, lower)
    tested = [key for key in truth[1] if key not in {source.key for source in images.sources}]
    assert tested and all(bank[key].rephrase == "" for key in tested)

    lock = threading.Lock()

    def serve(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        assert body["model"] == "toy-model" and body["temperature"] == 0 and body["max_tokens"] == 40
        with lock:
            if "prompt" in body:
                encoded = local.tokenizer(body["prompt"], return_tensors="pt")
                made = local.model.generate(**encoded, max_new_tokens=40, do_sample=False)
                text = local.tokenizer.decode(made[0, encoded.input_ids.shape[1] :], skip_special_tokens=True)
                return 200, {}, {"choices": [{"text": text}]}
            return chat_answer(str(local.answer([body["messages"][0]["content"]], 0)[0]))

    with openai_server(Script(serve)) as url:
        server = ServerRephraser(url, decoding=GREEDY, template=local.template, concurrency=3, wait=0.01)
        outcome = run(server, images, truth[1], tmp_path / "server", batch_size=8)
    assert outcome.made == len(images.sources)
    assert (tmp_path / "server" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


@pytest.mark.parametrize(
    ("answers", "kept", "refused"),
    [
        (["A person in a blue shirt.", "Someone in a red shirt and blue trousers"], "Someone in a red shirt and blue trousers",
         ["moves a colour to"]),
        (['Sure, here it is: "Someone in a red shirt and blue pants."'], "Someone in a red shirt and blue pants.", []),
        (["Someone in a red coat and blue trousers"], "", ["brings in a garment"]),
        (["Someone in a yellow shirt and blue trousers"], "", ["brings in a colour"]),
        (["a person in a red shirt and blue trousers."], "", ["copies the caption"]),
        (["I'm sorry, I cannot do that.", "", "word " * 90], "", ["talks about the task", "empty", "too long"]),
    ],
)  # fmt: skip
def test_guards_on_visible_text(images: SourceSet, tmp_path: Path, answers: list[str], kept: str, refused: list[str]) -> None:
    key = images.sources[0].key
    outcome = run(Scripted(answers), images, {key: caption("red", "blue")}, tmp_path, retries=3)
    assert json.loads((tmp_path / "caption_llm_dict_Blip_RGB.json").read_text()) == {
        key: {"description": caption("red", "blue"), "aug_description": kept}
    }
    assert outcome.empty == (kept == "") and set(refused) == set(outcome.refused)


def test_no_colour_enters_infrared_text(truth: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    images = find_sources("sysu", str(truth[0]), Modality.IR, split="train")
    texts = {images.sources[0].key: "a person in a shirt"}
    answers = ["Someone in a light blue shirt"]
    name = "caption_llm_dict_Blip_IR.json"
    outcome = run(Scripted(answers), images, texts, tmp_path / "guarded", retries=2)
    assert outcome.refused == {"brings in a colour": 3} and outcome.empty == 1
    run(Scripted(answers), images, texts, tmp_path / "filtered", colour_filter="strict")
    entry = json.loads((tmp_path / "filtered" / name).read_text())[images.sources[0].key]
    assert entry["aug_description"] == "Someone in a shirt"
    visible = find_sources("sysu", str(truth[0]), Modality.RGB)
    with pytest.raises(ValueError, match="need their colours"):
        run(Scripted(answers), visible, texts, tmp_path / "no", colour_filter="strict")


def test_a_greedy_model_is_not_asked_twice(images: SourceSet, tmp_path: Path) -> None:
    scripted = Scripted(["A dog."], temperature=0.0)
    run(scripted, images, {images.sources[0].key: caption("red", "blue")}, tmp_path, retries=5)
    assert scripted.seen == 1


def test_splits_that_are_rephrased_one_by_one_share_a_file(truth: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    texts = dict.fromkeys(truth[1], caption("red", "blue"))
    for split in ("train", "test"):
        images = find_sources("sysu", str(truth[0]), Modality.RGB, split=split)
        run(Scripted(["Someone in a red shirt and blue pants"]), images, texts, tmp_path)
    content = json.loads((tmp_path / "caption_llm_dict_Blip_RGB.json").read_text())
    assert len(content) == len(texts) and all(entry["aug_description"] for entry in content.values())


def test_new_captions_and_failed_ones_are_done_again(images: SourceSet, tmp_path: Path) -> None:
    a, b, c = (source.key for source in images.sources[:3])
    texts = {key: caption("red", "blue") for key in (a, b, c)}
    good = "Someone in a red shirt and blue pants"
    outcome = run(Scripted([good, ServerError("no answer"), good]), images, texts, tmp_path)
    assert list(outcome.failed) == [b] and outcome.made == 2
    texts[c] = caption("green", "white")
    # Old rows would otherwise rephrase a caption that is no more.
    outcome = run(Scripted([good, "Someone in a green shirt and white pants"]), images, texts, tmp_path)
    assert outcome.made == 2 and not outcome.failed
    entry = json.loads((tmp_path / "caption_llm_dict_Blip_RGB.json").read_text())[c]
    assert entry == {"description": texts[c], "aug_description": "Someone in a green shirt and white pants"}


def test_kills_lose_nothing_and_double_nothing(truth: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    images = find_sources("sysu", str(truth[0]), Modality.RGB)
    answer = "Someone in a red shirt and blue pants"
    texts = {source.key: caption("red", "blue") for source in images.sources}
    name = "caption_llm_dict_Blip_RGB.json"
    run(Scripted([answer]), images, texts, tmp_path / "whole")
    rows = tmp_path / "killed/rows/rephrases/rank00000.jsonl"

    def work(begun: Event) -> None:
        slow = Scripted([answer])
        slow.begun = begun
        run(slow, images, texts, tmp_path / "killed", batch_size=1)

    kill_again_and_again(work, rows, len(images.sources), KILLS)
    run(Scripted([answer]), images, texts, tmp_path / "killed")
    assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    done = sorted(json.loads(line)["image"] for line in rows.open())
    assert done == sorted(texts)


def test_server_is_retried_with_patience_and_bounded_concurrency() -> None:
    waits = {0: 0.05}

    def plan(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        time.sleep(waits.get(number, 0.03))
        if number == 0:
            return 429, {"Retry-After": "0.2"}, "slow down"
        if number in (1, 2):
            return 503, {}, "busy"
        if number == 3:
            return 200, {}, "no JSON"
        return chat_answer(body["messages"][0]["content"].upper())

    script = Script(plan)
    with openai_server(script) as url:
        server = ServerRephraser(url, concurrency=3, wait=0.01, retries=4)
        start = time.perf_counter()
        assert server.answer([f"m{n}" for n in range(12)], 0) == [f"M{n}" for n in range(12)]
    assert time.perf_counter() - start > 0.2
    assert len(script.requests) == 16 and script.most_under_way <= 3


ODD_ANSWERS: list[Any] = [
    [1], {"choices": None}, {"choices": [None]}, {"choices": [{"message": "x"}]}, {"choices": [{"message": {"content": None}}]},
    {"choices": [{"message": {"content": 5}}]}, {"choices": [{"message": {"content": "a \ud800 man"}}]},
    {"choices": [{"message": {"content": [{"type": "image", "text": "x"}]}}]}, "[" * 100_000, "<html>", "", '{"choices": [',
    {"error": {"message": "overloaded"}}, '{"choices": 1' + "0" * 5000 + "}",
]  # fmt: skip


def test_any_odd_answer_is_one_failed_row(images: SourceSet, tmp_path: Path) -> None:
    odd = iter(ODD_ANSWERS)

    def plan(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        if number % 2:
            return 200, {}, next(odd)
        parts = [{"type": "text", "text": "Someone in a red shirt"}, {"type": "text", "text": " and blue pants"}]
        return 200, {}, {"choices": [{"message": {"content": parts}}]}

    with openai_server(Script(plan)) as url:
        server = ServerRephraser(url, wait=0.0, retries=0, concurrency=1)
        for _ in ODD_ANSWERS:
            good, bad = server.answer(["a", "b"], 0)
            assert good == "Someone in a red shirt and blue pants" and isinstance(bad, ServerError)
        # The last request of a run may be the one that fails.
        odd = iter(ODD_ANSWERS)
        assert isinstance(server.answer(["a"], 0)[0], str) and isinstance(server.answer(["a"], 0)[0], ServerError)


@pytest.mark.parametrize("damage", ["gzip", "cut gzip", "cut", "no http", "endless"])
def test_bodies(damage: str) -> None:
    """Compressed answers are read; damaged, endless and cut ones fail in time."""
    body = json.dumps(chat_answer("fine")[2]).encode()
    head = b"HTTP/1.0 200 OK\r\n"
    if "gzip" in damage:
        packed = gzip.compress(body)[: -5 if "cut" in damage else None]
        reply = head + b"Content-Encoding: gzip\r\n\r\n" + packed
    else:
        reply = {"cut": head + b"Content-Length: 999\r\n\r\n" + body, "no http": b"hello\r\n\r\n"}.get(damage, head + b"\r\n")

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(reply)
            with contextlib.suppress(OSError):
                while damage == "endless":
                    self.wfile.write(b" " * 65536)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        server = ServerRephraser(f"http://127.0.0.1:{listener.server_address[1]}/v1", model="m", retries=0, timeout=2.0)
        server._answered = True
        answer = server.answer(["a"], 0)[0]
        assert answer == "fine" if damage == "gzip" else isinstance(answer, ServerError), answer
        listener.shutdown()


@pytest.mark.parametrize("url", ["", "ftp://h/v1", "http://", "http://[::1/v1", "http://h:99999/v1", "http://a b", "http://h/\n"])
def test_addresses(url: str) -> None:
    with pytest.raises(ValueError, match="is no server address"):
        ServerRephraser(url)


def test_server_failures_are_told_apart() -> None:
    def plan(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        message = body["messages"][0]["content"]
        if message == "bad":
            return 400, {}, "context length exceeded " * 100
        if message == "odd":
            return 200, {}, {"choices": []}
        return chat_answer("fine")

    with openai_server(Script(plan)) as url:
        server = ServerRephraser(url, wait=0.01, retries=1)
        answers = server.answer(["good", "bad", "odd"], 0)
        assert answers[0] == "fine"
        assert "context length" in str(answers[1]) and "unknown structure" in str(answers[2])
        assert answers[1].__context__.fp.isclosed(), "an answer that is kept would keep its connection"
        with pytest.raises(ServerError, match="No answer from"):
            server.answer(["bad", "bad"], 0)


def test_a_server_that_hangs_or_is_not_there() -> None:
    def hang(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        time.sleep(0.6)
        return chat_answer("late")

    with openai_server(Script(hang)) as url:
        server = ServerRephraser(url, timeout=0.1, retries=1, wait=0.01)
        with pytest.raises(ServerError, match="failed 2 times"):
            server.answer(["x"], 0)
    with pytest.raises(ServerError, match="failed 1 times"):
        ServerRephraser(url, retries=0)
    with pytest.raises(ValueError, match="no server address"):
        ServerRephraser("file:///etc/passwd")


def test_the_key_goes_to_the_named_server_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    other = Script(lambda number, body: chat_answer("stolen"))
    with openai_server(other) as elsewhere:
        moved = Script(lambda number, body: (307, {"Location": f"{elsewhere}/chat/completions"}, ""))
        with openai_server(moved) as url:
            server = ServerRephraser(url, retries=0)
            with pytest.raises(ServerError, match="307"):
                server.answer(["x"], 0)
    assert moved.requests[0][2]["Authorization"] == "Bearer secret" and not other.requests
    assert "secret" not in json.dumps(server.provenance())


def test_gguf_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no such file, is damaged, or cannot be read here says what to do."""
    file = tmp_path / "model.gguf"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        LocalRephraser.load(str(file))
    file.write_bytes(b"PK\x03\x04" * 9)
    with pytest.raises(ValueError, match="is no GGUF file"):
        LocalRephraser.load(str(file))
    file.write_bytes(b"GGUF" + bytes(range(60)))
    with pytest.raises(ValueError, match="llama-server -m .*--llm http"):
        LocalRephraser.load(str(file))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install gguf"):
        LocalRephraser.load(str(file))


class OnlyMen:
    """In the place of a sentence encoder."""

    provenance = {"sentence_encoder": "toy", "least": 0.7}

    def objection(self, caption: str, rephrase: str) -> str:
        return "" if "man" in rephrase else "says something else: similarity 0.10"


def test_a_second_fence_stands_behind_the_guards(images: SourceSet, tmp_path: Path) -> None:
    texts = {images.sources[0].key: "a person in a red shirt"}
    answers = ["Someone in a red shirt.", "A human in a red shirt."]
    outcome = run(Scripted(answers), images, texts, tmp_path, fence=OnlyMen(), retries=1)
    assert outcome.refused == {"says something else": 1} and outcome.empty == 0
    assert any(b"sentence_encoder" in file.read_bytes() for file in (tmp_path / "rows").rglob("*") if file.is_file())


def test_a_refused_rephrase_is_asked_for_with_what_was_missing(images: SourceSet, tmp_path: Path) -> None:
    heard: list[str] = []

    class Listening(Scripted):
        def answer(self, messages: Sequence[str], seed: int) -> list[str | Exception]:
            heard.extend(messages)
            return super().answer(messages, seed)

    good = "Someone in a red shirt and blue pants"
    text = {images.sources[0].key: caption("red", "blue")}
    outcome = run(Listening(["Someone in a red shirt", good]), images, text, tmp_path)
    assert outcome.refused == {"leaves out": 1} and outcome.empty == 0
    assert heard == [instruct(caption("red", "blue")), instruct(caption("red", "blue"), hint="Mention blue trousers.")]
