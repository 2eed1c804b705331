"""Slow answers, bombs, deep nesting, redirects and hidden errors cannot hang or exhaust the client."""

from __future__ import annotations

import gzip
import json
import resource
import socket
import threading
import zlib
from collections.abc import Iterable
from contextlib import suppress

import httpx
import pytest
from peers import MODELS, byte_by_byte, full_response, head, peer, vendor_peer

from vl2v.addresses import is_local
from vl2v.errors import TeacherError
from vl2v.teacher.http.client import HttpTeacher
from vl2v.teacher.http.connection import Connection, UnusableBodyError, decompressed, most_bytes, proxy_for
from vl2v.teacher.http.remote import Account
from vl2v.teacher.http.retry import RetryPolicy
from vl2v.teacher.http.uri import open_wire

IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(20)
KEY = "vl2v-0123456789abcdef-Secret_never-to_be.seen"


class CountingAccount(Account):
    """Counts how attempts ended."""

    def __init__(self) -> None:
        self.sent, self.no, self.spent = 0, 0, 0

    def sending(self) -> None:
        self.sent += 1

    def refused(self, why: str) -> None:
        self.no += 1

    def lost(self, why: str) -> None:
        self.spent += 1


def describe_and_buy(teacher: HttpTeacher, account: CountingAccount) -> None:
    teacher.describe()
    teacher.fulfil(teacher.order("text", ["a"]), account)


def buy(url: str, attempts: int = 3, account: CountingAccount | None = None) -> TeacherError:
    """Try to buy the embedding of one text and return the error."""
    teacher = HttpTeacher(open_wire(url), policy=RetryPolicy(attempts=attempts, first=0.001))
    try:
        with pytest.raises(TeacherError) as caught:
            describe_and_buy(teacher, account or CountingAccount())
    finally:
        teacher.close()
    return caught.value


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VL2V_API_KEY", raising=False)


@pytest.mark.parametrize("where", ["head", "body", "interim"])
def test_a_slow_answer_ends_at_the_timeout_and_counts_as_spent(where: str) -> None:
    def post(_: bytes) -> Iterable[bytes | float]:
        if where == "head":
            yield from byte_by_byte(head(200, "x-slow: " + "y" * 4000))
        elif where == "interim":
            for _count in range(400):
                yield head(102)
                yield 0.02
        else:
            yield head(200, "content-length: 4000")
            yield from byte_by_byte(b" " * 4000)

    account = CountingAccount()
    with peer(vendor_peer(post)) as server:
        error = buy(f"{server.url}#timeout=0.3", attempts=1, account=account)
        assert server.posts == 1
    assert "no complete response within 0.3 s" in error.found or "ReadTimeout" in error.found
    assert (account.sent, account.no, account.spent) == (1, 0, 1)


@pytest.mark.parametrize("read", [0, 120_000])
def test_a_body_that_is_read_slowly_or_never_ends_at_the_timeout(read: int) -> None:
    """A server that reads a large body in small parts, each well within the timeout."""
    body, taken, ended = bytes(24_000_000), 0, threading.Event()  # takes about 4 seconds at this speed

    def serve(listener: socket.socket) -> None:
        nonlocal taken
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            while read and (part := connection.recv(read)) and not ended.wait(0.02):
                taken += len(part)
            ended.wait(20)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        url, client = f"http://127.0.0.1:{listener.getsockname()[1]}/v1", Connection("http://127.0.0.1", 0.4)
        try:
            with pytest.raises(httpx.TimeoutException):
                client.exchange("POST", url, {}, body, 1000)
            assert taken < len(body) // 2
        finally:
            ended.set()
            client.close()


@pytest.mark.parametrize("kind", ["gzip", "zlib", "stated", "endless"])
def test_an_answer_is_bounded_in_size_while_it_is_decompressed(kind: str) -> None:
    most = most_bytes(1, 4)
    zeros = bytes(25 * most)

    def post(_: bytes) -> Iterable[bytes | float]:
        if kind == "stated":
            yield head(200, f"content-length: {10**12}")
        elif kind == "endless":
            yield head(200)
            while True:
                yield zeros[: 10**6]
        else:
            packed = gzip.compress(zeros, 1) if kind == "gzip" else zlib.compress(zeros, 1)
            yield from full_response(packed, 200, f"content-encoding: {'gzip' if kind == 'gzip' else 'deflate'}")

    account = CountingAccount()
    with peer(vendor_peer(post)) as server:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        error = buy(server.url, account=account)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        assert server.posts == 1, "an answer that is too large would be so again"
    assert "a body of more than 8.0 MB" in error.found
    assert grown < 12 * most, "megabytes at a time"
    assert account.spent == 1


def test_no_step_of_decompression_exceeds_the_bound() -> None:
    packed = gzip.compress(bytes(10**6))
    parts: list[bytes] = []
    with pytest.raises(UnusableBodyError, match="more than"):
        parts.extend(decompressed([packed[:20], packed[20:]], 1000))
    assert b"".join(decompressed([packed[:20], packed[20:]], 10**6)) == bytes(10**6)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
def test_an_encoding_that_was_not_offered_is_refused(encoding: str) -> None:
    with peer(vendor_peer(lambda _: full_response(b"xyz", 200, f"content-encoding: {encoding}"))) as server:
        assert f"in the encoding '{encoding}'" in buy(server.url).found


def test_compressed_answers_are_read_and_truncated_ones_are_not() -> None:
    rows = {"data": [{"index": 0, "embedding": [1.0, 2.0, 3.0, 4.0]}]}
    packed = gzip.compress(json.dumps(rows).encode())
    sent = [packed[:-9], packed]
    with peer(vendor_peer(lambda _: full_response(sent.pop(0), 200, "content-encoding: gzip"))) as server:
        teacher = HttpTeacher(open_wire(server.url), policy=RetryPolicy(first=0.001))
        assert teacher.embed_texts(["a"]).tolist() == [[1, 2, 3, 4]]
        assert server.posts == 2


