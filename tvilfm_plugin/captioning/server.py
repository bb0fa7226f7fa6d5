"""A client of servers that speak OpenAI's protocol (vLLM, llama.cpp, ...): several requests at a time, patient retries."""

import http.client
import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import IO, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from tvilfm_plugin.captioning.base import Decoding
from tvilfm_plugin.captioning.rephrase import DEFAULT_DECODING, Rephraser, vicuna_prompt
from tvilfm_plugin.files.json import checked, expect_object, parse_json

_WORTH_A_RETRY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_LONGEST_WAIT = 60.0
_LONGEST_ANSWER = 1 << 22


class ServerError(RuntimeError):
    """A request that failed for good."""


class _Part(BaseModel):
    type: Literal["text"]
    text: str


class _Message(BaseModel):
    content: str | list[_Part]


class _Said(BaseModel):
    message: _Message


class _Written(BaseModel):
    text: str


class _Chat(BaseModel):
    """Of `/chat/completions`."""

    choices: list[_Said] = Field(min_length=1)


class _Completion(BaseModel):
    """Of `/completions`."""

    choices: list[_Written] = Field(min_length=1)


class _Model(BaseModel):
    id: str = Field(min_length=1)


class _Models(BaseModel):
    """Of `/models`."""

    data: list[_Model] = Field(min_length=1)


_Schema = TypeVar("_Schema", bound=BaseModel)


