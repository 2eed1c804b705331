"""Connection limits of an HTTP server, so that idle clients cannot block others."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 15.0
CONNECTIONS = 2048
SPARE_FILES = 256  # open files other than connections: databases, models, logs
HANDSHAKES = 8192  # connections that have not finished TLS, which are not counted yet

HEAD, IDLE, BODY, WORK = range(4)
"""States of a connection: waiting for the head of a request, for the next request or for a body; or processing."""


class Waiting:
    """The connections of a server that wait for their client, in the order in which they would be closed."""

    def __init__(self) -> None:
        self._stages: tuple[dict[BoundedProtocol, None], ...] = ({}, {}, {})

    def move(self, connection: BoundedProtocol, stage: int) -> None:
        """Set the state of a connection; `WORK` removes it."""
        for one in self._stages:
            one.pop(connection, None)
        if stage != WORK:
            self._stages[stage][connection] = None

    def first(self, but: BoundedProtocol) -> BoundedProtocol | None:
        """Return the connection to close first: one without a request if possible, and the longest waiting."""
        return next((one for stage in self._stages for one in stage if one is not but), None)


class BoundedProtocol(H11Protocol):
    """A protocol of uvicorn with limits on the number of connections and on the time for the head of a request.

    If more than `most_open` connections are open, one that waits for its client is closed. A request with both
    ``content-length`` and ``transfer-encoding`` is the last one of its connection (RFC 9112, section 6.1).

    Attributes:
        head_seconds: seconds from the start of a connection, or from the first byte of a further request, to the end
            of the head.
    """

    head_seconds = HEAD_SECONDS
    most_open = CONNECTIONS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting = cast(Waiting, vars(self.server_state).setdefault("waiting", Waiting()))
        self._stage = WORK
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._enter(HEAD)
        if len(self.connections) > self.most_open and (other := self._waiting.first(but=self)) is not None:
            other.close_now()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._enter(WORK)
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Process received data."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and {b"content-length", b"transfer-encoding"} <= {name for name, _ in self.headers}:
            self.cycle.keep_alive = False
        self._enter({h11.IDLE: HEAD, h11.SEND_BODY: BODY}.get(self.conn.their_state, WORK))

    def on_response_complete(self) -> None:
        """See `H11Protocol`."""
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE:
            self._enter(IDLE)

    def close_now(self) -> None:
        """Close without waiting for the client."""
        self._enter(WORK)
        self.connections.discard(self)
        self.transport.abort()

    def _enter(self, stage: int) -> None:
        if stage == self._stage:
            return
        self._stage = stage
        self._waiting.move(self, stage)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(self.head_seconds, self.close_now) if stage == HEAD else None


def make_room() -> int:
    """Raise the limit on open files as far as needed and allowed; returns the number of connections that fit."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    file_count = CONNECTIONS + HANDSHAKES + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= file_count:
        return CONNECTIONS
    higher = file_count if hard == resource.RLIM_INFINITY else min(file_count, hard)
    with suppress(ValueError, OSError):  # some systems have a lower limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (higher, hard))
        soft = higher
    return max(16, min(CONNECTIONS, soft - SPARE_FILES))
