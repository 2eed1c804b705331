"""Read a request body with limits on size and time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from vl2v.web.faults import ApiError, too_large
from vl2v.web.limits import Limits

DRAIN_SECONDS = 10
IDLE_SECONDS = 1


@dataclass
class Held:
    """Bytes of request bodies at hand, over all requests of a service."""

    bytes: int = 0


class Body:
    """A request's body as it comes in, bounded in size and time, and counted among all that are held.

    Args:
        limits: the service's.
        held: the service's count.
        request: whose body.
    """

    def __init__(self, limits: Limits, held: Held, request: Request) -> None:
        self._limits, self._all, self._request = limits, held, request
        self._chunks = request.stream()
        self._held = 0

    async def read(self) -> bytes:
        """All of it.

        Raises:
            ApiError: 413 if it is too large, 408 if it comes too slowly, 503 if too much is held already.
        """
        most = self._limits.body_bytes
        message = f"Expected a body of at most {most} bytes; send fewer or smaller images at a time."
        if int(self._request.headers.get("content-length") or 0) > most:  # the HTTP parser has seen that it is a number
            raise too_large(message)
        content = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                async for chunk in self._chunks:
                    self._hold(len(chunk))
                    content += chunk
                    if len(content) > most:
                        raise too_large(message)
        except TimeoutError:
            raise ApiError(408, "too_slow", "The body did not arrive in time.", retry_after=1) from None
        return bytes(content)

    def _hold(self, size: int) -> None:
        if self._all.bytes + size > self._limits.held_bytes:
            message = "Too many large requests are being processed; retry after the time in retry-after."
            raise ApiError(503, "overloaded", message, retry_after=1)
        self._held += size
        self._all.bytes += size

    async def drain(self) -> None:
        """Read and forget the rest, within bounds: a client that is still sending would not see the answer."""
        left, clock = 2 * self._limits.body_bytes, asyncio.get_running_loop().time
        end = clock() + DRAIN_SECONDS
        try:
            async with asyncio.timeout(IDLE_SECONDS) as patience:
                async for chunk in self._chunks:
                    left -= len(chunk)
                    if left < 0:
                        return
                    patience.reschedule(min(end, clock() + IDLE_SECONDS))
        except (TimeoutError, ClientDisconnect, RuntimeError):  # RuntimeError: it was read to its end
            return

    def release(self) -> None:
        """Count it no longer."""
        self._all.bytes -= self._held
        self._held = 0
