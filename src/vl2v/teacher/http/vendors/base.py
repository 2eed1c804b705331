"""The interface of an adapter, with defaults that most vendors share."""

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
"""Fetches a URL's JSON, free of charge."""


@dataclass(frozen=True)
class Verdict:
    """How an HTTP status is to be taken.

    Attributes:
        final: whether asking again is of no use.
        charged: whether it may have been charged.
        next_step: what the user can do, if it is final.
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
UNREADABLE = "see the vendor's message above; nothing that was bought is lost"


@dataclass(frozen=True)
class Options:
    """What a user may write after ``#`` in a teacher's spelling.

    Attributes:
        model: which of a server's models.
        style: how images are sent to an OpenAI-compatible server: ``infinity``, ``messages`` (vLLM) or ``content``.
        image_text: a text that goes with each image in the style ``messages``, for models that need one.
        dimension: D, where the vendor lets one choose or does not tell.
        logit_scale: s, where the vendor does not tell; CLIP's 100 by default.
        rpm: requests a minute.
        ipm: images a minute.
        tpm: text tokens a minute.
        concurrency: requests under way at once.
        timeout: seconds to wait for an answer.
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
    """One vendor's wire format. Subclasses override what is different there.

    Args:
        model: the vendor's name of the model.
        options: the user's.
        price: the user's own price per 1000, over the table's.
    """

    name: ClassVar[str] = ""
    key_names: ClassVar[tuple[str, ...]] = ()
    needs_key: ClassVar[bool] = True
    base: str = ""
    idempotent: bool = False
    limits: Limits = Limits(images=1, texts=1)
    dimensions: tuple[int, ...] = ()
    """What the vendor can give, the default first."""
    table: Price | None = None
    """The most that a thousand inputs cost, by the vendor's price list; None if it was not found."""
    price_note: str = ""
    """What a user should know of the price; set by `card`."""

    def __init__(self, model: str, options: Options | None = None, price: Price | None = None) -> None:
        self.model, self.options, self.own_price = model, options or Options(), price

    # Who answers

    def card(self, fetch: Fetch) -> TeacherCard:
        """The vendor's description, from the adapter's table.

        Raises:
            TeacherError: if a price or a dimension is needed that nobody stated.
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
        """Make sure, where it is free, that the vendor understands what is sent.

        Args:
            ask: embeds images or texts, [N, D]; only for a vendor that charges nothing.

        Raises:
            TeacherError: if it does not.
        """
        return

    def revision(self) -> str:
        """Which version of the model, as far as the vendor tells."""
        return f"hosted/{self.dimension}"

    @property
    def dimension(self) -> int:
        """D, the user's choice or the vendor's default."""
        wanted = self.options.dimension or self.dimensions[0]
        if wanted not in self.dimensions:
            expected = ", ".join(map(str, self.dimensions))
            raise TeacherError(f"{self.name} does not offer this dimension.", expected=expected, found=str(wanted))
        return wanted

    def price(self) -> Price:
        """The user's price where there is one, or the table's; images and texts each.

        Raises:
            TeacherError: if one of them is in neither: what costs nothing by mistake would break the budget.
        """
        if self.own_price is not None and self.own_price.free:  # the user says so
            if self.table is None:
                return self.own_price
            raise TeacherError(f"The price of {self.name}:{self.model} is known.", next_step="drop --free")
        own, table = self.own_price or Price(), self.table or Price()
        found = Price(
            own.per_1000_images or table.per_1000_images,
            own.per_1000_texts or table.per_1000_texts,
            own.currency if self.own_price else table.currency,
        )
        if not (found.per_1000_images and found.per_1000_texts):
            raise TeacherError(
                f"The price of {self.name}:{self.model} is unknown.",
                expected="a price for images and one for texts, to enforce the budget",
                found="not both in the adapter's table",
                next_step="set them: --price-per-1000-images and --price-per-1000-texts; or --free if it is free",
            )
        return found

    # Asking

    def url(self, kind: Kind) -> str:
        """Where a request of this kind is posted."""
        raise NotImplementedError

    def content(self, kind: Kind, items: Sequence[Any]) -> Any:
        """The request as JSON values; `items` are image files' bytes, or texts."""
        raise NotImplementedError

    def body(self, kind: Kind, items: Sequence[Any]) -> tuple[bytes, str]:
        """The request's bytes and their content type; the same input gives the same bytes."""
        return json.dumps(self.content(kind, items), separators=(",", ":")).encode(), "application/json"

    def headers(self, key: str) -> dict[str, str]:
        """What authenticates a request."""
        return {"authorization": f"Bearer {key}"} if key else {}

    def sign(self, url: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        """Further headers that depend on the whole request, made anew for each attempt."""
        return {}

    # Reading

    def vectors(self, kind: Kind, count: int, answer: Any) -> Any:
        """The rows of an answer, in the order of the inputs; the caller checks their shape.

        Raises:
            LookupError, TypeError, ValueError: if the answer is of another form.
        """
        return openai_rows(answer, count)

    def origin(self, answer: Any) -> Origin:
        """Which model an answer says it comes from."""
        model = answer.get("model") if isinstance(answer, dict) else None
        return Origin(model if isinstance(model, str) else None)

    def origin_now(self, fetch: Fetch) -> Origin:
        """The same as the vendor describes it at this moment, for answers that do not say it; free of charge."""
        return Origin()

    def verdict(self, status: int, headers: Mapping[str, str], answer: Any) -> Verdict:
        """What a status other than 2xx means; `answer` is the body's JSON, or None."""
        if status == 429:
            final = error_code(answer) in ("insufficient_quota", "billing_hard_limit_reached")
            return Verdict(final, False, self.step(402) if final else "")
        if status in (408, 409, 425) or status >= 500:
            return Verdict(status in (501, 505), True, UNREADABLE)
        return Verdict(True, False, self.step(status))

    def step(self, status: int) -> str:
        """What a user can do about a final status."""
        return STEPS.get(status, UNREADABLE).format(keys=" or ".join(self.key_names) or "the vendor's own settings")

    # Money

    def most(self, kind: Kind, items: Sequence[Any]) -> Decimal:
        """The most that these inputs can cost."""
        price = self.price()
        return price.of(images=len(items)) if kind == "image" else price.of(texts=len(items))

    def charged(self, kind: Kind, count: int, answer: Any) -> Decimal | None:
        """What an answer says it cost; None if it says nothing."""
        return None


def openai_rows(answer: Any, count: int) -> list[Any]:
    """The rows of an OpenAI-shaped answer, put in order by ``index``; each a list of floats or base64 of float32.

    Raises:
        LookupError, TypeError, ValueError: if it is of another form, or the indexes are not 0 to `count` - 1.
    """
    rows = {int(item["index"]): item["embedding"] for item in answer["data"]}
    if len(answer["data"]) != count or sorted(rows) != list(range(count)):
        raise ValueError(f"indexes {sorted(rows)[:5]}... of {len(answer['data'])} rows for {count} inputs")
    return [from_base64(rows[i]) if isinstance(rows[i], str) else rows[i] for i in range(count)]


def from_base64(text: str) -> np.ndarray:
    """Little-endian float32 from base64.

    Raises:
        ValueError: if it is none.
    """
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4")


def b64(data: bytes) -> str:
    """Base64, as text."""
    return base64.b64encode(data).decode()


def data_uri(image: bytes) -> str:
    """An image as a data URI, with the type that its bytes say."""
    return f"data:{mime(image)};base64,{b64(image)}"


def mime(image: bytes) -> str:
    """The media type of an image file, by its first bytes."""
    if image.startswith(b"\x89PNG"):
        return "image/png"
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "image/webp"
    if image.startswith(b"GIF8"):
        return "image/gif"
    return "image/jpeg"


def error_code(answer: Any) -> str:
    """The ``code`` or ``type`` of an error body, as vendors nest it; empty if there is none."""
    inner = answer.get("error", answer) if isinstance(answer, dict) else None
    if not isinstance(inner, dict):
        return ""
    return str(inner.get("code") or inner.get("type") or inner.get("status") or "")


def error_text(answer: Any) -> str:
    """The vendor's own words in an error body; empty if there are none."""
    if not isinstance(answer, dict):
        return ""
    for part in (answer.get("error"), answer):
        if isinstance(part, str):
            return part
        if isinstance(part, dict):
            found = part.get("message") or part.get("detail")
            if isinstance(found, str):
                return found
            if isinstance(found, list) and found and isinstance(first := found[0], dict) and "msg" in first:
                place = ".".join(map(str, first.get("loc") or ()))  # FastAPI's way; what was sent is left out
                return f"{place}: {first['msg']}" if place else str(first["msg"])
    return ""
