"""Hostile input gets a 4xx answer. The server does not crash, grow, bill or answer 5xx."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_requests import CASES, Case, b64, mutated_images, request, text_bomb
from vendor_fixtures import spawner  # noqa: F401
from vendor_serving import HTTP, Server, Spawner, bearer, new_key, picture

MB = 1_000_000
GROWTH = 600 * MB  # 30 bytes per pixel of the largest accepted image (20 million pixels)
REFUSED_GROWTH = 150 * MB  # refused input is not decoded, so it only takes a few copies of a body


def peak(pid: int) -> int:
    """Return the peak memory of a process, in bytes."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


BEFORE: dict[int, int] = {}


@pytest.fixture(scope="module")
def target(spawner: Spawner) -> Iterator[Server]:
    """One server for all requests. At the end it must still work and must not have exceeded the memory limit."""
    server = spawner.start(limits={"body_bytes": 20 * MB})
    key = new_key(server.db)
    server.ask(key, request([{"image": b64(picture(1))}, "a"]).replace(b'"@"', json.dumps(server.model).encode()))
    before = BEFORE[server.pid] = peak(server.pid)
    yield server
    assert HTTP.get(f"{server.url}/health").status_code == 200
    assert peak(server.pid) - before < GROWTH
    assert "Traceback" not in server.log.read_text()


@pytest.fixture(scope="module")
def victim(target: Server) -> str:
    return new_key(target.db)


def send(server: Server, key: str, body: bytes) -> tuple[int, dict[str, str | None]]:
    answer = server.ask(key, body.replace(b'"@"', json.dumps(server.model).encode()))
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    if answer.status_code == 200:
        return 200, {}
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error


def test_there_are_at_least_three_hundred_hostile_requests() -> None:
    assert len(CASES) >= 300
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: re.sub(r"[^ -~]", "?", case.name))
def test_a_hostile_body_gets_its_4xx(target: Server, victim: str, case: Case) -> None:
    status, error = send(target, victim, case.body)
    assert status == case.status, error
    assert case.code in (None, error["code"])


def test_no_hostile_request_was_billed_or_decoded(target: Server, victim: str) -> None:
    assert peak(target.pid) - BEFORE[target.pid] < REFUSED_GROWTH
    usage = target.usage(victim)
    assert (usage["requests"], usage["billed_units"], usage["cost"]) == (0, 0, "0")


def test_text_in_an_image_is_not_unpacked(target: Server) -> None:
    before = peak(target.pid)
    status, error = send(target, new_key(target.db), request([{"image": b64(text_bomb())}]))
    assert (status, error) == (200, {})
    assert peak(target.pid) - before < REFUSED_GROWTH


def test_changed_images_are_answered_or_refused(target: Server) -> None:
    key, fine = new_key(target.db), 0
    for data in mutated_images(120):
        status, _ = send(target, key, request([{"image": b64(data)}]))
        assert status in (200, 400, 413)
        fine += status == 200
    assert 0 < fine < 120
    assert target.usage(key)["images"] == fine


def test_the_largest_accepted_image_stays_within_the_memory_limit(target: Server) -> None:
    """20 megapixels with transparency: the most that decoding may cost."""
    import zlib

    from hostile_requests import chunk, png

    squeeze = zlib.compressobj(1)
    data = b"".join([*(squeeze.compress(bytes(1 + 4 * 5000)) for _ in range(4000)), squeeze.flush()])
    status, error = send(
        target, new_key(target.db), request([{"image": b64(png(5000, 4000, chunk(b"IDAT", data), colour=6))}])
    )
    assert status == 200, error


