"""Batch jobs of a vendor: many requests that are answered within hours, at a lower price."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, Protocol, TypeVar

from vl2v.errors import TeacherError
from vl2v.teacher.http.exchange import Exchange
from vl2v.teacher.http.rate_limits import pause
from vl2v.teacher.http.remote import Order
from vl2v.teacher.http.retry import Failure, RetryPolicy

T = TypeVar("T")

FULL = "HTTP 429"
APPEAR = 10  # multiple of the first wait after which a job whose creation had no response is searched for


@dataclass(frozen=True)
class Refusal:
    """A request of a job that has no embedding; `final` says that repeating it is useless."""

    why: str
    final: bool


@dataclass(frozen=True)
class JobState:
    """The state of a job.

    Attributes:
        name: the vendor's name of the job.
        state: the vendor's word for the state, in lower case.
        done: number of requests that were processed so far.
        billed: number of requests that succeeded, according to the vendor.
        answers: for each request, D numbers or a refusal; None if there are no results.
        why: the vendor's message about a job that failed.
    """

    name: str
    state: str
    ended: bool
    done: int
    billed: int
    answers: list[list[float] | Refusal] | None
    why: str = ""


class BatchApi(Protocol):
    """The batch API of a vendor, for images.

    Attributes:
        images: maximum number of images in a job.
        request_bytes: maximum size in bytes of the request that creates a job.
        jobs: maximum number of jobs at the vendor at a time.
        usual: time within which the vendor aims to finish a job.
        expires: time after which it gives up a job.
    """

    images: int
    request_bytes: int
    jobs: int
    usual: timedelta
    expires: timedelta

    @property
    def create_url(self) -> str:
        """URL to which the request that creates a job is posted."""
        ...

    def request(self, label: str, images: Sequence[bytes]) -> bytes:
        """Return the request that creates a job, as JSON."""
        ...

    def job_url(self, name: str) -> str:
        """Return the URL of a job."""
        ...

    def list_url(self, page: str) -> str:
        """Return the URL of a page of the list of jobs; the first page is empty."""
        ...

    def state(self, answer: Any, count: int = 0) -> JobState:
        """Return the state of a job of `count` requests.

        Raises:
            LookupError, TypeError, ValueError: if the response has an unexpected format.
        """
        ...

    def page(self, answer: Any) -> tuple[dict[str, str], str]:
        """Return the names of jobs by label, and the next page (empty after the last one); errors as in `state`."""
        ...


class Jobs:
    """Creates, finds and reads the batch jobs of one vendor. A job is never created again without a search for it."""

    def __init__(self, api: BatchApi, exchange: Exchange, policy: RetryPolicy, rng: random.Random) -> None:
        self.api, self._exchange, self._policy, self._rng = api, exchange, policy, rng

    def submit(self, label: str, images: Sequence[bytes], patient: bool = True) -> str:
        """Create a job and return its name.

        Args:
            label: a new name, by which the job is found if the response is lost.
            patient: whether to wait if the vendor takes no further job now.

        Raises:
            Failure: if there is no job. `why` is `FULL` if the vendor takes no further job now, and `charged` is false
                if there is certainly none.
        """
        order = Order("image", len(images), self.api.request(label, images), "application/json", Decimal(0), label)
        retries, created = self._exchange.retries(self._policy, self._rng), self.api.create_url
        while True:
            try:
                return self._parsed(lambda: self.api.state(self._exchange.send("POST", created, order)).name)
            except Failure as failure:
                if failure.why == FULL and not patient:
                    raise
                try:
                    wait = retries.after(failure, True)
                except TeacherError:
                    raise failure from None
                pause(max(wait, APPEAR * self._policy.first) if failure.charged else wait, None)
                if failure.charged and (name := self.find(label)):
                    return name

    def find(self, label: str) -> str | None:
        """Return the name of the job with a label; None if the vendor has none.

        Raises:
            TeacherError: if the list cannot be read.
        """
        page = ""
        while True:
            names, page = self._read(self.api.list_url(page), self.api.images, self.api.page)
            if label in names or not page:
                return names.get(label)

    def find_late(self, label: str) -> str | None:
        """Return what `find` does, but search again later for a job that the vendor does not list yet."""
        name = self.find(label)
        if name is None:
            pause(APPEAR * self._policy.first, None)
            name = self.find(label)
        return name

    def state(self, name: str, count: int) -> JobState | None:
        """Return the state of a job of `count` requests; None if the vendor does not know the job.

        Raises:
            TeacherError: if it cannot be read.
        """
        try:
            job = self._read(self.api.job_url(name), count, lambda answer: self.api.state(answer, count))
        except TeacherError as error:
            if "HTTP 404" in error.problem:
                return None
            raise
        clean, answers = self._exchange.clean, job.answers
        if answers is not None:
            answers = [replace(a, why=clean(a.why)) if isinstance(a, Refusal) else a for a in answers]
        return replace(job, state=clean(job.state), why=clean(job.why), answers=answers)

    def _read(self, url: str, rows: int, parse: Callable[[Any], T]) -> T:
        retries = self._exchange.retries(self._policy, self._rng)
        while True:
            try:
                return self._parsed(lambda: parse(self._exchange.send("GET", url, None, rows)))
            except Failure as failure:
                pause(retries.after(failure, True), None)

    def _parsed(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self._exchange.unreadable(error) from None
