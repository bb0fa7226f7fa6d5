"""Connections to the web page: how long a client may take to say what it wants, and how many places one address may hold."""

import asyncio
from collections import Counter
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0  # from the connection, or from the end of the last answer, to the end of a request's header
WAITING = 64  # connections of one address that have not said what they want; the oldest makes room
PER_ADDRESS = 100  # connections of one address in all

# Per running loop, as uvicorn makes one protocol object per connection and hands them nothing in common.
_waiting: dict[str, dict["TimedProtocol", None]] = {}
_open: Counter[str] = Counter()


class TimedProtocol(H11Protocol):
    """uvicorn's HTTP with a time limit on headers, which it lacks, and limits per address."""

    _timer: asyncio.TimerHandle | None = None
    _address: str | None = None  # None: it holds no place

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        _open[self._address] += 1
        if _open[self._address] > PER_ADDRESS:
            self._give_up()
            return
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._said()
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        # The place is free at once; the loop tells of the lost connection later.
        self._leave()
        self.transport.abort()

    def _leave(self) -> None:
        self._said()
        if self._address is not None:
            _open[self._address] -= 1
            if not _open[self._address]:
                del _open[self._address]
            self._address = None

    def _wait(self) -> None:
        """A header is not complete: it has to be soon. Further bytes of it do not start the time again."""
        if self._timer is not None or self._address is None or self.transport.is_closing():
            return
        self._timer = self.loop.call_later(HEADER_SECONDS, self._give_up)
        waiting = _waiting.setdefault(self._address, {})
        waiting[self] = None
        if len(waiting) > WAITING:
            next(iter(waiting))._give_up()

    def _said(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting = _waiting.get(self._address or "")
        if waiting is not None:
            waiting.pop(self, None)
            if not waiting:
                del _waiting[self._address or ""]
