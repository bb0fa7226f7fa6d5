"""A client of servers that speak OpenAI's protocol (vLLM, llama.cpp, ...): several requests at a time, patient retries."""

import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import IO, Any
from urllib.parse import urlsplit

from tvilfm_plugin.captioning.base import Decoding
from tvilfm_plugin.captioning.rephrase import DEFAULT_DECODING, Rephraser, vicuna_prompt

_WORTH_A_RETRY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_LONGEST_WAIT = 60.0
_LONGEST_ANSWER = 1 << 22


class ServerError(RuntimeError):
    """A request that failed for good."""


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
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
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
        self.model = model or self._first_model()

    def _first_model(self) -> str:
        listed = self._request("/models", None).get("data")
        if not listed:
            raise ServerError(f"{self.url}/models lists no model; name one with --llm-model.")
        return str(listed[0]["id"])

    def answer(self, messages: Sequence[str], seed: int) -> list[str | Exception]:
        with ThreadPoolExecutor(self.concurrency) as pool:
            answers = list(pool.map(self._answer_or_error, messages, range(seed, seed + len(messages))))
        if answers and all(isinstance(answer, ServerError) for answer in answers):
            # Nothing gets through: going on would only mark every caption as failed.
            raise ServerError(f"No answer from {self.url} for {len(answers)} requests: {answers[0]}")
        return answers

    def _answer_or_error(self, message: str, seed: int) -> str | Exception:
        chosen = self.decoding
        body: dict[str, Any] = {
            "model": self.model, "max_tokens": chosen.max_new_tokens, "temperature": chosen.temperature,
            "top_p": chosen.top_p, "seed": seed % 2**31,
        }  # fmt: skip
        try:
            if self.template == "vicuna":
                content = self._request("/completions", {**body, "prompt": vicuna_prompt(message)})
                return str(content["choices"][0]["text"])
            content = self._request("/chat/completions", {**body, "messages": [{"role": "user", "content": message}]})
            return str(content["choices"][0]["message"]["content"] or "")
        except ServerError as error:
            return error
        except (KeyError, IndexError, TypeError):
            return ServerError(f"{self.url} answered with an unknown structure: {str(content)[:200]}")

    def _request(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body).encode("utf-8")
        reason = ""
        for attempt in range(1 + self.retries):
            request = urllib.request.Request(self.url + path, data=data, headers=headers)
            pause = 0.0
            try:
                with self._opener.open(request, timeout=self.timeout) as response:
                    content = json.loads(response.read(_LONGEST_ANSWER))
                if isinstance(content, dict):
                    return content
                raise ServerError(f"{self.url}{path} answered with a {type(content).__name__}.")
            except urllib.error.HTTPError as error:
                told = error.read(500).decode("utf-8", "replace")
                reason = f"{error.code} {error.reason}: {told}".strip()
                if error.code not in _WORTH_A_RETRY:
                    raise ServerError(f"{self.url}{path}: {reason}") from None
                pause = _seconds(error.headers.get("Retry-After"))
            except (OSError, json.JSONDecodeError) as error:  # OSError: refused, reset, timed out, not resolved
                reason = str(error) or type(error).__name__
            if attempt < self.retries:
                with self._lock:
                    chance = self._random.uniform(0.5, 1.0)
                time.sleep(max(pause, min(_LONGEST_WAIT, self.wait * 2**attempt) * chance))
        raise ServerError(f"{self.url}{path} failed {1 + self.retries} times; the last time: {reason}")

    def provenance(self) -> dict[str, Any]:
        made = {"model": self.model, "revision": self.url, "template": self.template}
        return {"rephraser": type(self).__name__, **made, **asdict(self.decoding)}


def _seconds(retry_after: str | None) -> float:
    """The server's wish in seconds; dates and nonsense count as none."""
    try:
        return min(_LONGEST_WAIT, max(0.0, float(retry_after or 0)))
    except ValueError:
        return 0.0
