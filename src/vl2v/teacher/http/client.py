"""The HTTP client for all vendors: sends requests, checks responses, retries."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import NDArray

from vl2v.addresses import host_of, is_local
from vl2v.errors import TeacherError, Vl2vError
from vl2v.teacher.base import TeacherCard, Vectors, checked
from vl2v.teacher.http.connection import Connection, Reply, UnusableBodyError, most_bytes
from vl2v.teacher.http.keys import Secret, ask_for, from_environment, unsafe_for_a_key
from vl2v.teacher.http.limits import Pace, pause
from vl2v.teacher.http.packing import Limits, fit_image, image_size, pack, text_size
from vl2v.teacher.http.remote import Account, Answer, Kind, NoAccount, Order, Origin
from vl2v.teacher.http.retry import Circuit, Failure, Patience, Tries, retry_after
from vl2v.teacher.http.vendors.base import Wire, error_code, error_text
from vl2v.teacher.origin import other_revision

TIMEOUT = 120.0  # seconds for a complete response; a large batch may take long on a slow machine
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
REVISION_HEADER = "vl2v-revision"  # the quoted revision; a vendor with another one rejects the request free of charge
LATER = "try again later: the embeddings bought so far are saved, and only the rest is queried"
LONGEST = 300  # maximum number of characters of a vendor's message that are shown
READ = 20 * LONGEST  # bytes in which a key is redacted before the text is cut: half a key would not be recognised
SECRET_HEADERS = {"authorization", "ocp-apim-subscription-key", "x-amz-security-token", "x-goog-api-key"}

T = TypeVar("T")


class HttpTeacher:
    """A teacher that is queried over HTTP.

    Args:
        wire: adapter of the vendor.
        patience: limits on retries.
        circuit: circuit breaker for a vendor that is down.
        transport: replacement for real connections, for tests.
        rng: random numbers for the jitter of retries.
    """

    def __init__(
        self,
        wire: Wire,
        *,
        patience: Patience | None = None,
        circuit: Circuit | None = None,
        transport: httpx.BaseTransport | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.wire, self.patience = wire, patience or Patience()
        self._circuit, self._rng = circuit or Circuit(), rng or random.Random()
        self._http = Connection(wire.base, wire.options.timeout or TIMEOUT, transport)
        self._key = from_environment(wire.key_names)
        self._pace: Pace | None = None
        self._revision = ""  # the quoted revision; set by the description of the teacher
        self._dimension = 0  # 0: unknown until the teacher has been described
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"HttpTeacher({self.wire.name}:{self.wire.model or self.wire.base})"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def describe(self) -> TeacherCard:
        """See `Teacher.describe`. A server is queried only once, free of charge.

        Raises:
            TeacherError: if the server cannot be reached, or its description is incomplete.
        """
        return self._card

    @cached_property
    def _card(self) -> TeacherCard:
        if self.wire.needs_key and not self._key:
            self._key = ask_for(self.wire.key_names, self.wire.name)
        card = self.wire.card(self._fetch)
        self.wire.prove(self._ask)
        if not card.dimension:
            card = replace(card, dimension=self._ask("text", ["a"]).shape[-1])
        self._revision = card.revision
        self._dimension = card.dimension
        return card

    def _ask(self, kind: Kind, items: Sequence[Any]) -> NDArray[Any]:
        """Embed inputs with a free vendor; the response is not validated."""
        order = self.order(kind, items)
        tries = replace(self.patience, attempts=2)
        return self._until_answered(lambda: self._rows(order, self._post(order))[0], NoAccount(), None, patience=tries)

    @property
    def price_note(self) -> str:
        """A remark about the price, or empty; also about a price of the adapter's table that is old."""
        self.describe()
        return "; ".join(filter(None, (self.wire.price_note, self.wire.age_note(date.today()))))

    @cached_property
    def limits(self) -> Limits:
        """See `RemoteTeacher`: the limits of the vendor, with the options after ``#`` in the teacher's URI."""
        _, o, stated = self._card, self.wire.options, self.wire.limits
        return replace(
            stated,
            requests_per_minute=o.rpm or stated.requests_per_minute,
            images_per_minute=o.ipm or stated.images_per_minute,
            tokens_per_minute=o.tpm or stated.tokens_per_minute,
            concurrency=o.concurrency or stated.concurrency,
        )

    @property
    def idempotent(self) -> bool:
        """See `RemoteTeacher`."""
        return self.wire.idempotent

    def fit(self, image: bytes) -> bytes:
        """See `RemoteTeacher.fit`."""
        return fit_image(image, self.limits)

    def order(self, kind: Kind, items: Sequence[Any], salt: str = "") -> Order:
        """See `RemoteTeacher.order`.

        The key does not depend on the address, so a server may move. It depends on the revision, so that a vendor with
        a new model does not repeat a response of the old one.
        """
        body, content_type = self.wire.body(kind, items)
        parts = (self.wire.name, self._revision, kind, content_type, salt, "")
        digest = hashlib.sha256("\0".join(parts).encode() + body)
        return Order(kind, len(items), body, content_type, self.wire.most(kind, items), f"vl2v-{digest.hexdigest()}")

    def fulfil(self, order: Order, account: Account, stop: threading.Event | None = None) -> Answer:
        """See `RemoteTeacher.fulfil`."""
        with self._lock:
            self._pace = self._pace or Pace(self.limits)
        amounts = {"requests": 1.0, "images" if order.kind == "image" else "tokens": float(order.count)}
        if order.kind == "text":
            amounts["tokens"] = len(order.body) / 3  # an English token has about four letters
        return self._until_answered(lambda: self._read(order, self._post(order)), account, stop, amounts)

    def embed_images(self, images: list[bytes]) -> Vectors:
        """See `Teacher.embed_images`. The queries are not recorded in a ledger; use `Buyer` for that.

        Raises:
            TeacherError: if the vendor rejects the request, or all attempts fail.
        """
        fitted = (self.fit(image) for image in images)
        return self._embed("image", pack(fitted, image_size, self.limits.images, self.limits))

    def embed_texts(self, texts: list[str]) -> Vectors:
        """See `Teacher.embed_texts`, and `embed_images`."""
        return self._embed("text", pack(texts, text_size, self.limits.texts, self.limits))

    def _embed(self, kind: Kind, batches: Iterable[Sequence[Any]]) -> Vectors:
        parts = [np.zeros((0, self._card.dimension), np.float32)]
        parts += [self.fulfil(self.order(kind, batch), NoAccount()).vectors for batch in batches]
        return np.concatenate(parts)

    def _until_answered(
        self,
        send: Callable[[], T],
        account: Account,
        stop: threading.Event | None,
        amounts: Mapping[str, float] | None = None,
        patience: Patience | None = None,
    ) -> T:
        tries = Tries(patience or self.patience, self._rng)
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
                wait, asked = tries.after(failure, self.idempotent), failure.wait
            except Vl2vError as error:  # the request could not be built, so nothing was sent
                account.refused(error.problem)
                raise
            finally:
                self._circuit.leave(probe, up)
            if asked is not None and self._pace is not None:
                self._pace.pause_all(asked)
            pause(wait, stop)

    def _take_turn(self, amounts: Mapping[str, float] | None, stop: threading.Event | None) -> None:
        if amounts is not None and self._pace is not None:
            pause(self._pace.turn(**amounts), stop)
            while remaining := self._pace.paused:  # another thread may have received Retry-After
                pause(remaining, stop)

    # One attempt

    def _fetch(self, url: str) -> Any:
        """Fetch JSON from a URL; on a terminal, prompt for a key if the server requires one."""
        try:
            return self._until_answered(lambda: self._exchange("GET", url, None), NoAccount(), None)
        except TeacherError as error:
            if self._key or "HTTP 401" not in error.problem:
                raise
            if not url.startswith("https:") and not is_local(host_of(url)):
                raise unsafe_for_a_key(url, self.wire.key_names) from None
            self._key = ask_for(self.wire.key_names, url)
            return self._until_answered(lambda: self._exchange("GET", url, None), NoAccount(), None)

    def _post(self, order: Order) -> Any:
        return self._exchange("POST", self.wire.url(order.kind), order)

    def _exchange(self, method: str, url: str, order: Order | None) -> Any:
        """Send one request and return the JSON of the response.

        Raises:
            Failure: if there is no usable response.
        """
        headers = self.wire.headers(self._key.reveal())
        body = order.body if order else b""
        if order is not None:
            headers["content-type"] = order.content_type
            if self.wire.idempotent:
                headers["idempotency-key"] = order.key
                headers[REVISION_HEADER] = quote(self._revision)
            headers |= self.wire.sign(url, headers, body)
        self._check_secrecy(url, headers)
        most = most_bytes(order.count if order else 0, self._dimension)
        try:
            reply = self._http.exchange(method, url, headers, body, most)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise self._broken(f"the address cannot be used: {error}", final=True, charged=False) from None
        except httpx.TransportError as error:
            why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            unsafe = "CERTIFICATE_VERIFY_FAILED" in why
            charged = order is not None and not isinstance(error, UNSENT)
            raise self._broken(self._clean(why, headers), final=unsafe, charged=charged, down=True) from None
        except UnusableBodyError as error:
            raise self._broken(str(error), final=error.final, spoilt=True) from None
        return self._answer(reply, headers)

    def _answer(self, reply: Reply, headers: Mapping[str, str]) -> Any:
        """Return the JSON of a response.

        Raises:
            Failure: if the response is an error, also one with a status of success, or is not JSON.
        """
        body: str | bytes = reply.body
        if reply.method == "GET":  # the description of a vendor is shown and saved
            body = self._key.strike(reply.body.decode(errors="replace"))
        try:
            answer = json.loads(body)
        except RecursionError:
            raise self._broken("too deeply nested JSON", final=True, spoilt=True) from None
        except ValueError:
            answer = None
        if not 200 <= reply.status < 300:
            raise self._refusal(reply, answer, headers)
        if answer is None:
            raise self._broken("a body that is not JSON, or is truncated", spoilt=True)
        if isinstance(answer, dict) and answer.get("error"):
            raise self._refusal(reply, answer, headers)
        return answer

    def _check_secrecy(self, url: str, headers: Mapping[str, str]) -> None:
        """Raise an error if a request would send a key unencrypted to another machine.

        Raises:
            TeacherError: if it would; nothing has been sent then.
        """
        key = self._key.reveal()  # the adapter of another package may send it in any header
        secret = SECRET_HEADERS & set(map(str.lower, headers)) or (key and any(key in v for v in headers.values()))
        if secret and not url.startswith("https:") and not is_local(host_of(url)):
            raise unsafe_for_a_key(url, self.wire.key_names)

    def _read(self, order: Order, answer: Any) -> Answer:
        """Extract the embeddings from a response, and validate them.

        Raises:
            Failure: if the embeddings are unusable. They may have been charged.
        """
        rows, cost = self._rows(order, answer)
        origin = self._origin(answer)
        if (changed := other_revision(self._card, origin)) is not None:
            raise Failure("another revision", changed, final=True, spoilt=True, wasted=True, cost=cost)
        try:
            return Answer(checked(rows, order.count, self._card, order.kind), cost, origin)
        except TeacherError as error:
            other = rows.ndim == 2 and rows.shape[1] != self._card.dimension
            why = error.found
            raise Failure(why, error, final=other, spoilt=True, wasted=other, cost=cost if other else None) from error

    def _origin(self, answer: Any) -> Origin:
        """Return the model of a response, as stated in it or else in the vendor's current description."""
        try:
            origin = self.wire.origin(answer)
            if origin.revision is None:
                now = self.wire.origin_now(lambda url: self._exchange("GET", url, None))
                origin = replace(now, model=origin.model)
            return origin
        except (Failure, Vl2vError, LookupError, TypeError, ValueError, AttributeError):
            return Origin()  # nothing to compare

    def _rows(self, order: Order, answer: Any) -> tuple[NDArray[Any], Decimal | None]:
        """Return the rows of a response, not validated, and its stated cost.

        Raises:
            Failure: if the response has an unexpected format.
        """
        try:
            rows = np.asarray(self.wire.vectors(order.kind, order.count, answer))
            return rows, self.wire.charged(order.kind, order.count, answer)
        except TeacherError as error:
            raise Failure(error.problem, error, final=True, spoilt=True) from error
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            text = self._clean(f"{type(error).__name__}: {error}", {})
            raise self._broken(f"a response in another format ({text})", spoilt=True) from None

    def _refusal(self, reply: Reply, answer: Any, headers: Mapping[str, str]) -> Failure:
        """Return the failure for an error status, or for an error in the body in spite of a status of success."""
        status = stated = reply.status
        if 200 <= status < 300:
            code = error_code(answer)
            stated = int(code) if code.isdecimal() and 400 <= int(code) < 600 else status
        verdict = self.wire.verdict(stated, reply.headers, answer)
        final = verdict.final or reply.headers.get("x-should-retry", "").lower() == "false"
        words = self._clean(error_text(answer) or reply.body[:READ].decode(errors="replace"), headers)
        step = verdict.next_step
        if 300 <= status < 400:
            words, step = self._moved(reply)
        error = TeacherError(
            f"{self._name} rejected the request (HTTP {status}).",
            expected="embeddings" if reply.method == "POST" else "its description",
            found=words or "no explanation",
            next_step=step or LATER,
        )
        charged = verdict.charged or 200 <= status < 300  # the vendor may have embedded inputs before the error
        wait = retry_after(reply.headers.get("retry-after"))
        return Failure(f"HTTP {status}", error, final, charged, stated >= 500, False, wait)

    def _moved(self, reply: Reply) -> tuple[str, str]:
        """Return the description of a redirect and the next step. Following it would send the key to another host."""
        target = self._clean(reply.target, {})
        if not target:
            return "a redirect without a target", "check the address"
        host = self._clean(host_of(reply.target), {})
        for end in ("/models", "/embeddings"):
            target = target.removesuffix(end)
        step = f"if you trust {host} with your key and images, use that address: {target}"
        return f"a redirect to {target}, which vl2v does not follow", step

    def _broken(
        self, why: str, *, final: bool = False, charged: bool = True, down: bool = False, spoilt: bool = False
    ) -> Failure:
        problem = f"{self._name} returned no usable response."
        error = TeacherError(problem, expected="embeddings", found=why, next_step=LATER)
        return Failure(why, error, final, charged, down, spoilt)

    @property
    def _name(self) -> str:
        return f"{self.wire.name}:{self.wire.model}" if self.wire.needs_key else self.wire.base

    def _clean(self, text: str, headers: Mapping[str, str]) -> str:
        """Return a vendor's message, shortened, printable and without credentials."""
        text = self._key.strike(text[:READ])
        for name in SECRET_HEADERS & set(map(str.lower, headers)):
            value = httpx.Headers(headers)[name]
            for part in (value, value.split(" ")[-1]):
                text = Secret(part).strike(text)
        return "".join(c if c.isprintable() else " " for c in text)[:LONGEST].strip()
