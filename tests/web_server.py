"""The web page on a real server in a thread of this process, and requests to it."""

import base64
import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from tvilfm_plugin.retrieval.web import listen, server


class Reply(NamedTuple):
    """An answer: `headers` by lower-case name."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@contextlib.contextmanager
def running(app: Any) -> Iterator[int]:
    """Serve `app` on a free port of 127.0.0.1; yields the port."""
    listening, served = listen("127.0.0.1", 0), server(app)
    thread = threading.Thread(target=served.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not served.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield listening.getsockname()[1]
    finally:
        served.should_exit = True
        thread.join()
        listening.close()


def ask(port: int, path: str, body: bytes | None = None, method: str = "", **headers: str) -> Reply:
    """One request, sent as the page would; `host="..."` and others replace its headers."""
    sent = {} if body is None else {"content-type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, sent)
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def search(port: int, image: bytes | None = None, **fields: Any) -> Reply:
    """A search as the page sends it."""
    encoded = None if image is None else base64.b64encode(image).decode()
    return ask(port, "/search", json.dumps({"image": encoded, **fields}).encode())
