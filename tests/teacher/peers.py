"""A server on a real socket that answers every request with bytes chosen by the test."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTRY = {
    "id": "m",
    "identity": "test:m",
    "revision": "1",
    "dimension": 4,
    "logit_scale": 20.0,
    "price_per_1000_images": "0.6",
    "price_per_1000_texts": "0.1",
    "currency": "USD",
    "max_batch": 8,
}
MODELS = {"object": "list", "data": [ENTRY]}


def head(status: int, *headers: str, reason: str = "x") -> bytes:
    """Return the head of an answer."""
    return "\r\n".join([f"HTTP/1.1 {status} {reason}", *headers, "", ""]).encode()


def full_response(body: Any, status: int = 200, *headers: str) -> list[bytes]:
    """Return a complete answer. Anything except bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return [head(status, f"content-length: {len(content)}", *headers), content]


class Peer(ThreadingHTTPServer):
    """Sends what `answer` yields for each request; counts the requests by method.

    Args:
        answer: from method, path, headers and body to parts of bytes; a float is a pause in seconds.
    """

    daemon_threads = True

    def __init__(self, answer: Callable[[str, str, dict[str, str], bytes], Iterable[bytes | float]]) -> None:
        self.posts = 0
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.closing = threading.Event()
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None: ...

            def do_GET(self) -> None:
                self.reply()

            def do_POST(self) -> None:
                peer.posts += 1
                self.reply()

            def reply(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", 0)))
                peer.seen.append((self.command, self.path, headers))
                self.close_connection = True
                with suppress(OSError):
                    for part in answer(self.command, self.path, headers, body):
                        if isinstance(part, float):
                            if peer.closing.wait(part):
                                return
                        else:
                            self.wfile.write(part)

        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnected, as these tests expect."""

    @property
    def url(self) -> str:
        """The URL, including /v1."""
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def peer(answer: Callable[[str, str, dict[str, str], bytes], Iterable[bytes | float]]) -> Iterator[Peer]:
    """A running `Peer`."""
    server = Peer(answer)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()


def vendor_peer(post: Callable[[bytes], Iterable[bytes | float]]) -> Callable[..., Iterable[bytes | float]]:
    """A running peer that describes itself as a vl2v vendor; `post` answers purchases."""

    def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> Iterable[bytes | float]:
        return full_response(MODELS, 200, "connection: close") if method == "GET" else post(body)

    return answer


def byte_by_byte(data: bytes, seconds: float = 0.02) -> Iterator[bytes | float]:
    """Yield one byte at a time."""
    for i in range(len(data)):
        yield data[i : i + 1]
        yield seconds


def elapsed_seconds(work: Callable[[], object]) -> float:
    """Return the seconds that `work` takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began
