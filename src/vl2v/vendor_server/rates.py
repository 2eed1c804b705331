"""Rate limits: a token bucket per account."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from vl2v.vendor_server.accounts import Account
from vl2v.web.faults import ApiError


@dataclass
class _Bucket:
    tokens: float
    time: float


class Rates:
    """The token buckets of all accounts; the requests of one minute may arrive at once.

    Args:
        clock: returns a monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, account: Account, headers: dict[str, str]) -> None:
        """Count one request of an account.

        Args:
            headers: headers of the response, to which ``x-ratelimit-*`` are added.

        Raises:
            ApiError: 429, with the seconds to wait, if the limit is exceeded.
        """
        limit = account.requests_per_minute
        if limit is None:
            return
        now = self._clock()
        bucket = self._buckets.setdefault(account.id, _Bucket(limit, now))
        bucket.tokens = min(limit, bucket.tokens + (now - bucket.time) * limit / 60)
        bucket.time = now
        allowed = bucket.tokens >= 1
        bucket.tokens -= allowed
        headers["x-ratelimit-limit-requests"] = str(limit)
        headers["x-ratelimit-remaining-requests"] = str(int(bucket.tokens))
        headers["x-ratelimit-reset-requests"] = f"{(limit - bucket.tokens) * 60 / limit:.3f}s"
        if not allowed:
            message = f"This key may send {limit} requests per minute; retry after the time in retry-after."
            raise ApiError(429, "rate_limited", message, retry_after=(1 - bucket.tokens) * 60 / limit)
