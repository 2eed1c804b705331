"""Retries: back-off with jitter, Retry-After, and a circuit breaker."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime

from vl2v.errors import TeacherError
from vl2v.teacher.http.rate_limits import pause


@dataclass(frozen=True)
class RetryPolicy:
    """Limits on the retries of one order; times in seconds.

    Attributes:
        attempts: maximum number of attempts that may have been charged, or did not reach the vendor.
        first: first wait. Each further wait is twice as long, with jitter between half and all of it.
        longest: longest wait, except for Retry-After.
        requested: longest wait that a vendor may request with Retry-After.
        total: maximum sum of all waits.
        unusable: maximum number of complete but unusable responses from a vendor that charges for each.
    """

    attempts: int = 8
    first: float = 0.5
    longest: float = 30.0
    requested: float = 600.0
    total: float = 1800.0
    unusable: int = 2


FIRST_ATTEMPTS = 4  # without any connection to the vendor so far, which takes about 3 s if it is refused
LONG = 5.0  # seconds from which each wait is shown


@dataclass
class Failure(Exception):  # noqa: N818 - the end of one attempt, which is usually retried
    """One attempt had no usable response.

    Attributes:
        why: the reason in a few words, without secrets.
        error: the error to raise if this was the last attempt.
        final: whether another attempt is useless.
        charged: whether the attempt may have been charged.
        down: whether the vendor seems to be down, rather than rejecting the request.
        unusable: whether the response was complete but unusable.
        wait: seconds to wait as requested by the vendor; None without a request.
        wasted: whether the attempt was charged and repeating it is useless, e.g. because the model changed.
        cost: cost of a wasted attempt, if the vendor states it.
        unreached: whether there was no connection to the vendor.
    """

    why: str
    error: TeacherError
    final: bool = False
    charged: bool = True
    down: bool = False
    unusable: bool = False
    wait: float | None = None
    wasted: bool = False
    cost: Decimal | None = None
    unreached: bool = False


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds of a Retry-After header, which contains seconds or a date; None without a valid one."""
    if not value:
        return None
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return None
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (date - (now or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


@dataclass
class Retries:
    """The attempts at one order.

    Attributes:
        reached: returns whether the vendor has responded to any request.
        tell: called before a wait that the user should know about, with what follows it and its seconds.
    """

    policy: RetryPolicy
    rng: random.Random = field(default_factory=random.Random)
    reached: Callable[[], bool] = lambda: True
    tell: Callable[[str, float], None] = lambda text, seconds: None
    failed: int = 0
    unusable: int = 0
    waited: float = 0.0
    pauses: int = 0

    def after(self, failure: Failure, idempotent: bool) -> float:
        """Count a failed attempt and return the seconds to wait before the next one.

        Raises:
            TeacherError: `failure.error`, if there is no further attempt.
        """
        self.failed += failure.charged or failure.down
        self.unusable += failure.unusable
        policy = self.policy
        attempts = min(policy.attempts, FIRST_ATTEMPTS) if failure.unreached and not self.reached() else policy.attempts
        over = self.failed >= attempts or self.waited > policy.total or (failure.wait or 0) > policy.requested
        if failure.final or over or (not idempotent and self.unusable >= policy.unusable):
            raise failure.error
        backoff = min(policy.longest, policy.first * 2.0 ** min(self.pauses, 30)) * self.rng.uniform(0.5, 1)
        wait = backoff if failure.wait is None else failure.wait + self.rng.uniform(0, policy.first)
        self.pauses += 1
        self.waited += wait
        if failure.down or wait >= LONG:
            counted = failure.charged or failure.down
            following = f"attempt {self.failed + 1} of {attempts}" if counted else "the next attempt"
            self.tell(f"{failure.why}; {following}", wait)
        return wait


class CircuitBreaker:
    """A circuit breaker that pauses all requests while a vendor is down, and sends single requests as probes.

    Args:
        threshold: number of consecutive failures, over all threads, that opens the circuit.
        rest: first pause in seconds; each further pause is twice as long.
        rests: maximum number of consecutive pauses.
    """

    def __init__(
        self, threshold: int = 10, rest: float = 10.0, rests: int = 5, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._threshold, self._rest, self._rests, self._clock = threshold, rest, rests, clock
        self._failures = self._opened = 0
        self._until = 0.0
        self._probing = False
        self._lock = threading.Lock()

    def enter(self, stop: threading.Event | None) -> bool:
        """Wait until a request may be sent. Each call must be followed by one call of `leave`.

        Returns:
            Whether the request is a probe of a vendor that was down.

        Raises:
            TeacherError: if the vendor is still down after the last pause.
            AbandonedError: if `stop` is set.
        """
        while True:
            with self._lock:
                if self._opened > self._rests:
                    raise TeacherError(
                        "The vendor does not respond.",
                        expected="a response",
                        found=f"{self._failures} consecutive failures",
                        next_step="check whether it is available, then try again: embeddings bought so far are saved",
                    )
                rest = self._until - self._clock()
                if not self._opened:
                    return False
                if rest <= 0 and not self._probing:
                    self._probing = True
                    return True
            pause(min(max(rest, 0.02), 1.0), stop)

    def leave(self, probe: bool, up: bool | None) -> float:
        """Record the outcome of a request, and return the seconds of a pause that starts now; 0 without one.

        Args:
            probe: the value that `enter` returned.
            up: whether the vendor seems to be up; None if unknown.
        """
        with self._lock:
            self._probing = self._probing and not probe
            if up:
                self._failures = self._opened = 0
            elif up is not None:
                self._failures += 1
                if probe or (not self._opened and self._failures >= self._threshold):
                    pause_of_all = self._rest * 2.0**self._opened
                    self._until = self._clock() + pause_of_all
                    self._opened += 1
                    return pause_of_all
        return 0.0
