"""The JSON endpoint: the page's search for programs, with features, health and its own description.

Requests that wait share passes of the network. Limits, guards and fixed sentences are the page's (`web_query`, `web_guards`,
`web_connections`).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tvilfm_plugin.data.tokenizer import forget_words
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.hits import MemberChoice
from tvilfm_plugin.retrieval.searcher import QueryPart, QueryPlan
from tvilfm_plugin.retrieval.web import Page, run
from tvilfm_plugin.retrieval.web_guards import LOOPBACK, Guard, guarded
from tvilfm_plugin.retrieval.web_openapi import openapi, openapi_page
from tvilfm_plugin.retrieval.web_query import Refused, read_embedding, read_search

if TYPE_CHECKING:
    from tvilfm_plugin.retrieval.retriever import Retriever

PLACES = 64  # requests that may be under way or wait; each holds a whole upload

Vectors = list[dict[Modality, np.ndarray]]


class Batches:
    """What waits is embedded together: while one pass computes, the next one fills."""

    def __init__(self, embed: Callable[[list[QueryPart]], Awaitable[Vectors]], most: int) -> None:
        """`embed` gives the unit vectors of each of at most `most` parts of queries."""
        self._embed, self._most = embed, most
        self._waiting: deque[tuple[list[QueryPart], asyncio.Future[Vectors]]] = deque()
        self._running = False

    async def embed(self, parts: list[QueryPart]) -> Vectors:
        """The unit vectors of each part, once its turn has come."""
        answer: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self._waiting.append((parts, answer))
        if not self._running:
            self._running = True
            self._task = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # who arrived at the same moment comes along
                batch = [self._waiting.popleft()]
                while self._waiting and sum(len(parts) for parts, _ in batch) + len(self._waiting[0][0]) <= self._most:
                    batch.append(self._waiting.popleft())
                await self._answer(batch)
        finally:
            self._running = False

    async def _answer(self, batch: Sequence[tuple[list[QueryPart], "asyncio.Future[Vectors]"]]) -> None:
        try:
            found = await self._embed([part for parts, _ in batch for part in parts])
        except Exception as error:  # everybody of this pass learns of it; the next pass goes on
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        first = 0
        for parts, answer in batch:
            if not answer.done():  # who asked may have gone
                answer.set_result(found[first : first + len(parts)])
            first += len(parts)


class Endpoint(Page):
    """The endpoint's requests; a search is the page's, embedded together with those that wait beside it."""

    busy = "Too many requests at once; try again in a moment."

    def __init__(self, retriever: "Retriever", title: str = "", *, batch: int = 16, places: int = PLACES) -> None:
        """`batch` pictures and texts share a pass; one request more than `places` at once is answered 503."""
        super().__init__(retriever, (), title, places)
        self._batches = Batches(lambda parts: run(self._network, self._embed, parts), batch)

    async def health(self, request: Request) -> Response:
        """200 as long as requests are answered."""
        return JSONResponse({"status": "ok"})

    async def info(self, request: Request) -> Response:
        """The model, the gallery and the limits."""
        return JSONResponse({**self.described(), "model": self.retriever.model_name, **self.retriever.fingerprint.to_dict()})

    async def search(self, request: Request) -> Response:
        """The hits of a posted query."""
        return await self._in_a_place(request, self._found)

    async def embed(self, request: Request) -> Response:
        """Unit vectors of posted pictures or texts."""
        return await self._in_a_place(request, self._vectors)

    async def _found(self, body: bytes) -> dict[str, Any]:
        plan, top, threshold = await run(self._decoders, self._read_search, body)
        found = await self._batches.embed(plan.parts)
        return await run(self._network, self._hits, plan, found, top, threshold)

    def _read_search(self, body: bytes) -> tuple[QueryPlan, int, float | None]:
        query, pictures, threshold, answers = read_search(body, self.retriever.members, self.retriever.ir_window)
        if answers is not None:
            raise Refused(422, "The dialogue with a witness (answers) is the page's; this endpoint has none.")
        self.check_members(query, bool(pictures))
        try:
            plan = self.retriever.plan(
                [self.retriever.pixels(one, Modality.IR) for one in pictures] or None, query.text or None,
                query.infrared_text or None, query.members,
            )  # fmt: skip
        finally:
            forget_words()
        return plan, query.top, threshold

    def _hits(self, plan: QueryPlan, found: Vectors, top: int, threshold: float | None) -> dict[str, Any]:
        try:
            queries, note = self.retriever.finish(plan, found)
        finally:
            forget_words()
        result = self.retriever.find(queries, note, top, threshold=threshold)
        return {"hits": [self.hit(one) for one in result.hits], "note": result.note}

    async def _vectors(self, body: bytes) -> dict[str, Any]:
        modality, parts = await run(self._decoders, self._read_embedding, body)
        if modality is Modality.RGB:
            pixels = [part.infrared for part in parts]
            vectors = list(await run(self._network, self.retriever.embed_images, pixels, Modality.RGB))
        else:
            found = await self._batches.embed(parts)
            vectors = [one[modality] for one in found]
        return {"vectors": [vector.tolist() for vector in vectors], "weights": self.retriever.fingerprint.weights}

    def _read_embedding(self, body: bytes) -> tuple[Modality, list[QueryPart]]:
        modality, pictures, texts = read_embedding(body, self.retriever.has_text, self.retriever.ir_window)
        choice = MemberChoice((modality,), False, "")
        if texts:
            return modality, [QueryPart(choice, None, text, None) for text in texts]
        return modality, [QueryPart(choice, self.retriever.pixels(one, modality), None, None) for one in pictures]

    def _embed(self, parts: list[QueryPart]) -> Vectors:
        try:
            return self.retriever.embed_each(parts)
        finally:
            forget_words()

    async def describe(self, request: Request) -> Response:
        """The OpenAPI description."""
        return JSONResponse(openapi(self.described()))

    async def page(self, request: Request) -> Response:
        """The description for people."""
        return Response(openapi_page(openapi(self.described())), media_type="text/html")


def make_endpoint(
    retriever: "Retriever", title: str = "", hosts: Collection[str] = LOOPBACK, *, batch: int = 16, places: int = PLACES
) -> Guard:
    """The endpoint as an ASGI application; arguments as in `Endpoint`, `hosts` as in `web.make_app`."""
    api = Endpoint(retriever, title, batch=batch, places=places)
    routes = [
        Route("/health", api.health),
        Route("/info", api.info),
        Route("/search", api.search, methods=["POST"]),
        Route("/embed", api.embed, methods=["POST"]),
        Route("/gallery/{picture}", api.gallery),
        Route("/openapi.json", api.describe),
        Route("/", api.page),
    ]
    return guarded(routes, hosts)
