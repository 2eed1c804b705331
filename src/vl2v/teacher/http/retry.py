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
from vl2v.teacher.http.limits import pause


@dataclass(frozen=True)
class Patience:
    """How long one order is tried; times in seconds.

    Attributes:
        attempts: attempts that may have cost something, or found nobody.
        first: the first wait; each further one is twice as long, with jitter between half and all of it.
        longest: the longest wait of our own.
        asked: the longest wait that a vendor may ask for by Retry-After.
        total: the sum of all waits.
        spoilt: complete but unusable answers accepted from a vendor that charges for each.
    """

    attempts: int = 8
    first: float = 0.5
    longest: float = 30.0
    asked: float = 600.0
    total: float = 1800.0
    spoilt: int = 2


@dataclass
class Failure(Exception):  # noqa: N818 - one attempt's end, seldom an error of anybody's
    """One attempt brought no usable answer.

    Attributes:
        why: in a few words, without secrets.
        error: what the user is told if this was the last attempt.
        final: whether trying again is of no use.
        charged: whether it may have been charged.
        down: whether the vendor seems to be out of order, rather than saying no.
        spoilt: whether a complete answer came that cannot be used.
        wait: seconds that the vendor asked for.
        wasted: whether it was charged and no repetition of the order can be used, e.g. because the model changed.
        cost: what a wasted answer cost, if the vendor says so.
    """

    why: str
    error: TeacherError
    final: bool = False
    charged: bool = True
    down: bool = False
    spoilt: bool = False
    wait: float | None = None
    wasted: bool = False
    cost: Decimal | None = None


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds to wait by a Retry-After header, which holds seconds or a date; None if there is nothing to go by.

    Args:
        value: the header.
        now: the time, for tests.
    """
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
class Tries:
    """The attempts at one order.

    Args:
        patience: how long.
        rng: source of the jitter.
    """

    patience: Patience
    rng: random.Random = field(default_factory=random.Random)
    failed: int = 0
    spoilt: int = 0
    waited: float = 0.0
    pauses: int = 0

    def after(self, failure: Failure, idempotent: bool) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            TeacherError: `failure.error`, if there is to be none.
        """
        self.failed += failure.charged or failure.down
        self.spoilt += failure.spoilt
        p = self.patience
        over = self.failed >= p.attempts or self.waited > p.total or (failure.wait or 0) > p.asked
        if failure.final or over or (not idempotent and self.spoilt >= p.spoilt):
            raise failure.error
        own = min(p.longest, p.first * 2.0 ** min(self.pauses, 30)) * self.rng.uniform(0.5, 1)
        wait = own if failure.wait is None else failure.wait + self.rng.uniform(0, p.first)
        self.pauses += 1
        self.waited += wait
        return wait


class Circuit:
    """Stops all requests when a vendor is down, and lets one at a time find out whether it is back.

    Args:
        threshold: failures in a row, of all threads together, that open it.
        rest: seconds of the first rest; each further one is twice as long.
        rests: rests in a row after which the vendor is given up.
        clock: seconds, for tests.
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
        """Wait until a request may be sent; returns whether it is the one that tries a vendor that was down.

        Every `enter` is followed by one `leave`.

        Raises:
            TeacherError: if the vendor was given up.
            AbandonedError: if `stop` is set.
        """
        while True:
            with self._lock:
                if self._opened > self._rests:
                    raise TeacherError(
                        "The vendor does not answer.",
                        expected="an answer",
                        found=f"{self._failures} failures in a row",
                        next_step="check whether it is available, then try again: what was bought is saved",
                    )
                rest = self._until - self._clock()
                if not self._opened:
                    return False
                if rest <= 0 and not self._probing:
                    self._probing = True
                    return True
            pause(min(max(rest, 0.02), 1.0), stop)

    def leave(self, probe: bool, up: bool | None) -> None:
        """Tell how a request went.

        Args:
            probe: what `enter` returned.
            up: whether the vendor answered like one that works; None if nothing was learnt.
        """
        with self._lock:
            self._probing = self._probing and not probe
            if up:
                self._failures = self._opened = 0
            elif up is not None:
                self._failures += 1
                if probe or (not self._opened and self._failures >= self._threshold):
                    self._until = self._clock() + self._rest * 2.0**self._opened
                    self._opened += 1
