"""What every request and every answer of the web page passes: who may ask, how much, and what a browser may do with it."""

import asyncio
import re
from collections.abc import Collection, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tvilfm_plugin.retrieval.web_query import BODY_BYTES, Refused

LOOPBACK = ("127.0.0.1", "localhost", "::1")
UPLOAD_SECONDS = 30.0
HEADERS = {
    # Own script and style only; pictures from here or made in the page. Nothing can be embedded, sent or loaded elsewhere.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    # Nothing of a search stays in a cache on a disk.
    "cache-control": "no-store",
}
_HOST = re.compile(r"(?:\[(?P<bracketed>[0-9A-Fa-f:.]+)\]|(?P<bare>[^:\[\]]+))(?::[0-9]{0,5})?", re.ASCII)
_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


class Guard:
    """ASGI middleware: only requests under a known host name, searches only from this page, safe headers on every answer.

    A web site could let its own name point to 127.0.0.1 and read the gallery through a visitor's browser (DNS rebinding);
    the check of the Host header stops it. Another page could post searches blindly; the checks of origin and type stop it.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] = LOOPBACK) -> None:
        """
        Args:
            hosts: names and addresses, without port, under which the page may be asked for.
        """
        self.app, self.hosts = app, frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        refused = self._refusal(Request(scope))
        if refused is not None:
            await answer_refused(refused)(scope, receive, send_with_headers)
        else:
            await self.app(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Refused | None:
        headers = request.headers
        if _name(headers.get("host", "")) not in self.hosts:
            return Refused(403, "This page is not served under that host name.")
        if request.method in ("GET", "HEAD"):
            return None
        origin = headers.get("origin")
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") or (
            origin is not None and origin.partition("://")[2] != headers["host"]
        ):
            return Refused(403, "Searches are accepted from this page only.")
        if request.method == "POST" and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return Refused(415, "A search is sent as application/json.")
        return None


def guarded(routes: Sequence[Route], hosts: Collection[str]) -> Guard:
    """An application whose every answer is guarded, also that to a failure."""
    handlers = {Refused: on_refused, HTTPException: on_http, Exception: on_failure}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), hosts)


async def read_body(request: Request, most: int = BODY_BYTES, seconds: float = UPLOAD_SECONDS) -> bytes:
    """The body of a request, held in memory only, given up as soon as it is too long or too slow."""
    too_long = Refused(413, f"The request is too large; at most {most >> 10} KiB.")
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or int(length[:20]) > most:
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise too_long
    except ClientDisconnect:
        raise Refused(400, "The request ended early.") from None
    except TimeoutError:
        raise Refused(408, f"The request took more than {seconds:g} s to arrive.") from None
    return bytes(body)


def answer_refused(refused: Refused) -> Response:
    """The answer to a refused request. The rest of its body is not read, so the connection ends."""
    return JSONResponse({"error": refused.reason}, refused.status, {"connection": "close"})


async def on_refused(request: Request, error: Exception) -> Response:
    """For `Refused` anywhere in a handler."""
    assert isinstance(error, Refused)
    return answer_refused(error)


async def on_http(request: Request, error: Exception) -> Response:
    """For what the router refuses: no such place, or a wrong method."""
    assert isinstance(error, HTTPException)
    reasons = {404: "There is nothing here.", 405: "That method is not allowed here."}
    return JSONResponse({"error": reasons.get(error.status_code, "Refused.")}, error.status_code, error.headers)


async def on_failure(request: Request, error: Exception) -> Response:
    """For everything else: the cause may name files, so it goes to the log (uvicorn writes it), not to the client."""
    return JSONResponse({"error": "The search failed; the reason is in the log of the server."}, 500)


def _name(host: str) -> str:
    """Host name of a Host header, without port and brackets; "" for what is no name with at most a port behind it."""
    found = _HOST.fullmatch(host)
    return (found["bare"] or found["bracketed"]).lower() if found else ""
