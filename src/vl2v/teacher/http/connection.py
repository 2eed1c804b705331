"""HTTP connections to a vendor, with limits on time and memory."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from vl2v.addresses import host_of, is_local
from vl2v.formatting import size

CONNECT_SECONDS = 10.0
DESCRIPTION_BYTES = 8_000_000  # maximum size of a response, apart from its embeddings
NUMBER_BYTES = 64  # maximum size of one number in JSON, with white space
UNKNOWN_DIMENSION = 65_536
GZIP_OR_ZLIB = 47  # zlib's window bits that accept both headers
SLICE = 8192  # bytes written between two checks of the deadline; about what a writable socket accepts at once
USER_AGENT = "vl2v"


class UnusableBodyError(Exception):
    """The body of a response was not read completely.

    Args:
        why: the reason in a few words.
        final: whether another attempt would fail, too.
    """

    def __init__(self, why: str, *, final: bool) -> None:
        super().__init__(why)
        self.final = final


@dataclass(frozen=True)
class Reply:
    """A complete HTTP response."""

    method: str
    url: str
    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def target(self) -> str:
        """The target of a redirect, without query and fragment; empty if the response is not a redirect."""
        if not 300 <= self.status < 400 or "location" not in self.headers:
            return ""
        try:
            return str(httpx.URL(self.url).join(self.headers["location"]).copy_with(query=None, fragment=None))
        except httpx.InvalidURL:
            return ""


def most_bytes(count: int, dimension: int) -> int:
    """Return the maximum size in bytes of a response with `count` embeddings of `dimension` numbers (0: unknown)."""
    return DESCRIPTION_BYTES + count * (dimension or UNKNOWN_DIMENSION) * NUMBER_BYTES


class Connection:
    """A pool of connections to one server.

    Args:
        base: a URL of the server, which determines whether a proxy is used.
        seconds: time limit for a request, from connecting to the last byte of the response.
    """

    def __init__(self, base: str, seconds: float, transport: httpx.BaseTransport | None = None) -> None:
        self._seconds = seconds
        self._http = httpx.Client(
            timeout=httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds), pool=None),
            transport=transport or _TimedTransport(proxy=proxy_for(base)),
            headers={"user-agent": USER_AGENT, "accept-encoding": "gzip"},
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes, most: int) -> Reply:
        """Send one request and read the response.

        Args:
            body: body of the request; may be empty.
            most: maximum size of the body of the response in bytes, compressed or not.

        Raises:
            httpx.TransportError: if the connection fails or the time limit is exceeded.
            httpx.InvalidURL, httpx.UnsupportedProtocol: if the URL is unusable.
            UnusableBodyError: if the body is too large or cannot be decompressed.
        """
        with (
            _deadline(self._seconds),
            self._http.stream(method, url, headers=dict(headers), content=body or None) as answer,
        ):
            content = answer.content if answer.is_stream_consumed else _read(answer, most)
            return Reply(method, url, answer.status_code, answer.headers, content)


def proxy_for(url: str) -> str | None:
    """Return the proxy for a URL from the environment; None for addresses of this machine."""
    parts = urlsplit(url)
    host = host_of(url)
    if is_local(host) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _read(answer: httpx.Response, most: int) -> bytes:
    """Read the body and decompress it in steps, so that no step exceeds the limit."""
    size = answer.headers.get("content-length", "")
    if size.isdigit() and len(size) < 20 and int(size) > most:
        raise _too_large(most)
    encoding, parts = answer.headers.get("content-encoding", "").strip().lower(), answer.iter_raw()
    if encoding in ("gzip", "x-gzip", "deflate"):
        parts = decompressed(parts, most)
    elif encoding not in ("", "identity"):
        raise UnusableBodyError(f"a body in the encoding '{encoding[:40]}', but only gzip was offered", final=True)
    body = bytearray()
    for part in parts:
        body += part
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


def decompressed(chunks: Iterable[bytes], most: int) -> Iterator[bytes]:
    """Decompress gzip or zlib in parts of at most `most` + 1 bytes.

    Raises:
        UnusableBodyError: if a chunk decompresses to more than `most` bytes, or the data are damaged or truncated.
    """
    decoder = zlib.decompressobj(GZIP_OR_ZLIB)
    try:
        for chunk in chunks:
            yield decoder.decompress(chunk, most + 1)
            if decoder.unconsumed_tail:
                raise _too_large(most)
    except zlib.error:
        raise UnusableBodyError("a body that cannot be decompressed", final=False) from None
    if not decoder.eof:
        raise UnusableBodyError("a truncated compressed body", final=False)


def _too_large(most: int) -> UnusableBodyError:
    return UnusableBodyError(f"a body of more than {size(most)}", final=True)


# With a time limit per read, a server could send a byte at a time for ever. The deadline is per thread, because a
# connection serves many requests, but one thread sends a request and reads its response.

_now = threading.local()


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    _now.end, _now.seconds = time.monotonic() + seconds, seconds
    try:
        yield
    finally:
        _now.end = None


def _left(timeout: float | None) -> float | None:
    end = getattr(_now, "end", None)
    if end is None:
        return timeout
    left: float = end - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout(f"no complete response within {_now.seconds:g} s")
    return left if timeout is None else min(left, timeout)


class _TimedStream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), SLICE):  # httpcore restarts the timeout for every send of a buffer
            self._inner.write(buffer[start : start + SLICE], _left(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> Any:
        return _TimedStream(self._inner.start_tls(ssl_context, server_hostname, _left(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _TimedBackend(httpcore.NetworkBackend):
    def __init__(self, inner: httpcore.NetworkBackend) -> None:
        self._inner = inner

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, *rest: Any, **more: Any) -> Any:
        return _TimedStream(self._inner.connect_tcp(host, port, _left(timeout), *rest, **more))

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class _TimedTransport(httpx.HTTPTransport):
    """A transport of httpx whose reads and writes end at the deadline of the thread."""

    def __init__(self, proxy: str | None) -> None:
        super().__init__(proxy=proxy)
        pool: Any = self._pool  # httpx has no option for the network back end of httpcore
        pool._network_backend = _TimedBackend(pool._network_backend)
