from __future__ import annotations

import random
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from misbehaving_vendor import UnreliableVendor, picture
from test_unreliable_vendor import buy, teacher_of

from vl2v.errors import TeacherError
from vl2v.teacher.http.packing import Limits
from vl2v.teacher.http.rate_limits import RateLimiter, pause
from vl2v.teacher.http.remote import AbandonedError
from vl2v.teacher.http.retry import CircuitBreaker, Failure, Retries, RetryPolicy, retry_after
from vl2v.teacher.purchase.store import EmbeddingStore

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
FAULT = TeacherError("no")


class Clock:
    """A clock that advances only during sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float, stop: threading.Event | None = None) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        ("Tue, 24 Nov 2026 13:00:30 +0100", 30.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        (None, None),
    ],
)
def test_both_forms_of_retry_after_are_read(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_every_thread_waits_as_long_as_the_vendor_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    waits_taken: list[float] = []
    monkeypatch.setattr(RateLimiter, "pause_all", lambda self, seconds: waits_taken.append(seconds))
    monkeypatch.setattr("vl2v.teacher.http.client.pause", lambda seconds, stop: waits_taken.append(seconds))
    store = EmbeddingStore(tmp_path / "s.sqlite")
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    extra = {"retry-after": "39" if form == "seconds" else date}
    with UnreliableVendor(script=["429"], extra=extra) as vendor:
        assert buy(teacher_of(vendor), store, [picture(0)], Decimal(1)) == 1
    waits = [seconds for seconds in waits_taken if seconds > 1]
    assert len(waits) == 2  # one for all threads, one for the thread itself
    assert all(37 < seconds < 41 for seconds in waits)
    store.close()


def test_too_long_a_wait_is_refused(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "s.sqlite")
    with UnreliableVendor(script=["429"], extra={"retry-after": "86400"}) as vendor:
        with pytest.raises(TeacherError, match="HTTP 429"):
            buy(teacher_of(vendor), store, [picture(0)], Decimal(1))
        assert vendor.meter.requests == 1
    store.close()


@given(st.integers(0, 2**32 - 1))
def test_waits_grow_and_are_spread(seed: int) -> None:
    policy = RetryPolicy(attempts=100, first=0.5, longest=8.0)
    retries = Retries(policy, random.Random(seed))
    waits = [retries.after(Failure("x", FAULT), True) for _ in range(8)]
    for i, wait in enumerate(waits):
        full = min(8.0, 0.5 * 2**i)
        assert full / 2 <= wait <= full


def test_refusals_use_up_the_waiting_time_and_not_the_attempts() -> None:
    retries = Retries(RetryPolicy(attempts=2, first=1.0, longest=10.0, total=100.0), random.Random(0))
    refused = Failure("HTTP 429", FAULT, charged=False)
    waits = 0
    while retries.waited <= 100:
        assert retries.after(refused, True) > 0
        waits += 1
    assert waits > 10
    with pytest.raises(TeacherError):
        retries.after(refused, True)


def test_a_final_failure_is_never_tried_again() -> None:
    with pytest.raises(TeacherError):
        Retries(RetryPolicy()).after(Failure("x", FAULT, final=True), True)


def test_the_circuit_opens_probes_once_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("vl2v.teacher.http.retry.pause", clock.sleep)
    circuit = CircuitBreaker(threshold=3, rest=10.0, rests=2, clock=clock)
    for _ in range(3):
        assert circuit.enter(None) is False
        circuit.leave(False, False)
    circuit.leave(False, False)  # a request that was in flight does not open it further
    assert circuit.enter(None) is True
    assert clock.now == pytest.approx(110.0)
    circuit.leave(True, False)
    assert circuit.enter(None) is True
    assert clock.now == pytest.approx(130.0)
    circuit.leave(True, True)
    assert circuit.enter(None) is False
    circuit.leave(False, True)


def test_only_one_request_probes_whether_a_vendor_has_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = CircuitBreaker(threshold=1, rest=0.0)
    circuit.leave(circuit.enter(None), False)
    probe = circuit.enter(None)
    assert probe is True
    stop = threading.Event()
    stop.set()
    with pytest.raises(AbandonedError):
        circuit.enter(stop)
    circuit.leave(probe, True)
    assert circuit.enter(None) is False


def test_a_vendor_that_stays_down_ends_the_purchase(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("vl2v.teacher.http.retry.pause", clock.sleep)
    circuit = CircuitBreaker(threshold=1, rest=1.0, rests=2, clock=clock)
    for _ in range(3):
        circuit.leave(circuit.enter(None), False)
    with pytest.raises(TeacherError, match="does not respond"):
        circuit.enter(None)
    assert clock.now == pytest.approx(100 + 1 + 2)


def test_an_unreachable_vendor_is_reported_within_the_waiting_time(tmp_path: Path) -> None:
    with UnreliableVendor() as vendor:
        gone = teacher_of(vendor)
    with pytest.raises(TeacherError, match=r"no usable response(.|\n)*ConnectError(.|\n)*next: check the address"):
        gone.describe()


@given(st.lists(st.integers(1, 50), min_size=2, max_size=40), st.integers(1, 600))
def test_no_minute_has_more_requests_than_the_rate_limit(images: list[int], rate: int) -> None:
    clock = Clock()
    limiter = RateLimiter(Limits(1, 1, requests_per_minute=120, images_per_minute=rate), clock)
    sent: list[tuple[float, int]] = []
    for count in images:
        clock.now += limiter.reserve(requests=1, images=count)
        sent.append((clock.now, count))
    for i, (begin, _) in enumerate(sent):
        within = [count for at, count in sent[i:] if at < begin + 60 - 1e-6]
        assert len(within) <= 121
        assert sum(within[:-1]) <= rate + 1e-6  # the last one has just started


def test_all_threads_wait_while_the_vendor_requests_it() -> None:
    clock = Clock()
    limiter = RateLimiter(Limits(1, 1), clock)
    limiter.pause_all(5.0)
    assert limiter.reserve(requests=1, tokens=1e9) == pytest.approx(5.0)
    assert limiter.paused == pytest.approx(5.0)
    clock.now += 5
    assert limiter.paused == 0


def test_a_pause_ends_when_the_purchase_does() -> None:
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(AbandonedError):
        pause(30.0, stop)


def test_the_number_of_requests_in_flight_is_limited(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "s.sqlite")
    with UnreliableVendor(max_batch=2, work=0.01) as vendor:
        buy(teacher_of(vendor, "concurrency=3"), store, [picture(i) for i in range(40)], Decimal(1))
        assert 1 < vendor.meter.most_in_flight <= 3
    store.close()
