"""A vendor that cannot be reached: the user sees each wait, and a first request gives up soon."""

from __future__ import annotations

import contextvars

import httpx
import pytest

from vl2v.errors import TeacherError
from vl2v.progress import Silent, use_for_command
from vl2v.teacher.http.client import HttpTeacher
from vl2v.teacher.http.retry import FIRST_ATTEMPTS, CircuitBreaker, RetryPolicy
from vl2v.teacher.http.uri import open_wire

MODELS = {"data": [{"id": "m", "vl2v": {"dimension": 4, "revision": "1"}}]}
REFUSED = httpx.ConnectError("[Errno 111] Connection refused")


class Warnings(Silent):
    """Records warnings."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, text: str) -> None:
        self.texts.append(text)


def attempts(responses: list[httpx.Response | Exception], policy: RetryPolicy) -> tuple[int, list[str]]:
    """Query a vendor until it fails; return the number of requests and the warnings. The last response repeats."""
    sent, said = 0, Warnings()

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal sent
        sent += 1
        response = responses[min(sent, len(responses)) - 1]
        if isinstance(response, Exception):
            raise response
        return response

    def work() -> None:
        use_for_command(said)
        circuit = CircuitBreaker(threshold=3, rest=0.001)
        teacher = HttpTeacher(open_wire("http://127.0.0.1:9/v1"), policy=policy, circuit=circuit,
                              transport=httpx.MockTransport(handler))  # fmt: skip
        with pytest.raises(TeacherError):
            teacher.describe()

    contextvars.copy_context().run(work)
    return sent, said.texts


@pytest.mark.parametrize("error", [REFUSED, httpx.ConnectTimeout("")])
def test_a_first_request_without_a_connection_gives_up_soon(error: Exception) -> None:
    sent, texts = attempts([error], RetryPolicy(first=0.001))
    assert sent == FIRST_ATTEMPTS
    why = str(error) or "ConnectTimeout"
    for number, text in enumerate([text for text in texts if "attempt" in text], 2):
        assert text.startswith("http://127.0.0.1:9/v1: ")
        assert why in text
        assert f"attempt {number} of {FIRST_ATTEMPTS} in 1 s" in text


@pytest.mark.parametrize("first", [httpx.Response(503), httpx.Response(429), httpx.Response(200, text="{")])
def test_a_vendor_that_has_responded_is_tried_more_often(first: httpx.Response) -> None:
    assert attempts([first, REFUSED], RetryPolicy(first=0.001))[0] > FIRST_ATTEMPTS


def test_a_long_wait_that_the_vendor_requests_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vl2v.teacher.http.client.pause", lambda seconds, stop: None)
    texts = attempts([httpx.Response(429, headers={"retry-after": "60"})], RetryPolicy(first=0.001, total=1000))[1]
    assert texts == ["http://127.0.0.1:9/v1: HTTP 429; the next attempt in 60 s"]
    short = attempts([httpx.Response(429, headers={"retry-after": "1"})], RetryPolicy(first=0.001, total=10))[1]
    assert short == []
