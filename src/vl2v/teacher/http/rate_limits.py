"""Rate limits of a vendor: requests, images and tokens per minute, and pauses that the vendor requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from vl2v.teacher.http.packing import Limits
from vl2v.teacher.http.remote import AbandonedError


def pause(seconds: float, stop: threading.Event | None) -> None:
    """Sleep, unless the purchase is being stopped.

    Raises:
        AbandonedError: if `stop` is set before the time is over.
    """
    if stop is None:
        time.sleep(max(0.0, seconds))
    elif stop.wait(max(0.0, seconds)):
        raise AbandonedError


class RateLimiter:
    """A rate limiter that spreads requests evenly over time."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._rates = {
            "requests": limits.requests_per_minute,
            "images": limits.images_per_minute,
            "tokens": limits.tokens_per_minute,
        }
        self._clock = clock
        self._free = dict.fromkeys(self._rates, clock())
        self._resume = 0.0
        self._lock = threading.Lock()

    def reserve(self, **amounts: float) -> float:
        """Reserve the next free time for ``requests``, ``images`` and ``tokens``; return the seconds to wait."""
        with self._lock:
            now = self._clock()
            start = max(now, self._resume, *(self._free[n] for n in amounts if self._rates[n]))
            for name, amount in amounts.items():
                if rate := self._rates[name]:
                    self._free[name] = start + amount * 60 / rate
            return start - now

    def pause_all(self, seconds: float) -> None:
        """Pause all requests because the vendor requested it."""
        with self._lock:
            self._resume = max(self._resume, self._clock() + seconds)

    @property
    def paused(self) -> float:
        """Remaining seconds of a pause; 0 without one."""
        with self._lock:
            return max(0.0, self._resume - self._clock())
