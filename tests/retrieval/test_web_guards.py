"""The guards around a small application, on a real server."""

import contextlib
import http.client
import socket
import time

import pytest
from hostile_requests import request as raw
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from web_server import ask, running

from tvilfm_plugin.retrieval import web_connections
from tvilfm_plugin.retrieval.web_guards import HEADERS, Guard, on_failure, on_http, on_refused, read_body
from tvilfm_plugin.retrieval.web_query import Refused

ORIGIN = "Searches are accepted from this page only."
HOST = "This page is not served under that host name."


async def size(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await read_body(request, most=1000, seconds=0.5))))


async def fail(request: Request) -> PlainTextResponse:
    raise FileNotFoundError(2, "No such file", "/a/secret/place")


@pytest.fixture(scope="module")
def port():
    routes = [Route("/", size, methods=["POST", "GET"]), Route("/fail", fail)]
    handlers = {Refused: on_refused, HTTPException: on_http, Exception: on_failure}
    with running(Guard(Starlette(routes=routes, exception_handlers=handlers), ("127.0.0.1", "a.Name", "::1"))) as port:
        yield port


def test_every_answer_has_the_headers(port):
    for reply in (ask(port, "/"), ask(port, "/none"), ask(port, "/fail"), ask(port, "/", host="x"), ask(port, "/", b"")):
        assert HEADERS.items() <= reply.headers.items()
        assert "server" not in reply.headers


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:80", "A.name:1", "[::1]", "[::1]:7860"])
def test_known_hosts(port, host):
    assert ask(port, "/", host=host).status == 200


OTHERS = "evil.example 127.0.0.1.evil.example [::1 [] a.name. localhost 127.0.0.1:80:evil a.name:x [::1]evil.example [::1]:x"


@pytest.mark.parametrize("host", ["", *OTHERS.split()])
def test_other_hosts_are_refused(port, host):
    reply = ask(port, "/", host=host)
    assert (reply.status, reply.json) == (403, {"error": HOST})


def test_a_search_comes_from_the_page(port):
    own = f"http://127.0.0.1:{port}"
    assert ask(port, "/", b"{}", origin=own, sec_fetch_site="same-origin").body == b"2"
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": f"{own}0"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ):
        reply = ask(port, "/", b"{}", **headers)
        assert (reply.status, reply.json) == (403, {"error": ORIGIN})
    # Following a link to the page is no search.
    assert ask(port, "/", sec_fetch_site="cross-site").status == 200


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "", "application/jsonp"])
def test_other_types_are_refused(port, kind):
    reply = ask(port, "/", b"{}", content_type=kind)
    assert (reply.status, reply.json) == (415, {"error": "A search is sent as application/json."})
    assert ask(port, "/", b"{}", content_type="Application/JSON; charset=utf-8").status == 200


def test_a_body_has_a_limit(port):
    assert ask(port, "/", bytes(1000)).body == b"1000"
    reply = ask(port, "/", bytes(1001))
    assert (reply.status, reply.json) == (413, {"error": "The request is too large; at most 0 KiB."})
    reply = ask(port, "/", b"{}", content_length="9" * 4000)
    assert reply.status in (400, 413)


def exchange(port: int, wire: bytes, end: bool = False) -> bytes:
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(wire)
        if end:
            connection.shutdown(socket.SHUT_WR)
        while chunk := connection.recv(65536):
            received += chunk
    return received


def test_a_body_without_a_length_has_the_same_limit(port):
    head = raw("/", b"", "POST", port=port, content_length="-", transfer_encoding="chunked")
    assert b" 413 " in exchange(port, head + b"400\r\n" + bytes(0x400) + b"\r\n").splitlines()[0]
    answer = exchange(port, head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert answer.endswith(b"5")


def test_a_slow_body_is_given_up(port):
    answer = exchange(port, raw("/", b"{", "POST", port=port, content_length="2"))
    assert b" 408 " in answer.splitlines()[0] and answer.endswith(b'{"error":"The request took more than 0.5 s to arrive."}')


def test_places_and_methods_that_are_not_there(port):
    for path in ("/none", "/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd"):
        reply = ask(port, path)
        assert (reply.status, reply.json) == (404, {"error": "There is nothing here."})
    reply = ask(port, "/", method="DELETE")
    assert (reply.status, reply.json) == (405, {"error": "That method is not allowed here."})


def test_a_failure_is_not_explained_to_the_client(port):
    reply = ask(port, "/fail")
    assert (reply.status, reply.json) == (500, {"error": "The search failed; the reason is in the log of the server."})


def half_sent(port):
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(b"GET /about HTTP/1.1\r\nhost: ")
    return connection


def given_up(connection):
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_half_sent_headers_hold_nobody_up(port, monkeypatch):
    """Of one address, the oldest make room for the newest; all of them have to be complete soon."""
    monkeypatch.setattr(web_connections, "HEADER_SECONDS", 0.5)
    connections = [half_sent(port) for _ in range(140)]
    assert ask(port, "/").status == 200
    for connection in connections:
        connection.settimeout(5)
        assert given_up(connection)
        connection.close()


def test_a_header_byte_by_byte_gets_no_more_time(port, monkeypatch):
    monkeypatch.setattr(web_connections, "HEADER_SECONDS", 0.5)
    start = time.monotonic()
    with half_sent(port) as connection, contextlib.suppress(OSError):
        while time.monotonic() - start < 10:
            connection.sendall(b"x")
            time.sleep(0.05)
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                if connection.recv(1) == b"":
                    break
            connection.setblocking(True)
    assert 0.3 < time.monotonic() - start < 5


def test_one_address_has_a_limit_of_connections(port, monkeypatch):
    monkeypatch.setattr(web_connections, "PER_ADDRESS", 0)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        assert given_up(connection)
    monkeypatch.undo()
    assert ask(port, "/").status == 200


def test_requests_after_each_other_on_one_connection(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for _ in range(3):
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read()
    connection.close()
    time.sleep(0.2)
    assert not web_connections._waiting and not web_connections._open
