"""The web page: an infrared picture and a witness's words in, the ranked gallery and the share of each member out.

Starlette and one static page instead of gradio: gradio writes every upload to disk and serves files by path; here a picture
arrives in the body of its search, is decoded from memory and forgotten with the answer, and no request names a file.
"""

import asyncio
import hashlib
import io
import logging
import os
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import uvicorn
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tvilfm_plugin.data.tokenizer import forget_words
from tvilfm_plugin.files.pictures import Window, open_picture
from tvilfm_plugin.retrieval import web_query
from tvilfm_plugin.retrieval.hits import Hit, choose_members
from tvilfm_plugin.retrieval.web_connections import TimedProtocol
from tvilfm_plugin.retrieval.web_guards import LOOPBACK, Guard, guarded, read_body
from tvilfm_plugin.retrieval.web_query import Query, Refused, read_search

if TYPE_CHECKING:  # it needs the host, which the page does not
    from tvilfm_plugin.retrieval.retriever import Retriever

logger = logging.getLogger("fastreid." + __name__)

Answer = TypeVar("Answer")

PICTURE_HEIGHT = 420  # of a gallery picture, in pixels: twice what it takes in the page
CHOICES = 8  # that a question to the witness offers
SEARCHES = 8  # that may be under way or wait; each holds a whole upload
CONNECTIONS = 128
DECODERS = 2  # pictures, or uploads, that are decoded at a time: a picture within the limits takes 48 MB
STATIC = {"page.css": "text/css", "page.js": "text/javascript", "page.svg": "image/svg+xml"}


class Example(NamedTuple):
    """A query that the page offers: its picture, words ("" if none), and whom it shows, so that right hits can be marked."""

    path: str
    text: str
    infrared_text: str
    person: int | None


class Page:
    """What the page's requests are answered with; `busy` where no place is free. Nothing outlives its answer."""

    busy = "Too many searches at once; try again in a moment."

    def __init__(
        self, retriever: "Retriever", examples: Sequence[Example] = (), title: str = "", places: int = SEARCHES
    ) -> None:
        if retriever.index is None:
            raise ValueError("The retriever has no gallery yet: call embed_gallery or load_gallery first.")
        self.retriever, self.examples, self.title = retriever, tuple(examples), title
        self.size = len(retriever.index)
        self._offered = {str(number): one.path for number, one in enumerate(self.examples)}
        # A picture gets its name when a search finds it, so a client can neither guess nor list what the gallery holds, and
        # a name from before a restart means nothing.
        self._key = secrets.token_bytes(32)
        self._pictures: dict[str, str] = {}
        self._places = threading.BoundedSemaphore(places)
        # One thread computes, DECODERS decode: memory and load have a bound. glibc keeps what a thread's largest work took,
        # so that the work of 40 threads (starlette's) would hold it up to 40 times.
        self._network, self._decoders = ThreadPoolExecutor(1, "network"), ThreadPoolExecutor(DECODERS, "decoder")

    async def about(self, request: Request) -> Response:
        """What can be searched, what votes, what is offered, and the limits."""
        offered = [{"text": one.text, "infrared_text": one.infrared_text, "person": one.person} for one in self.examples]
        return JSONResponse({**self.described(), "examples": offered})

    def described(self) -> dict[str, Any]:
        """What can be searched, what votes, and the limits, as plain values."""
        limits = {
            "image_bytes": web_query.IMAGE_BYTES,
            "image_pixels": web_query.IMAGE_PIXELS,
            "formats": web_query.IMAGE_FORMATS,
            "text_characters": web_query.TEXT_CHARACTERS,
        }
        return {
            "title": self.title,
            "gallery": self.size,
            "members": [member.value for member in self.retriever.members],
            "limits": limits,
            "pictures": web_query.PICTURES,
        }

    async def search(self, request: Request) -> Response:
        """The hits of a posted query."""
        return await self._in_a_place(request, lambda body: run(self._network, self._search, body))

    async def _in_a_place(self, request: Request, answer: Callable[[bytes], Awaitable[Any]]) -> Response:
        if not self._places.acquire(blocking=False):
            raise Refused(503, self.busy)
        try:
            return JSONResponse(await answer(await read_body(request)))
        finally:
            self._places.release()

    def _search(self, body: bytes) -> dict[str, Any]:
        members = self.retriever.members
        query, pictures, threshold, answers = read_search(body, members, self.retriever.ir_window)
        self.check_members(query, bool(pictures))
        try:
            person = (list(pictures) or None, query.text or None, query.infrared_text or None)
            queries, note = self.retriever.embed_query(*person, query.members)
            found = self.retriever.find(queries, note, query.top, threshold=threshold)
            hits, question = found.hits, None
            if answers is not None and hits and self.retriever.has_text:
                dialogue = self.retriever.ask_about(queries)
                for slot, words in answers.items():
                    dialogue.answer(slot, words)
                hits = [hit for hit in dialogue.hits if threshold is None or hit.similarity >= threshold][: query.top]
                question = dialogue.question()
        finally:
            forget_words()
        answer: dict[str, Any] = {"hits": [self.hit(hit) for hit in hits], "note": found.note}
        asked = question and {"slot": question.slot, "text": question.text, "choices": question.choices[:CHOICES]}
        return answer | {"question": asked}

    def check_members(self, query: Query, image: bool) -> None:
        """Refuse a query whose members cannot vote with what it has."""
        given = {"image": image, "text": bool(query.text), "infrared_text": bool(query.infrared_text)}
        try:
            choose_members(self.retriever.members, **given, members=query.members)
        except ValueError as error:
            # Its words are about members, which were checked: nothing of a client or of this machine is in them.
            raise Refused(422, str(error)) from None

    def hit(self, hit: Hit) -> dict[str, Any]:
        """A hit as plain values; its picture is served from now on."""
        name = hashlib.blake2b(os.fsencode(hit.path), key=self._key, digest_size=16).hexdigest()
        self._pictures[name] = hit.path
        return {
            "picture": name,
            "person": hit.pid,
            "camera": hit.camid,
            "time": hit.time,
            "similarity": hit.similarity,
            "shares": {member.value: share for member, share in hit.shares.items()},
        }

    async def gallery(self, request: Request) -> Response:
        """A gallery picture that a search has found: decoded and encoded again, so nothing but pixels leaves."""
        path = self._pictures.get(request.path_params["picture"])
        if path is None:
            raise HTTPException(404)
        return await run(self._decoders, _picture, path, "JPEG", PICTURE_HEIGHT)

    async def example(self, request: Request) -> Response:
        """The infrared picture of an example, without loss: it comes back as a query."""
        # Compared as text: a number of five thousand digits is too much for int().
        path = self._offered.get(request.path_params["number"])
        if path is None:
            raise HTTPException(404)
        return await run(self._decoders, _picture, path, "PNG", None, self.retriever.ir_window)