def raw(server: Server, data: bytes, *, wait: float = 10) -> bytes:
    """Send bytes unchanged and return the answer up to the end of the connection."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=wait) as line:
        line.sendall(data)
        answer = b""
        try:
            while part := line.recv(65536):
                answer += part
        except (TimeoutError, ConnectionResetError):
            pass
        return answer


def post(key: str, headers: str, body: bytes = b"") -> bytes:
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n{headers}\r\n"
    )
    return head.encode() + body


@pytest.mark.parametrize(
    ("name", "headers", "body", "status"),
    [
        ("a length that is not a number", "content-length: many\r\n", b"", 400),
        ("a negative length", "content-length: -1\r\n", b"", 400),
        ("two lengths", "content-length: 1\r\ncontent-length: 2\r\n", b"", 400),
        ("a length of twenty digits", "content-length: 99999999999999999999\r\n", b"", 413),
        ("more than is taken", f"content-length: {30 * MB}\r\n", b"a" * 30 * MB, 413),
        ("a bad chunk", "transfer-encoding: chunked\r\n", b"zz\r\n", 400),
        ("chunks without end", "transfer-encoding: chunked\r\n", b"100000\r\n" + b"a" * 2**20 + b"\r\n", 0),
        ("a header of 1 MB", f"x-long: {'a' * MB}\r\n", b"", 400),
        ("no body", "", b"", 422),
        ("an idempotency key of 256", f"idempotency-key: {'a' * 256}\r\ncontent-length: 2\r\n", b"{}", 422),
        ("an empty idempotency key", "idempotency-key: \r\ncontent-length: 2\r\n", b"{}", 422),
        ("a strange idempotency key", "idempotency-key: \xe9\r\ncontent-length: 2\r\n", b"{}", 422),
    ],
)
def test_malformed_http_is_refused(
    target: Server, victim: str, name: str, headers: str, body: bytes, status: int
) -> None:
    answer = raw(target, post(victim, headers, body), wait=1 if not status else 20)
    if status:
        assert answer.split()[1] == str(status).encode(), answer[:300]


def test_too_many_chunks_without_a_length(target: Server, victim: str) -> None:
    chunks = b"".join(b"100000\r\n" + b"a" * 2**20 + b"\r\n" for _ in range(22)) + b"0\r\n\r\n"
    assert raw(target, post(victim, "transfer-encoding: chunked\r\n", chunks)).split()[1] == b"413"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Basic dXNlcjpwYXNz",
        "Bearer vl2v-0000000000000000-" + "A" * 43,
        "Bearer ' OR '1'='1",
        "Bearer " + "a" * 20_000,
        "Bearer \x7f",
        "Token {key}",
        "Bearer {key}x",
        "Bearer {key} {key}",
    ],
)
def test_a_wrong_key_is_refused(target: Server, victim: str, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header.format(key=victim)}
    for method, path in (
        ("POST", "/v1/embeddings"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/a"),
        ("GET", "/v1/usage"),
    ):
        answer = HTTP.request(method, target.url + path, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/embeddings", 405),
        ("PUT", "/v1/embeddings", 405),
        ("BREW", "/health", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/../../etc/passwd", 404),
        ("GET", "/v1/models/../../../etc/passwd", 404),
        ("GET", "/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd", 404),
        ("GET", "/v1/models/%00", 404),
        ("GET", "/%0d%0aset-cookie:a=b", 404),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/v1/embeddings/", 404),
        ("GET", "/" + "a" * 10_000, 404),
    ],
)
def test_wrong_paths_and_methods_are_refused(target: Server, victim: str, method: str, path: str, status: int) -> None:
    answer = HTTP.request(method, target.url + path, headers=bearer(victim))
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_body_that_arrives_too_slowly_is_refused(spawner: Spawner) -> None:
    server = spawner.start(limits={"body_seconds": 0.5})
    started = time.monotonic()
    answer = raw(server, post(new_key(server.db), "content-length: 100\r\n", b"{"), wait=15)
    assert b"408" in answer.split(b"\r\n")[0]
    assert time.monotonic() - started < 14


def test_the_total_size_of_bodies_in_memory_is_bounded(spawner: Spawner) -> None:
    server = spawner.start(limits={"body_bytes": MB, "held_bytes": MB})
    key = new_key(server.db)
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as line:
        line.sendall(post(key, f"content-length: {MB}\r\n", b" " * (MB - 1000)))
        time.sleep(0.3)
        answer = server.ask(key, b" " * 2000)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
    time.sleep(0.3)
    assert server.ask(key, b" " * 2000).status_code == 422
