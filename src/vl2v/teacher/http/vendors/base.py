"""The base class of the adapters, with defaults that most vendors share."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

from vl2v.errors import TeacherError
from vl2v.teacher.base import Price, TeacherCard
from vl2v.teacher.http.packing import Limits
from vl2v.teacher.http.remote import Kind, Origin
from vl2v.teacher.http.vendors.options import Options as Options
from vl2v.teacher.http.vendors.prices import PriceSource
from vl2v.teacher.http.vendors.values import b64 as b64
from vl2v.teacher.http.vendors.values import data_uri as data_uri
from vl2v.teacher.http.vendors.values import error_code as error_code
from vl2v.teacher.http.vendors.values import error_text as error_text
from vl2v.teacher.http.vendors.values import from_base64 as from_base64
from vl2v.teacher.http.vendors.values import mime as mime
from vl2v.teacher.http.vendors.values import openai_rows

if TYPE_CHECKING:
    from vl2v.teacher.http.jobs import BatchApi

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
NO_PURPOSE = "none"  # the purpose is left out of the requests


class Wire:
    """The wire format of a vendor. Subclasses override what differs from the defaults.

    Args:
        model: the vendor's name of the model.
        price: price per 1000 queries, which overrides the price table.
    """

    name: ClassVar[str] = ""
    key_names: ClassVar[tuple[str, ...]] = ()
    needs_key: ClassVar[bool] = True
    base: str = ""
    path: str = ""
    """Path of the URL to which requests are posted, after `base`."""
    idempotent: bool = False
    limits: Limits = Limits(images=1, texts=1)
    dimensions: tuple[int, ...] = ()
    """Dimensions that the vendor offers, the default first."""
    table: Price | None = None
    """Maximum price of a thousand inputs according to the vendor's price list; None if unknown."""
    source: PriceSource | None = None
    """Where and when the prices of the table were read."""
    image_purposes: tuple[str, ...] = ()
    """Purposes of image embeddings that the vendor offers, the default first; empty if it offers no choice."""
    text_purposes: tuple[str, ...] = ()
    """Purposes of text embeddings, the default first."""
    unstated_purposes: tuple[str, str] | None = None
    """Purposes for images and texts of embeddings that earlier versions stored without stating them."""
    jobs: BatchApi | None = None
    """The batch API, once `use_batch_api` was called."""
    per_text_token: Decimal | None = None
    """Price of a text token according to that list; None if the vendor charges per text."""
    price_note: str = ""
    """A remark about the price; may be empty. It is final when `card` has been called."""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        if "vectors" in vars(cls):  # the name until 0.1
            text = f"{cls.__name__}.vectors is now embeddings; the next release removes the old name"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            cls.embeddings = vars(cls)["vectors"]  # type: ignore[method-assign]

    def __init__(self, model: str, options: Options | None = None, price: Price | None = None) -> None:
        self.model, self.options, self.own_price = model, options or Options(), price

    @classmethod
    def for_model(cls, model: str) -> type[Wire]:
        """Return the adapter for a model, for a vendor whose models have different formats."""
        return cls

    # Description

    def card(self, fetch: Fetch) -> TeacherCard:
        """Return the description of the teacher.

        Raises:
            TeacherError: if a required price or dimension is unknown.
        """
        return TeacherCard(
            identity=f"{self.name}:{self.model}",
            revision=self.revision() + self.stated_purposes(),
            dimension=self.dimension,
            logit_scale=self.options.logit_scale or 100.0,
            price=self.price(),
            batch_size=self.limits.images,
        )

    def need_packages(self, key: bool) -> None:
        """Check that the packages for requests are installed, when the teacher is opened.

        Args:
            key: whether the user has an API key in the environment.

        Raises:
            MissingExtraError: if one is missing.
        """

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

    def purpose(self, kind: Kind) -> str:
        """Return the purpose to send with a request; empty to send none.

        Raises:
            TeacherError: if the vendor does not offer the purpose that the user set.
        """
        choice = self._wanted_purpose(kind)
        return "" if choice == NO_PURPOSE else choice

    def _wanted_purpose(self, kind: Kind) -> str:
        images = kind == "image"
        offered = self.image_purposes if images else self.text_purposes
        choice = self.options.image_purpose if images else self.options.text_purpose
        if choice and choice not in offered:
            raise TeacherError(
                f"{self.name}:{self.model} does not offer this purpose of {kind} embeddings.",
                expected=", ".join(offered) or f"no {kind}_purpose, since there is no choice",
                found=choice[:40],
                next_step=f"correct {kind}_purpose after # in --teacher, or omit it",
            )
        return choice or (offered[0] if offered else NO_PURPOSE)

    def stated_purposes(self) -> str:
        """Return the part of the revision that separates the embeddings of one purpose from those of another.

        Raises:
            TeacherError: if the vendor does not offer a purpose that the user set.
        """
        purposes = (self._wanted_purpose("image"), self._wanted_purpose("text"))
        if not (self.image_purposes or self.text_purposes) or purposes == self.unstated_purposes:
            return ""
        return f";image={purposes[0]};text={purposes[1]}"

    @property
    def dimension(self) -> int:
        """D, as set by the user or else the default of the vendor."""
        size = self.options.dimension or self.dimensions[0]
        if size not in self.dimensions:
            expected = ", ".join(map(str, self.dimensions))
            problem, step = f"{self.name} does not offer this dimension.", f"use #dimension={self.dimensions[0]}"
            raise TeacherError(problem, expected=expected, found=str(size), next_step=step)
        return size

    def price(self) -> Price:
        """Return the price set by the user, or else that of the table, separately for images and texts.

        Raises:
            TeacherError: if one of the prices is unknown. A wrong price of 0 would exceed the budget.
        """
        if self.own_price is not None and self.own_price.free:  # the user states that the vendor is free
            if self.table is None:
                return self.own_price
            raise TeacherError(f"The price of {self.name}:{self.model} is known.", next_step="drop --free")
        user_price, table = self.own_price or Price(), self.table or Price()
        price = Price(
            user_price.per_1000_images or table.per_1000_images,
            user_price.per_1000_texts or table.per_1000_texts,
            user_price.currency if self.own_price else table.currency,
        )
        if not (price.per_1000_images and price.per_1000_texts):
            raise TeacherError(
                f"The price of {self.name}:{self.model} is unknown.",
                expected="a price for images and one for texts, to enforce the budget",
                found="not both in the adapter's table",
                next_step="set them: --price-per-1000-images and --price-per-1000-texts; or --free if it is free",
            )
        return price

    def use_batch_api(self) -> None:
        """Buy images by the vendor's batch API, at its price.

        Raises:
            TeacherError: if the vendor has none for images of this model, or none that vl2v supports.
        """
        raise TeacherError(
            f"vl2v knows no batch API for images of {self.name}:{self.model}.",
            expected="gemini:gemini-embedding-2, whose batch API takes images",
            found=f"{self.name}:{self.model}"[:100],
            next_step="omit --batch-api",
        )

    def age_note(self, today: date) -> str:
        """Return one line about a price of the table that is old; empty if it is not old or not used."""
        user_price = self.own_price or Price()
        if self.source is None or self.table is None or (user_price.per_1000_images and user_price.per_1000_texts):
            return ""
        return self.source.age_note(f"{self.name}:{self.model}", today)

    # Requests

    def url(self, kind: Kind) -> str:
        """Return the URL to which a request is posted."""
        return self.base + self.path

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

    def embeddings(self, kind: Kind, count: int, answer: Any) -> Any:
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
        """Return the maximum cost of these inputs; a text has at most as many tokens as bytes, and a few more."""
        if kind == "text" and self.per_text_token is not None and self.own_price is None:
            return sum(len(text.encode()) + 8 for text in items) * self.per_text_token
        price = self.price()
        return price.of(images=len(items)) if kind == "image" else price.of(texts=len(items))

    def charged(self, kind: Kind, count: int, answer: Any) -> Decimal | None:
        """Return the cost stated in a response; None if it states none."""
        return None
