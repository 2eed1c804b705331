"""Connection limits of an HTTP server, so that idle clients cannot block others."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 15.0
CONNECTIONS = 2048
SPARE_FILES = 256  # open files that are no connections: databases, models, logs
HANDSHAKES = 8192  # connections that have not finished TLS, and count as none yet

HEAD, IDLE, BODY, WORK = range(4)
"""What a connection waits for: a request's head, the next request, the rest of a body; or a request is worked on."""


class Waiting:
    """The connections of a server that wait for their client, in the order in which one would be closed."""

    def __init__(self) -> None:
        self._stages: tuple[dict[BoundedProtocol, None], ...] = ({}, {}, {})

    def move(self, connection: BoundedProtocol, stage: int) -> None:
        """File a connection under what it waits for; `WORK` takes it out."""
        for one in self._stages:
            one.pop(connection, None)
        if stage != WORK:
            self._stages[stage][connection] = None

    def first(self, but: BoundedProtocol) -> BoundedProtocol | None:
        """The connection that is missed least: one without a request if there is one, the longest waiting."""
        return next((one for stage in self._stages for one in stage if one is not but), None)


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol with a time limit for a request's head, and room for new clients at any time.

    Beyond `most_open` connections, a new one takes the place of one that waits for its client. A request with both
    ``content-length`` and ``transfer-encoding`` is the last one of its connection (RFC 9112, section 6.1).

    Attributes:
        head_seconds: from a connection's start, or the first byte of a further request, to the end of its head.
        most_open: connections.
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
        """Take in what has arrived."""
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
    """Raise this process's limit of open files as far as needed and allowed; how many connections fit below it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + HANDSHAKES + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return CONNECTIONS
    higher = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with suppress(ValueError, OSError):  # some systems have a bound of their own
        resource.setrlimit(resource.RLIMIT_NOFILE, (higher, hard))
        soft = higher
    return max(16, min(CONNECTIONS, soft - SPARE_FILES))
