"""Rate limits of a vendor: requests, images and tokens per minute, and pauses on request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from vl2v.teacher.http.packing import Limits
from vl2v.teacher.http.remote import AbandonedError


def pause(seconds: float, stop: threading.Event | None) -> None:
    """Sleep, unless the purchase is being stopped.

    Raises:
        AbandonedError: if `stop` is set before or meanwhile.
    """
    if stop is None:
        time.sleep(max(0.0, seconds))
    elif stop.wait(max(0.0, seconds)):
        raise AbandonedError


class Pace:
    """Spreads requests evenly, so that no minute holds more than the limits say.

    Args:
        limits: the vendor's.
        clock: seconds, for tests.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._rates = {
            "requests": limits.requests_per_minute,
            "images": limits.images_per_minute,
            "tokens": limits.tokens_per_minute,
        }
        self._clock = clock
        self._free = dict.fromkeys(self._rates, clock())
        self._held = 0.0
        self._lock = threading.Lock()

    def turn(self, **amounts: float) -> float:
        """Take a turn for so many ``requests``, ``images`` and ``tokens``; returns the seconds to wait first."""
        with self._lock:
            now = self._clock()
            start = max(now, self._held, *(self._free[n] for n in amounts if self._rates[n]))
            for name, amount in amounts.items():
                if rate := self._rates[name]:
                    self._free[name] = start + amount * 60 / rate
            return start - now

    def hold(self, seconds: float) -> None:
        """Nobody sends for so long: the vendor asked for it."""
        with self._lock:
            self._held = max(self._held, self._clock() + seconds)

    @property
    def held(self) -> float:
        """Seconds for which nobody may send, 0 if anybody may."""
        with self._lock:
            return max(0.0, self._held - self._clock())
