"""Little things to caption: two-coloured people in SYSU-MM01's layout, a toy captioner, and toy language models."""

import json
import multiprocessing
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tvilfm_plugin.captioning.captioner import Captioner, Decoding, Description
from tvilfm_plugin.captioning.weights import Weights
from tvilfm_plugin.modality import Modality

SHADES = {"red": (200, 30, 30), "blue": (30, 60, 200), "green": (30, 150, 60), "white": (235, 235, 235)}


def write_two_coloured(root: Path, people: int = 12, per_camera: int = 2, test_people: int = 4) -> dict[str, str]:
    """A SYSU-MM01 tree of people with an upper and a lower colour.

    Returns:
        the true caption of every visible image, by relative path.
    """
    base = root / "SYSU-MM01"
    names = list(SHADES)
    ids = list(range(1, people + 1))
    (base / "exp").mkdir(parents=True)
    for name, chosen in (("train", ids[:-test_people]), ("val", []), ("test", ids[-test_people:])):
        (base / "exp" / f"{name}_id.txt").write_text(",".join(map(str, chosen or ids[:1])) + "\n")
    truth = {}
    for pid in ids:
        # Sixteen people have all pairs of colours; the others repeat them.
        upper, lower = names[pid % 4], names[(pid // 4) % 4]
        for camera in range(1, 7):
            for number in range(1, per_camera + 1):
                key = f"cam{camera}/{pid:04d}/{number:04d}.jpg"
                rng = np.random.RandomState(1000 * pid + 10 * camera + number)
                image = np.empty((48, 24, 3), np.float32)
                image[:24], image[24:] = SHADES[upper], SHADES[lower]
                if camera in (3, 6):
                    image[:] = image.mean(axis=2, keepdims=True)
                else:
                    truth[key] = f"a person in a {upper} shirt and {lower} trousers"
                image += rng.standard_normal(image.shape) * 8
                (base / key).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(base / key, quality=95)
    return truth


class ToyCaptioner(Captioner):
    """Describes an image by its mean value; remembers its batches; can run out of memory.

    Args:
        most: images that fit in its memory at once.
        before: called with the number of images, before they are described.
    """

    def __init__(
        self, modality: Modality = Modality.RGB, most: int = 10**9, before: Callable[[int], None] | None = None
    ) -> None:
        self.modality, self.decoding, self.prompt = modality, Decoding(), ""
        self.weights = Weights("toy", "toy", "1", {})
        self.most, self.before = most, before
        self.batches: list[int] = []

    @classmethod
    def read(cls, weights: Weights, dtype: Any) -> tuple[Any, Any]:
        raise NotImplementedError

    def provenance(self) -> dict[str, Any]:
        return {"captioner": "toy", "seed": self.decoding.seed}

    def prepare(self, image: Image.Image) -> float:
        return float(np.asarray(image).mean())

    def describe(self, prepared: Sequence[float], seed: int) -> list[Description]:
        self.batches.append(len(prepared))
        if len(prepared) > self.most:
            raise RuntimeError("CUDA out of memory (in play)")
        if self.before:
            self.before(len(prepared))
        return [Description(f"a person of brightness {value:.3f}") for value in prepared]


class Script:
    """What the toy server does with requests: `plan` is called with the request's number and body.

    It returns (status, headers, content); content that is no string is sent as JSON.
    """

    def __init__(self, plan: Callable[[int, dict[str, Any]], tuple[int, dict[str, str], Any]]) -> None:
        self.plan = plan
        self.requests: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()


@contextmanager
def openai_server(script: Script) -> Iterator[str]:
    """A server on this machine that speaks OpenAI's protocol; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            return

        def do_GET(self) -> None:
            self._send(200, {}, {"object": "list", "data": [{"id": "toy-model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with script.lock:
                number = len(script.requests)
                script.requests.append((self.path, body, dict(self.headers)))
                script.under_way += 1
                script.most_under_way = max(script.most_under_way, script.under_way)
            try:
                status, headers, content = script.plan(number, body)
            finally:
                with script.lock:
                    script.under_way -= 1
            self._send(status, headers, content)

        def _send(self, status: int, headers: dict[str, str], content: Any) -> None:
            data = (content if isinstance(content, str) else json.dumps(content)).encode()
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                return  # a client that lost its patience

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def chat_answer(text: str) -> tuple[int, dict[str, str], Any]:
    """A successful answer of a chat completion."""
    return 200, {}, {"choices": [{"message": {"role": "assistant", "content": text}}]}


def build_tiny_llm(folder: Path, pairs: Sequence[tuple[str, str]], *, chat: bool, steps: int = 120) -> Path:
    """A Llama of a few ten thousand parameters that learned to answer some messages, saved to a folder.

    Args:
        pairs: message and answer.
        chat: whether its tokenizer has a chat template (without one: Vicuna's prompt text).
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from tvilfm_plugin.captioning.rephrase import vicuna_prompt

    template = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}<|assistant|>"
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    specials = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    core.train_from_iterator([text for pair in pairs for text in pair] + [vicuna_prompt("a person")], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    if chat:
        tokenizer.chat_template = template
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
        prompts = [f"<|user|>{q}</s><|assistant|>" if chat else vicuna_prompt(q) for q, _ in pairs]
        asked = [tokenizer(prompt, add_special_tokens=False).input_ids for prompt in prompts]
        told = [tokenizer(answer + "</s>", add_special_tokens=False).input_ids for _, answer in pairs]
        length = max(len(a) + len(t) for a, t in zip(asked, told, strict=True))
        ids = torch.zeros(len(pairs), length, dtype=torch.long)
        labels = torch.full((len(pairs), length), -100)
        for n, (a, t) in enumerate(zip(asked, told, strict=True)):
            # Filled up on the left, as in generation.
            ids[n, length - len(a) - len(t) :] = torch.tensor(a + t)
            labels[n, length - len(t) :] = torch.tensor(t)
        optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
        for _ in range(steps):
            loss = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def kill_again_and_again(work: Callable[[Any], None], rows: Path, count: int, kills: int) -> None:
    """Run `work` in processes that are killed a moment after it has begun, which it tells by the event that it gets.

    Args:
        rows: the file that it writes its `count` rows into; the first kill leaves some of them, and some undone.
    """
    fork, rng = multiprocessing.get_context("fork"), random.Random(5)
    for kill in range(kills):
        begun = fork.Event()
        child = fork.Process(target=work, args=(begun,))
        child.start()
        begun.wait(20)
        while kill == 0 and child.is_alive() and not (rows.is_file() and rows.read_bytes().count(b"\n")):
            time.sleep(0.0005)  # one kill at least has a row to lose, however slow the disk
        time.sleep(rng.uniform(0.0, 0.006))
        child.kill()
        child.join()
        if kill == 0:
            cut_short = 0 < len(rows.read_bytes().splitlines()) < count
            assert cut_short and child.exitcode == -signal.SIGKILL, "the kills should hit a run that is at work"