@pytest.mark.parametrize("where", ["models", "embeddings"])
def test_deeply_nested_json_is_an_error_with_a_reason(where: str) -> None:
    deep = b"[" * 100_000

    def answer(method: str, *_: object) -> Iterable[bytes | float]:
        return full_response(deep if where == "embeddings" or method == "GET" else MODELS)

    with peer(answer if where == "models" else vendor_peer(lambda _: full_response(deep))) as server:
        assert buy(server.url).found == "too deeply nested JSON"
        assert server.posts == (where == "embeddings")


@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize("where", ["models", "embeddings"])
@pytest.mark.parametrize("error", [{"message": "the model is gone"}, "the model is gone"])
def test_an_error_with_a_status_of_success_is_shown_and_not_repeated(where: str, error: object, status: int) -> None:
    body = {"error": error}
    account = CountingAccount()

    def answer(method: str, *_: object) -> Iterable[bytes | float]:
        return full_response(body, status)

    with peer(answer if where == "models" else vendor_peer(lambda _: full_response(body, status))) as server:
        shown = buy(server.url, account=account)
        assert server.posts <= 1
    assert shown.found == "the model is gone"
    assert account.spent == (where == "embeddings"), "work may have been done before the error"


def test_an_overload_with_a_status_of_success_is_tried_again() -> None:
    rows = {"data": [{"index": 0, "embedding": [1.0, 2.0, 3.0, 4.0]}]}
    sent = [{"error": {"message": "busy", "code": 503}}, {"error": {"message": "slow down", "code": "429"}}, rows]
    with peer(vendor_peer(lambda _: full_response(sent.pop(0)))) as server:
        teacher = HttpTeacher(open_wire(server.url), policy=RetryPolicy(first=0.001))
        assert teacher.embed_texts(["a"]).shape == (1, 4)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_names_its_target_and_is_not_followed(status: int) -> None:
    moved = "https://new.example/api/v1/embeddings?token=abc"
    with peer(vendor_peer(lambda _: full_response(b"", status, f"location: {moved}"))) as server:
        error = buy(server.url)
        assert server.posts == 1
    assert error.found == "a redirect to https://new.example/api/v1, which vl2v does not follow"
    assert error.next_step.endswith("use that address: https://new.example/api/v1")
    assert "abc" not in str(error)


def test_a_redirect_without_a_target_is_an_error() -> None:
    with peer(vendor_peer(lambda _: full_response(b"", 302))) as server:
        assert buy(server.url).found == "a redirect without a target"


# Keys


@pytest.mark.parametrize(
    "host", ["10.0.0.5:8080", "vendor.example", "[2001:db8::1]:80", "0.0.0.0:80", "127.0.0.1.nip.io"]
)
def test_a_key_is_not_sent_over_plain_http(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("VL2V_API_KEY", KEY)
    sent: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json=MODELS)

    def ask(url: str) -> None:
        HttpTeacher(open_wire(url), transport=httpx.MockTransport(handler)).describe()

    with pytest.raises(TeacherError, match="unencrypted") as caught:
        ask(f"http://{host}/v1")
    assert not sent
    assert "unset VL2V_API_KEY" in caught.value.next_step
    assert KEY not in str(caught.value)
    ask(f"https://{host}/v1")
    assert len(sent) == 1
    monkeypatch.delenv("VL2V_API_KEY")
    ask(f"http://{host}/v1")
    assert "authorization" not in sent[1].headers


def test_no_key_is_requested_that_could_not_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vl2v.teacher.http.client.ask_for", lambda *_: pytest.fail("a key was requested"))
    transport = httpx.MockTransport(lambda _: httpx.Response(401, json={"error": {"message": "a key, please"}}))
    with pytest.raises(TeacherError, match="unencrypted"):
        HttpTeacher(open_wire("http://10.0.0.5/v1"), transport=transport).describe()


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_loopback_server_is_queried_without_the_proxy(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VL2V_API_KEY", KEY)
    with peer(lambda *_: full_response(MODELS)) as proxy, peer(lambda *_: full_response(MODELS)) as server:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.server_port}")
        HttpTeacher(open_wire(server.url)).describe()
        assert [headers["authorization"] for _, _, headers in server.seen] == [f"Bearer {KEY}"]
        assert not proxy.seen


def test_another_host_is_queried_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with peer(lambda *_: full_response(MODELS)) as proxy:
        monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy.server_port}")
        HttpTeacher(open_wire("http://models.example/v1")).describe()
        assert proxy.seen[0][1] == "http://models.example/v1/models"
    monkeypatch.setenv("no_proxy", "models.example")
    assert proxy_for("http://models.example/v1") is None
    assert proxy_for("http://other.example/v1") == f"http://127.0.0.1:{proxy.server_port}"


def test_loopback_hosts_are_local() -> None:
    assert all(map(is_local, ["localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1"]))
    assert not any(
        map(is_local, ["", "0.0.0.0", "10.0.0.1", "localhost.example", "::", "::ffff:10.0.0.1", "127.1.evil"])
    )


@pytest.mark.parametrize(
    "spec",
    [
        *("http://[::1/v1", "http://host:99999/v1", "http://:8080/v1", "azure:http://[x", "http:///"),
        *("https://exa mple/v1", "http://host%20/v1", "http://<host>/v1"),
    ],
)
def test_a_malformed_address_is_an_error_with_an_example(spec: str) -> None:
    with pytest.raises(TeacherError, match="malformed"):
        open_wire(spec)
