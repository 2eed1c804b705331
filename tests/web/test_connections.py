"""Clients that connect and send nothing, or send slowly, do not block others."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest
import uvicorn

from vl2v.web.connections import CONNECTIONS, BoundedProtocol, make_room
from vl2v.web.running import server_config

REQUEST = b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n"
PARTS = {
    "silent": b"",
    "half a head": b"GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: ",
    "kept alive": REQUEST,
    "half a body": b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nabc",
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer ok: to POST once its body has arrived, to /slow with a delay."""
    assert scope["type"] == "http"
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/slow":
        await asyncio.sleep(0.5)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@contextmanager
def running() -> Iterator[int]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = int(one.getsockname()[1])
    config = server_config(app, "127.0.0.1", port)
    config.lifespan = "off"
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = server.force_exit = True
        thread.join(20)


@contextmanager
def idle(port: int, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """Open connections and send `sent` on each."""
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    try:
        for one in sockets:
            with suppress(OSError):  # it was closed for another one
                one.sendall(sent)
        yield sockets
    finally:
        for one in sockets:
            one.close()


def closed(one: socket.socket, seconds: float) -> bool:
    """Return whether the server closes a connection within that time, after reading what it sent."""
    one.settimeout(seconds)
    try:
        while one.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def reply(one: socket.socket) -> bytes:
    """Return an answer of the application."""
    one.settimeout(5)
    received = b""
    while not received.endswith(b"ok"):
        data = one.recv(4096)
        assert data, received
        received += data
    return received


@pytest.mark.parametrize("kind", PARTS)
def test_idle_connections_do_not_block_others(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(BoundedProtocol, "most_open", 40)
    with running() as port, idle(port, 200, PARTS[kind]):
        for _ in range(3):
            answer = httpx.get(f"http://127.0.0.1:{port}/health", timeout=10)
            assert (answer.status_code, answer.text) == (200, "ok")


def test_active_connections_are_not_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedProtocol, "most_open", 5)
    slow = REQUEST.replace(b"/x", b"/slow")
    with running() as port, idle(port, 5, slow) as sockets:
        time.sleep(0.2)
        assert httpx.get(f"http://127.0.0.1:{port}/health", timeout=10).status_code == 503
        with idle(port, 20, b""):
            assert all(reply(one).startswith(b"HTTP/1.1 200") for one in sockets)


def test_a_request_header_has_to_arrive_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedProtocol, "head_seconds", 0.3)
    with running() as port:
        with idle(port, 2, b"") as silent, idle(port, 1, PARTS["half a head"]) as half:
            for _ in range(10):  # a byte now and then does not help
                with suppress(OSError):
                    half[0].sendall(b"x")
                time.sleep(0.06)
            assert all(closed(one, 2) for one in (*silent, *half))
        with idle(port, 1, REQUEST) as (one,):
            assert reply(one).startswith(b"HTTP/1.1 200")
            time.sleep(0.5)
            one.sendall(REQUEST)  # between requests a client may take its time
            assert reply(one).startswith(b"HTTP/1.1 200")
            one.sendall(REQUEST[:20])
            assert closed(one, 2)
        with idle(port, 1, REQUEST.replace(b"/x", b"/slow")) as (one,):  # so may an answer
            assert reply(one).startswith(b"HTTP/1.1 200")
        with idle(port, 1, PARTS["half a body"]) as (one,):  # the application bounds a body's time
            assert not closed(one, 0.5)


@pytest.mark.parametrize("both", [True, False])
def test_two_content_lengths_close_the_connection(both: bool) -> None:
    length = b"content-length: 5\r\n" if both else b""
    first = b"POST / HTTP/1.1\r\nhost: localhost\r\n" + length + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    with running() as port, idle(port, 1, first + REQUEST) as (one,):
        one.settimeout(2)
        received = b""
        with suppress(TimeoutError):
            while data := one.recv(4096):
                received += data
                if received.count(b"HTTP/1.1 200") == 2:
                    break
        assert received.count(b"HTTP/1.1 200") == (1 if both else 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["silent", "half a head"])
def test_more_idle_connections_than_the_server_accepts_do_not_block_others(kind: str) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 3 * CONNECTIONS:
        pytest.skip("this system allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 3 * CONNECTIONS), before[1]))
    try:
        with running() as port, idle(port, CONNECTIONS + 12, PARTS[kind]):
            assert httpx.get(f"http://127.0.0.1:{port}/health", timeout=30).status_code == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_of_open_files_is_raised_as_far_as_needed() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (600, before[1]))
        assert 0 < make_room() <= CONNECTIONS
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 600
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