def _text_of(answer: _Chat | _Completion) -> str:
    first = answer.choices[0]
    content = first.text if isinstance(first, _Written) else first.message.content
    text = content if isinstance(content, str) else "".join(part.text for part in content)
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("the text holds half a character (a lone surrogate)")
    return text


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Following a redirect would send the key to a server that the user did not name."""

    def redirect_request(self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


class ServerRephraser(Rephraser):
    """Asks a server's `/chat/completions`, or `/completions` with Vicuna's prompt text.

    Args:
        url: up to and including the version, e.g. "http://localhost:8000/v1".
        model: its name there; "" = the first that the server lists.
        template: "chat" or "vicuna".
        concurrency: requests under way at a time.
        timeout: seconds to wait for one answer.
        retries: attempts after the first one, for time-outs, refused connections, 429 and 5xx.
        wait: seconds before the first retry; doubled each time, with some chance so that clients do not come in step.
        key_variable: environment variable with the key; a server without keys needs none.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str = "",
        decoding: Decoding = DEFAULT_DECODING,
        template: str = "chat",
        concurrency: int = 8,
        timeout: float = 120.0,
        retries: int = 6,
        wait: float = 1.0,
        key_variable: str = "OPENAI_API_KEY",
    ) -> None:
        if not _is_address(url):
            raise ValueError(f"{url!r} is no server address; expected e.g. http://localhost:8000/v1.")
        if template not in ("chat", "vicuna"):
            raise ValueError(f"Unknown prompt template {template!r} for a server; choices are chat, vicuna.")
        if concurrency < 1:
            raise ValueError(f"{concurrency} requests at a time: give at least 1.")
        self.url, self.decoding, self.template = url.rstrip("/"), decoding, template
        self.concurrency, self.timeout, self.retries, self.wait = concurrency, timeout, retries, wait
        self._key = os.environ.get(key_variable, "")
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._random, self._lock = random.Random(), threading.Lock()
        self._answered = False  # whether this server ever did
        self.model = model or self._first_model()

    def _first_model(self) -> str:
        try:
            return self._request("/models", None, _Models).data[0].id
        except ServerError as error:
            raise ServerError(f"{self.url} does not tell its models; name one with --llm-model. ({error})") from None

    def answer(self, messages: Sequence[str], seed: int) -> list[str | Exception]:
        with ThreadPoolExecutor(self.concurrency) as pool:
            answers = list(pool.map(self._answer_or_error, messages, range(seed, seed + len(messages))))
        failed = sum(isinstance(answer, ServerError) for answer in answers)
        if failed == len(answers) and (failed > 1 or not self._answered):
            # Nothing gets through: going on would only mark every caption as failed.
            raise ServerError(f"No answer from {self.url} for {len(answers)} requests: {answers[0]}")
        self._answered = self._answered or failed < len(answers)
        return answers

    def _answer_or_error(self, message: str, seed: int) -> str | Exception:
        chosen = self.decoding
        body: dict[str, Any] = {
            "model": self.model, "max_tokens": chosen.max_new_tokens, "temperature": chosen.temperature,
            "top_p": chosen.top_p, "seed": seed % 2**31,
        }  # fmt: skip
        try:
            if self.template == "vicuna":
                return _text_of(self._request("/completions", {**body, "prompt": vicuna_prompt(message)}, _Completion))
            turns = [{"role": "user", "content": message}]
            return _text_of(self._request("/chat/completions", {**body, "messages": turns}, _Chat))
        except ServerError as error:
            return error
        except ValueError as error:
            return ServerError(f"{self.url}: {error}")

    def _request(self, path: str, body: Mapping[str, Any] | None, schema: type[_Schema]) -> _Schema:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body).encode("utf-8")
        reason = ""
        for attempt in range(1 + self.retries):
            request = urllib.request.Request(self.url + path, data=data, headers=headers)
            pause = 0.0
            try:
                with self._opener.open(request, timeout=self.timeout) as response:
                    source = f"the answer of {self.url}{path}"
                    content = expect_object(parse_json(self._body(response), source), source)
                try:
                    return checked(content, schema, source)
                except ValueError as error:
                    raise ServerError(f"{self.url} answered with an unknown structure: {error}") from None
            except urllib.error.HTTPError as error:
                reason = f"{error.code} {error.reason}: {_told(error)}".strip()
                if error.code not in _WORTH_A_RETRY:
                    raise ServerError(f"{self.url}{path}: {reason}") from None
                pause = _seconds(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException, ValueError) as error:
                # Refused, reset, timed out, not resolved; no HTTP, cut short; no JSON, or another structure.
                reason = str(error) or type(error).__name__
            if attempt < self.retries:
                with self._lock:
                    chance = self._random.uniform(0.5, 1.0)
                time.sleep(max(pause, min(_LONGEST_WAIT, self.wait * 2**attempt) * chance))
        raise ServerError(f"{self.url}{path} failed {1 + self.retries} times; the last time: {reason}")

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        """All of it, within the time and the size that an answer may take; gzip is undone, as some servers do not ask."""
        end = time.monotonic() + self.timeout
        zipped = response.headers.get("Content-Encoding", "").lower() in ("gzip", "x-gzip", "deflate")
        inflate = zlib.decompressobj(wbits=47) if zipped else None
        read, body = 0, bytearray()
        while True:
            block = response.read1(1 << 16)
            read += len(block)
            try:
                body += inflate.decompress(block, _LONGEST_ANSWER) if inflate else block
            except zlib.error as error:
                raise ValueError(f"the answer is compressed and damaged ({error})") from None
            if len(body) >= _LONGEST_ANSWER:
                raise ValueError(f"the answer has more than {_LONGEST_ANSWER >> 20} MB")
            if not block:
                break
            if time.monotonic() > end:
                raise TimeoutError(f"the answer was not complete after {self.timeout:g} s")
        told = response.headers.get("Content-Length", "")
        if (told.isdigit() and read < int(told)) or (inflate and not inflate.eof):
            raise ValueError(f"the answer was cut off after {read} bytes")
        return bytes(body)

    def provenance(self) -> dict[str, Any]:
        made = {"model": self.model, "revision": self.url, "template": self.template}
        return {"rephraser": type(self).__name__, **made, **asdict(self.decoding)}


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # out of range, it raises
    except ValueError:
        return False
    plain = not any(char.isspace() or not char.isprintable() for char in url)
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname)


def _told(error: urllib.error.HTTPError) -> str:
    """The beginning of what a server says to a refusal, whose connection is then closed."""
    try:
        with error:
            return error.read(500).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return ""


def _seconds(retry_after: str | None) -> float:
    """The server's wish in seconds; dates and nonsense count as none."""
    try:
        wished = float(retry_after or 0)
        return min(_LONGEST_WAIT, wished) if wished > 0 else 0.0  # NaN is not greater than anything
    except ValueError:
        return 0.0
