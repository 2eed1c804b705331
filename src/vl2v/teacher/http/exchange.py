"""One request to a vendor and its response: headers, secrecy, the meaning of errors."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import NDArray

from vl2v.addresses import host_of, is_local
from vl2v.errors import TeacherError
from vl2v.progress import progress_of_command, warn
from vl2v.teacher.http.connection import Connection, Reply, UnusableBodyError, most_bytes
from vl2v.teacher.http.keys import Secret, from_environment, unencrypted_key
from vl2v.teacher.http.remote import Order, RejectedInputError
from vl2v.teacher.http.retry import Failure, Retries, RetryPolicy, retry_after
from vl2v.teacher.http.vendors.base import Wire, error_code, error_text

TIMEOUT = 120.0  # seconds for a complete response; a large batch may take long on a slow machine
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
REVISION_HEADER = "vl2v-revision"  # the quoted revision; a vendor with another one rejects the request free of charge
UNREACHED = "check the address, and that the server is running; the embeddings bought so far are saved"
LATER = "try again later: the embeddings bought so far are saved, and only the rest is queried"
LONGEST = 300  # maximum number of characters of a vendor's message that are shown
READ = 20 * LONGEST  # bytes in which a key is redacted before the text is cut: half a key would not be recognised
ABOUT_INPUTS = (400, 413, 415, 422)  # HTTP statuses of a request with unacceptable inputs
SECRET_HEADERS = {"authorization", "ocp-apim-subscription-key", "x-amz-security-token", "x-goog-api-key"}


class Exchange:
    """Sends single requests to a vendor, without retries.

    Attributes:
        key: the user's key; empty if none is known.
        revision: the quoted revision of the teacher; empty until it has been described.
        dimension: D; 0 until the teacher has been described.
        timeout: time limit of a request in seconds.
        reached: whether the vendor has responded to any request.
    """

    def __init__(self, wire: Wire, transport: httpx.BaseTransport | None = None) -> None:
        self.wire = wire
        self.key = from_environment(wire.key_names)
        self.revision, self.dimension = "", 0
        self.reached = False
        self._progress, self._told, self._lock = progress_of_command(), 0.0, threading.Lock()
        self.timeout = wire.options.timeout or TIMEOUT
        self._http = Connection(wire.base, self.timeout, transport)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def retries(self, policy: RetryPolicy, rng: random.Random) -> Retries:
        """Return the attempts at one order. Waits are shown to the user."""
        return Retries(policy, rng, lambda: self.reached, self.tell)

    def tell(self, text: str, seconds: float) -> None:
        """Show a wait, unless another thread waits already and has shown it.

        Args:
            text: the reason, and what follows the wait.
            seconds: its length.
        """
        with self._lock:
            now = time.monotonic()
            if now < self._told:
                return
            self._told = now + seconds
        warn(self._progress, f"{self._name}: {text} in {max(1, round(seconds))} s")

    def send(self, method: str, url: str, order: Order | None, rows: int = 0) -> Any:
        """Send one request and return the JSON of the response.

        Args:
            order: the request; None for one without a body.
            rows: number of embeddings that a response without an order may contain.

        Raises:
            Failure: if there is no usable response.
        """
        headers = self.wire.headers(self.key.reveal())
        body = order.body if order else b""
        if order is not None:
            headers["content-type"] = order.content_type
            if self.wire.idempotent:
                headers["idempotency-key"] = order.key
                headers[REVISION_HEADER] = quote(self.revision)
            headers |= self.wire.sign(url, headers, body)
        self._check_secrecy(url, headers)
        most = most_bytes(order.count if order else 2 * rows, self.dimension)
        try:
            reply = self._http.exchange(method, url, headers, body, most)
            self.reached = True
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise self._broken(f"the address cannot be used: {error}", final=True, charged=False) from None
        except httpx.TransportError as error:
            why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            unsafe = "CERTIFICATE_VERIFY_FAILED" in why
            charged = order is not None and not isinstance(error, UNSENT)
            step = UNREACHED if isinstance(error, httpx.ConnectError) else LATER
            failure = self._broken(self.clean(why, headers), step, final=unsafe, charged=charged, down=True)
            raise replace(failure, unreached=isinstance(error, UNSENT)) from None
        except UnusableBodyError as error:
            raise self._broken(str(error), final=error.final, unusable=True) from None
        return self._answer(reply, headers, rows)

    def _answer(self, reply: Reply, headers: Mapping[str, str], rows: int) -> Any:
        """Return the JSON of a response; a batch job that failed is described by one with ``error`` and `rows`.

        Raises:
            Failure: if the response is an error, also one with a status of success, or is not JSON.
        """
        body: str | bytes = reply.body
        if reply.method == "GET" and not rows:  # the description of a vendor is shown and saved
            body = self.key.redact(reply.body.decode(errors="replace"))
        try:
            answer = json.loads(body)
        except RecursionError:
            raise self._broken("too deeply nested JSON", final=True, unusable=True) from None
        except ValueError:
            answer = None
        if not 200 <= reply.status < 300:
            raise self._refusal(reply, answer, headers)
        if answer is None:
            raise self._broken("a body that is not JSON, or is truncated", unusable=True)
        if isinstance(answer, dict) and answer.get("error") and not rows:
            raise self._refusal(reply, answer, headers)
        return answer

    def rows(self, order: Order, answer: Any) -> tuple[NDArray[Any], Decimal | None]:
        """Return the rows of a response, not validated, and its stated cost.

        Raises:
            Failure: if the response has an unexpected format.
        """
        try:
            rows = np.asarray(self.wire.embeddings(order.kind, order.count, answer))
            return rows, self.wire.charged(order.kind, order.count, answer)
        except TeacherError as error:
            raise Failure(error.problem, error, final=True, unusable=True) from error
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise self.unreadable(error) from None

    def unreadable(self, error: Exception) -> Failure:
        """Return the failure for a response in another format."""
        text = self.clean(f"{type(error).__name__}: {error}")
        return self._broken(f"a response in another format ({text})", unusable=True)

    def _check_secrecy(self, url: str, headers: Mapping[str, str]) -> None:
        """Refuse to send a key unencrypted to another machine."""
        key = self.key.reveal()  # the adapter of another package may send it in any header
        secret = SECRET_HEADERS & set(map(str.lower, headers)) or (key and any(key in v for v in headers.values()))
        if secret and not url.startswith("https:") and not is_local(host_of(url)):
            raise unencrypted_key(url, self.wire.key_names)

    def _refusal(self, reply: Reply, answer: Any, headers: Mapping[str, str]) -> Failure:
        """Return the failure for an error status, or for an error in the body in spite of a status of success."""
        status = stated = reply.status
        if 200 <= status < 300:
            code = error_code(answer)
            stated = int(code) if code.isdecimal() and 400 <= int(code) < 600 else status
        verdict = self.wire.verdict(stated, reply.headers, answer)
        final = verdict.final or reply.headers.get("x-should-retry", "").lower() == "false"
        words = self.clean(error_text(answer) or reply.body[:READ].decode(errors="replace"), headers)
        step = verdict.next_step
        if 300 <= status < 400:
            words, step = self._moved(reply)
        charged = verdict.charged or 200 <= status < 300  # the vendor may have embedded inputs before the error
        inputs = stated in ABOUT_INPUTS and verdict.next_step == self.wire.step(stated) and not charged
        error = (RejectedInputError if inputs else TeacherError)(
            f"{self._name} rejected the request (HTTP {status}).",
            expected="embeddings" if reply.method == "POST" else "its description",
            found=words or "no explanation",
            next_step=step or LATER,
        )
        wait = retry_after(reply.headers.get("retry-after"))
        return Failure(f"HTTP {status}", error, final, charged, stated >= 500, False, wait)

    def _moved(self, reply: Reply) -> tuple[str, str]:
        """Return the description of a redirect and the next step. Following it would send the key to another host."""
        target = self.clean(reply.target)
        if not target:
            return "a redirect without a target", "check the address"
        host = self.clean(host_of(reply.target))
        for end in ("/models", "/embeddings"):
            target = target.removesuffix(end)
        step = f"if you trust {host} with your key and images, use that address: {target}"
        return f"a redirect to {target}, which vl2v does not follow", step

    def _broken(
        self,
        why: str,
        step: str = LATER,
        *,
        final: bool = False,
        charged: bool = True,
        down: bool = False,
        unusable: bool = False,
    ) -> Failure:
        problem = f"{self._name} returned no usable response."
        error = TeacherError(problem, expected="embeddings", found=why, next_step=step)
        return Failure(why, error, final, charged, down, unusable)

    @property
    def _name(self) -> str:
        return f"{self.wire.name}:{self.wire.model}" if self.wire.needs_key else self.wire.base

    def clean(self, text: str, headers: Mapping[str, str] = MappingProxyType({})) -> str:
        """Return a vendor's message, shortened, printable and without credentials."""
        text = self.key.redact(text[:READ])
        for name in SECRET_HEADERS & set(map(str.lower, headers)):
            value = httpx.Headers(headers)[name]
            for part in (value, value.split(" ")[-1]):
                text = Secret(part).redact(text)
        return "".join(c if c.isprintable() else " " for c in text)[:LONGEST].strip()
