"""The HTTP client for all vendors: sends requests, checks responses, retries."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import cached_property
from typing import Any, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray

from vl2v.addresses import host_of, is_local
from vl2v.errors import TeacherError, Vl2vError
from vl2v.teacher.base import Embeddings, TeacherCard, checked
from vl2v.teacher.http.exchange import Exchange
from vl2v.teacher.http.jobs import Jobs
from vl2v.teacher.http.keys import ask_for, unencrypted_key
from vl2v.teacher.http.packing import Limits, fit_image, image_size, pack, text_size
from vl2v.teacher.http.rate_limits import RateLimiter, pause
from vl2v.teacher.http.remote import Account, Answer, Kind, Order, Origin
from vl2v.teacher.http.retry import CircuitBreaker, Failure, RetryPolicy
from vl2v.teacher.http.vendors.base import Wire
from vl2v.teacher.origin import other_revision

T = TypeVar("T")


class HttpTeacher:
    """A teacher that is queried over HTTP.

    Args:
        circuit: circuit breaker for a vendor that is down.

    Raises:
        MissingExtraError: if a package for its requests is not installed.

    Attributes:
        jobs: the vendor's batch jobs, by which images are bought; None for single requests.
    """

    def __init__(
        self,
        wire: Wire,
        *,
        policy: RetryPolicy | None = None,
        circuit: CircuitBreaker | None = None,
        transport: httpx.BaseTransport | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.wire, self.policy = wire, policy or RetryPolicy()
        self._circuit, self._rng = circuit or CircuitBreaker(), rng or random.Random()
        self._exchange = Exchange(wire, transport)
        wire.need_packages(bool(self._exchange.key))
        self.jobs = Jobs(wire.jobs, self._exchange, self.policy, self._rng) if wire.jobs else None
        self._rate_limiter: RateLimiter | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"HttpTeacher({self.wire.name}:{self.wire.model or self.wire.base})"

    def close(self) -> None:
        """Close the connections."""
        self._exchange.close()

    def describe(self) -> TeacherCard:
        """See `Teacher.describe`. A server is queried only once, free of charge.

        Raises:
            TeacherError: if the server cannot be reached, or its description is incomplete.
        """
        return self._card

    @cached_property
    def _card(self) -> TeacherCard:
        if self.wire.needs_key and not self._exchange.key:
            self._exchange.key = ask_for(self.wire.key_names, self.wire.name)
        card = self.wire.card(self._fetch)
        self.wire.prove(self._ask)
        if not card.dimension:
            card = replace(card, dimension=self._ask("text", ["a"]).shape[-1])
        self._exchange.revision = card.revision
        self._exchange.dimension = card.dimension
        return card

    def _ask(self, kind: Kind, items: Sequence[Any]) -> NDArray[Any]:
        """Embed inputs with a free vendor; the response is not validated."""
        order = self.order(kind, items)
        policy = replace(self.policy, attempts=2)
        return self._until_answered(
            lambda: self._exchange.rows(order, self._post(order))[0], Account(), None, policy=policy
        )

    @property
    def price_note(self) -> str:
        """A remark about the price, or empty; also about a price of the adapter's table that is old."""
        self.describe()
        return "; ".join(filter(None, (self.wire.price_note, self.wire.age_note(date.today()))))

    @cached_property
    def limits(self) -> Limits:
        """The limits of the vendor on requests, with the options after ``#`` in the teacher's URI."""
        _, o, stated = self._card, self.wire.options, self.wire.limits
        return replace(
            stated,
            requests_per_minute=o.rpm or stated.requests_per_minute,
            images_per_minute=o.ipm or stated.images_per_minute,
            tokens_per_minute=o.tpm or stated.tokens_per_minute,
            concurrency=o.concurrency or stated.concurrency,
        )

    @property
    def timeout(self) -> float:
        """Time limit of a request in seconds."""
        return self._exchange.timeout

    @property
    def idempotent(self) -> bool:
        """Whether the vendor charges an idempotency key only once, however often it is sent."""
        return self.wire.idempotent

    def fit(self, image: bytes) -> bytes:
        """Return the bytes to send for an image: unchanged, unless they exceed a limit of the vendor."""
        return fit_image(image, self.limits)

    def order(self, kind: Kind, items: Sequence[Any], salt: str = "") -> Order:
        """Build the request for a batch.

        Args:
            items: image files as bytes, or texts.
            salt: a different salt gives a different key, so that the vendor computes the response again.
        """
        # The key does not depend on the address, so a server may move. It depends on the revision, so that a vendor
        # with a new model does not repeat a response of the old one.
        body, content_type = self.wire.body(kind, items)
        parts = (self.wire.name, self._exchange.revision, kind, content_type, salt, "")
        digest = hashlib.sha256("\0".join(parts).encode() + body)
        return Order(kind, len(items), body, content_type, self.wire.most(kind, items), f"vl2v-{digest.hexdigest()}")

    def fulfil(self, order: Order, account: Account, stop: threading.Event | None = None) -> Answer:
        """Send an order, with retries, until there is a usable response.

        Raises:
            RejectedInputError: if the vendor rejects the inputs.
            TeacherError: if the vendor rejects the request for another reason, or all attempts fail.
            BudgetError: if the budget does not cover another attempt.
            AbandonedError: if `stop` is set before the next attempt.
        """
        with self._lock:
            self._rate_limiter = self._rate_limiter or RateLimiter(self.limits)
        amounts = {"requests": 1.0, "images" if order.kind == "image" else "tokens": float(order.count)}
        if order.kind == "text":
            amounts["tokens"] = len(order.body) / 3  # an English token has about four letters
        return self._until_answered(lambda: self._read(order, self._post(order)), account, stop, amounts)

    def embed_images(self, images: list[bytes]) -> Embeddings:
        """See `Teacher.embed_images`. The queries are not recorded in a ledger; use `Buyer` for that.

        Raises:
            TeacherError: if the vendor rejects the request, or all attempts fail.
        """
        contents = (self.fit(image) for image in images)
        return self._embed("image", pack(contents, image_size, self.limits.images, self.limits))

    def embed_texts(self, texts: list[str]) -> Embeddings:
        """See `Teacher.embed_texts`, and `embed_images`."""
        return self._embed("text", pack(texts, text_size, self.limits.texts, self.limits))

    def _embed(self, kind: Kind, batches: Iterable[Sequence[Any]]) -> Embeddings:
        parts = [np.zeros((0, self._card.dimension), np.float32)]
        parts += [self.fulfil(self.order(kind, batch), Account()).embeddings for batch in batches]
        return np.concatenate(parts)

    def _until_answered(
        self,
        send: Callable[[], T],
        account: Account,
        stop: threading.Event | None,
        amounts: Mapping[str, float] | None = None,
        policy: RetryPolicy | None = None,
    ) -> T:
        retries = self._exchange.retries(policy or self.policy, self._rng)
        while True:
            probe, up = self._circuit.enter(stop), None
            try:
                self._take_turn(amounts, stop)
                account.sending()
                answer = send()
                up = True
                return answer
            except Failure as failure:
                up = not failure.down
                if failure.wasted:
                    account.wasted(failure.why, failure.cost)
                else:
                    (account.lost if failure.charged else account.refused)(failure.why)
                wait, requested = retries.after(failure, self.idempotent), failure.wait
            except Vl2vError as error:  # the request could not be built, so nothing was sent
                account.refused(error.problem)
                raise
            finally:
                if seconds := self._circuit.leave(probe, up):
                    self._exchange.tell(
                        "no response several times in a row; all requests pause, the next one is", seconds
                    )
            if requested is not None and self._rate_limiter is not None:
                self._rate_limiter.pause_all(requested)
            pause(wait, stop)

    def _take_turn(self, amounts: Mapping[str, float] | None, stop: threading.Event | None) -> None:
        if amounts is not None and self._rate_limiter is not None:
            pause(self._rate_limiter.reserve(**amounts), stop)
            while remaining := self._rate_limiter.paused:  # another thread may have received Retry-After
                pause(remaining, stop)

    # One attempt

    def _fetch(self, url: str) -> Any:
        """Fetch JSON from a URL; on a terminal, prompt for a key if the server requires one."""
        try:
            return self._until_answered(lambda: self._exchange.send("GET", url, None), Account(), None)
        except TeacherError as error:
            if self._exchange.key or "HTTP 401" not in error.problem:
                raise
            if not url.startswith("https:") and not is_local(host_of(url)):
                raise unencrypted_key(url, self.wire.key_names) from None
            self._exchange.key = ask_for(self.wire.key_names, url)
            return self._until_answered(lambda: self._exchange.send("GET", url, None), Account(), None)

    def _post(self, order: Order) -> Any:
        return self._exchange.send("POST", self.wire.url(order.kind), order)

    def _read(self, order: Order, answer: Any) -> Answer:
        """Extract the embeddings from a response, and validate them; unusable ones may have been charged."""
        rows, cost = self._exchange.rows(order, answer)
        origin = self._origin(answer)
        if (revision_fault := other_revision(self._card, origin)) is not None:
            raise Failure("another revision", revision_fault, final=True, unusable=True, wasted=True, cost=cost)
        try:
            return Answer(checked(rows, order.count, self._card, order.kind), cost, origin)
        except TeacherError as error:
            other = rows.ndim == 2 and rows.shape[1] != self._card.dimension
            why = error.found
            raise Failure(why, error, final=other, unusable=True, wasted=other, cost=cost if other else None) from error

    def _origin(self, answer: Any) -> Origin:
        """Return the model of a response, as stated in it or else in the vendor's current description."""
        try:
            origin = self.wire.origin(answer)
            if origin.revision is None:
                now = self.wire.origin_now(lambda url: self._exchange.send("GET", url, None))
                origin = replace(now, model=origin.model)
            return origin
        except (Failure, Vl2vError, LookupError, TypeError, ValueError, AttributeError):
            return Origin()  # nothing to compare
