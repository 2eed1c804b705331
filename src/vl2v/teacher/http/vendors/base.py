"""The base class of the adapters, with defaults that most vendors share."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

import numpy as np

from vl2v.errors import TeacherError
from vl2v.teacher.base import Price, TeacherCard
from vl2v.teacher.http.packing import Limits
from vl2v.teacher.http.remote import Kind, Origin

Fetch = Callable[[str], Any]
"""A function that fetches JSON from a URL, free of charge."""


@dataclass(frozen=True)
class Verdict:
    """The meaning of an HTTP status.

    Attributes:
        final: whether another attempt is useless.
        charged: whether the request may have been charged.
        next_step: what the user can do about a final status.
    """

    final: bool
    charged: bool
    next_step: str = ""


STEPS = {
    401: "check the key: {keys}",
    402: "the account has no money left: top it up, then try again",
    403: "the account lacks permission or balance: see the vendor's console",
    404: "check the model's name and the address",
    412: "get a new quote (vl2v quote); earlier embeddings remain stored under the old revision",
    413: "the vendor accepts smaller requests than it stated",
}
UNREADABLE = "see the vendor's message above; no purchased embedding is lost"


@dataclass(frozen=True)
class Options:
    """Options after ``#`` in the URI of a remote teacher.

    Attributes:
        model: name of the model, for a server with several.
        style: format of images for an OpenAI-compatible server: ``infinity``, ``messages`` (vLLM) or ``content``.
        image_text: text sent with each image in the style ``messages``, for models that require one.
        dimension: D, if the vendor offers several dimensions or does not state it.
        logit_scale: s, if the vendor does not state it; 100, as in CLIP, by default.
        rpm: maximum number of requests per minute.
        ipm: maximum number of images per minute.
        tpm: maximum number of text tokens per minute.
        concurrency: maximum number of concurrent requests.
        timeout: seconds to wait for a response.
    """

    model: str = ""
    style: str = ""
    image_text: str = ""
    dimension: int | None = None
    logit_scale: float | None = None
    rpm: float | None = None
    ipm: float | None = None
    tpm: float | None = None
    concurrency: int | None = None
    timeout: float | None = None


class Wire:
    """The wire format of a vendor. Subclasses override what differs from the defaults.

    Args:
        model: the vendor's name of the model.
        options: options of the user.
        price: price per 1000 queries, which overrides the price table.
    """

    name: ClassVar[str] = ""
    key_names: ClassVar[tuple[str, ...]] = ()
    needs_key: ClassVar[bool] = True
    base: str = ""
    idempotent: bool = False
    limits: Limits = Limits(images=1, texts=1)
    dimensions: tuple[int, ...] = ()
    """Dimensions that the vendor offers, the default first."""
    table: Price | None = None
    """Maximum price of a thousand inputs according to the vendor's price list; None if unknown."""
    price_note: str = ""
    """A remark about the price, set by `card`; may be empty."""

    def __init__(self, model: str, options: Options | None = None, price: Price | None = None) -> None:
        self.model, self.options, self.own_price = model, options or Options(), price

    # Description

    def card(self, fetch: Fetch) -> TeacherCard:
        """Return the description of the teacher.

        Args:
            fetch: fetches JSON from a URL, free of charge.

        Raises:
            TeacherError: if a required price or dimension is unknown.
        """
        return TeacherCard(
            identity=f"{self.name}:{self.model}",
            revision=self.revision(),
            dimension=self.dimension,
            logit_scale=self.options.logit_scale or 100.0,
            price=self.price(),
            batch_size=self.limits.images,
        )

    def prove(self, ask: Callable[[Kind, Sequence[Any]], Any]) -> None:
        """Test with free queries that the vendor understands the requests.

        Args:
            ask: embeds images or texts, [N, D]; only for a free vendor.

        Raises:
            TeacherError: if the vendor does not understand them.
        """
        return

    def revision(self) -> str:
        """Return the version of the model, as far as the vendor states it."""
        return f"hosted/{self.dimension}"

    @property
    def dimension(self) -> int:
        """D, as set by the user or else the default of the vendor."""
        wanted = self.options.dimension or self.dimensions[0]
        if wanted not in self.dimensions:
            expected = ", ".join(map(str, self.dimensions))
            raise TeacherError(f"{self.name} does not offer this dimension.", expected=expected, found=str(wanted))
        return wanted

    def price(self) -> Price:
        """Return the price set by the user, or else that of the table, separately for images and texts.

        Raises:
            TeacherError: if one of the prices is unknown. A wrong price of 0 would exceed the budget.
        """
        if self.own_price is not None and self.own_price.free:  # the user states that the vendor is free
            if self.table is None:
                return self.own_price
            raise TeacherError(f"The price of {self.name}:{self.model} is known.", next_step="drop --free")
        own, table = self.own_price or Price(), self.table or Price()
        price = Price(
            own.per_1000_images or table.per_1000_images,
            own.per_1000_texts or table.per_1000_texts,
            own.currency if self.own_price else table.currency,
        )
        if not (price.per_1000_images and price.per_1000_texts):
            raise TeacherError(
                f"The price of {self.name}:{self.model} is unknown.",
                expected="a price for images and one for texts, to enforce the budget",
                found="not both in the adapter's table",
                next_step="set them: --price-per-1000-images and --price-per-1000-texts; or --free if it is free",
            )
        return price

    # Requests

    def url(self, kind: Kind) -> str:
        """Return the URL to which a request is posted."""
        raise NotImplementedError

    def content(self, kind: Kind, items: Sequence[Any]) -> Any:
        """Return a request as JSON values; `items` are image files as bytes, or texts."""
        raise NotImplementedError

    def body(self, kind: Kind, items: Sequence[Any]) -> tuple[bytes, str]:
        """Return the body of a request and its content type; the same input gives the same bytes."""
        return json.dumps(self.content(kind, items), separators=(",", ":")).encode(), "application/json"

    def headers(self, key: str) -> dict[str, str]:
        """Return the headers that authenticate a request."""
        return {"authorization": f"Bearer {key}"} if key else {}

    def sign(self, url: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        """Return further headers that depend on the whole request, computed for each attempt."""
        return {}

    # Responses

    def vectors(self, kind: Kind, count: int, answer: Any) -> Any:
        """Return the embeddings of a response in the order of the inputs; the caller validates their shape.

        Raises:
            LookupError, TypeError, ValueError: if the response has an unexpected format.
        """
        return openai_rows(answer, count)

    def origin(self, answer: Any) -> Origin:
        """Return the model that a response states as its origin."""
        model = answer.get("model") if isinstance(answer, dict) else None
        return Origin(model if isinstance(model, str) else None)

    def origin_now(self, fetch: Fetch) -> Origin:
        """Return the model according to the vendor's current description, for responses that do not state it; free."""
        return Origin()

    def verdict(self, status: int, headers: Mapping[str, str], answer: Any) -> Verdict:
        """Return the meaning of an HTTP status other than 2xx; `answer` is the JSON of the body, or None."""
        if status == 429:
            final = error_code(answer) in ("insufficient_quota", "billing_hard_limit_reached")
            return Verdict(final, False, self.step(402) if final else "")
        if status in (408, 409, 425) or status >= 500:
            return Verdict(status in (501, 505), True, UNREADABLE)
        return Verdict(True, False, self.step(status))

    def step(self, status: int) -> str:
        """Return what a user can do about a final status."""
        return STEPS.get(status, UNREADABLE).format(keys=" or ".join(self.key_names) or "the vendor's own settings")

    # Money

    def most(self, kind: Kind, items: Sequence[Any]) -> Decimal:
        """Return the maximum cost of these inputs."""
        price = self.price()
        return price.of(images=len(items)) if kind == "image" else price.of(texts=len(items))

    def charged(self, kind: Kind, count: int, answer: Any) -> Decimal | None:
        """Return the cost stated in a response; None if it states none."""
        return None


def openai_rows(answer: Any, count: int) -> list[Any]:
    """Return the rows of a response in the format of OpenAI, ordered by ``index``.

    Each row is a list of floats, or base64 of float32.

    Raises:
        LookupError, TypeError, ValueError: if the format differs, or the indexes are not 0 to `count` - 1.
    """
    rows = {int(item["index"]): item["embedding"] for item in answer["data"]}
    if len(answer["data"]) != count or sorted(rows) != list(range(count)):
        raise ValueError(f"indexes {sorted(rows)[:5]}... of {len(answer['data'])} rows for {count} inputs")
    return [from_base64(rows[i]) if isinstance(rows[i], str) else rows[i] for i in range(count)]


def from_base64(text: str) -> np.ndarray:
    """Decode base64 of little-endian float32 numbers.

    Raises:
        ValueError: if the text is not valid.
    """
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4")


def b64(data: bytes) -> str:
    """Encode bytes as base64 text."""
    return base64.b64encode(data).decode()


def data_uri(image: bytes) -> str:
    """Encode an image file as a data URI, with the media type according to its first bytes."""
    return f"data:{mime(image)};base64,{b64(image)}"


def mime(image: bytes) -> str:
    """Return the media type of an image file according to its first bytes."""
    if image.startswith(b"\x89PNG"):
        return "image/png"
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "image/webp"
    if image.startswith(b"GIF8"):
        return "image/gif"
    return "image/jpeg"


def error_code(answer: Any) -> str:
    """Return the ``code``, ``type`` or ``status`` of an error response; empty if there is none."""
    inner = answer.get("error", answer) if isinstance(answer, dict) else None
    if not isinstance(inner, dict):
        return ""
    return str(inner.get("code") or inner.get("type") or inner.get("status") or "")


def error_text(answer: Any) -> str:
    """Return the message of an error response; empty if there is none."""
    if not isinstance(answer, dict):
        return ""
    for part in (answer.get("error"), answer):
        if isinstance(part, str):
            return part
        if isinstance(part, dict):
            message = part.get("message") or part.get("detail")
            if isinstance(message, str):
                return message
            if isinstance(message, list) and message and isinstance(first := message[0], dict) and "msg" in first:
                field = ".".join(map(str, first.get("loc") or ()))  # format of FastAPI; the input is left out
                return f"{field}: {first['msg']}" if field else str(first["msg"])
    return ""
