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
    """The buckets of all accounts; one minute's requests may come at once.

    Args:
        clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, account: Account, headers: dict[str, str]) -> None:
        """Count one request of an account.

        Args:
            account: whose.
            headers: is given the ``x-ratelimit-*`` headers of the answer.

        Raises:
            ApiError: 429, with the seconds to wait.
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
