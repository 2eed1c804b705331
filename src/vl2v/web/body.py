"""Read a request body with limits on size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from vl2v.web.faults import ApiError, too_large
from vl2v.web.limits import Limits

DRAIN_SECONDS = 10
IDLE_SECONDS = 1


@dataclass
class BodyMemory:
    """The number of bytes of request bodies in memory, over all requests of a service."""

    bytes: int = 0


@asynccontextmanager
async def body_of(request: Request, limits: Limits, memory: BodyMemory) -> AsyncIterator[Body]:
    """Yield the body of a request, which counts as memory in use until the block ends. After an error, it is drained.

    Args:
        memory: memory of the bodies of all requests.
    """
    body = Body(limits, memory, request)
    try:
        yield body
    except ApiError:
        await body.drain()
        raise
    finally:
        memory.bytes -= body.bytes


class Body:
    """A request body, read with limits on its size, its time and the memory of all bodies."""

    def __init__(self, limits: Limits, memory: BodyMemory, request: Request) -> None:
        self._limits, self._all, self._request = limits, memory, request
        self._chunks = request.stream()
        self.bytes = 0

    async def read(self) -> bytes:
        """Read the complete body.

        Raises:
            ApiError: 413 if it is too large, 408 if it arrives too slowly, 503 if the memory is used up.
        """
        most = self._limits.body_bytes
        message = f"Expected a body of at most {most} bytes; send fewer or smaller images at a time."
        if int(self._request.headers.get("content-length") or 0) > most:  # the HTTP parser has validated it
            raise too_large(message)
        content = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                async for chunk in self._chunks:
                    self._reserve(len(chunk))
                    content += chunk
                    if len(content) > most:
                        raise too_large(message)
        except TimeoutError:
            raise ApiError(408, "too_slow", "The body did not arrive in time.", retry_after=1) from None
        return bytes(content)

    def _reserve(self, size: int) -> None:
        if self._all.bytes + size > self._limits.held_bytes:
            message = "Too many large requests are being processed; retry after the time in retry-after."
            raise ApiError(503, "overloaded", message, retry_after=1)
        self.bytes += size
        self._all.bytes += size

    async def drain(self) -> None:
        """Read and discard the rest, within limits, since a client that is still sending would miss the response."""
        remaining, clock = 2 * self._limits.body_bytes, asyncio.get_running_loop().time
        end = clock() + DRAIN_SECONDS
        try:
            async with asyncio.timeout(IDLE_SECONDS) as patience:
                async for chunk in self._chunks:
                    remaining -= len(chunk)
                    if remaining < 0:
                        return
                    patience.reschedule(min(end, clock() + IDLE_SECONDS))
        except (TimeoutError, ClientDisconnect, RuntimeError):  # RuntimeError: the body has been read completely
            return