async def run(threads: ThreadPoolExecutor, work: Callable[..., Answer], *args: Any) -> Answer:
    """What the work gives, once one of these threads is free for it."""
    return await asyncio.get_running_loop().run_in_executor(threads, work, *args)


def make_app(
    retriever: "Retriever", examples: Sequence[Example] = (), title: str = "", hosts: Collection[str] = LOOPBACK
) -> Guard:
    """The page of a retriever with a gallery as an ASGI application that may be asked for under the names `hosts`."""
    page = Page(retriever, examples, title)
    routes = [Route("/", _static("page.html", "text/html"))]
    routes += [Route(f"/{name}", _static(name, kind)) for name, kind in STATIC.items()]
    routes += [
        Route("/about", page.about),
        Route("/search", page.search, methods=["POST"]),
        Route("/gallery/{picture}", page.gallery),
        Route("/examples/{number}", page.example),
    ]
    return guarded(routes, hosts)


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0 takes any free one."""
    if not 0 <= port < 1 << 16:
        raise ValueError(f"--port is a number from 0 (any free one) to 65535, not {port}.")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        # Python's own words repeat the address; an unknown host has no number that the system knows.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise OSError(
            error.errno, f"Cannot listen on {host}, port {port}: {reason}. Choose another --port or --host"
        ) from error


def server(app: Guard) -> uvicorn.Server:
    """A server for `run(sockets=[...])`. It keeps no log of requests: they are searches for persons."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=TimedProtocol,
            h11_max_incomplete_event_size=32 << 10,
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=3,
        )
    )


def _static(name: str, kind: str) -> Any:
    content = resources.files(__package__).joinpath(f"web_{name}").read_bytes()

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


def _picture(path: str, kind: str, height: int | None = None, window: Window | None = None) -> Response:
    try:
        rgb = open_picture(path, window)
    except OSError as error:
        logger.warning("A picture can no longer be read: %s", error)
        raise HTTPException(404) from None
    if height is not None:
        rgb.thumbnail((2 * height, height))
    file = io.BytesIO()
    rgb.save(file, kind, quality=90)
    return Response(file.getvalue(), media_type=f"image/{kind.lower()}")
