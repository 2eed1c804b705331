"""Our own vendor server, infinity, vLLM: ``POST /v1/embeddings`` in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

from vl2v.errors import TeacherError
from vl2v.teacher.base import Price, TeacherCard
from vl2v.teacher.packing import MEGA, Limits
from vl2v.teacher.remote import Kind, Origin
from vl2v.teacher.wire.base import Fetch, Options, Wire, data_uri

STYLES = ("infinity", "content")


class OpenAICompatible(Wire):
    """A server at a URL.

    A server of ours describes itself in ``GET /v1/models``: identity (or its id), revision, dimension, logit_scale,
    prices and max_batch; it charges what it answers and honours ``Idempotency-Key``. Any other server is taken to be
    free unless the user states a price, and its dimension is the user's to state or, if it is free, found by asking
    for one text.

    Args:
        url: its address, with ``/v1``.
        options: ``model`` picks one of several; ``style`` is ``infinity`` (data URIs and ``modality``; the default)
            or ``content`` (one-part content items, as vLLM takes them).
        price: the user's own price per 1000, for a server that states none.
    """

    name = "openai-compatible"
    key_names = ("VL2V_API_KEY",)
    needs_key = False

    def __init__(self, url: str, options: Options | None = None, price: Price | None = None) -> None:
        super().__init__((options or Options()).model, options, price)
        self.base = url.rstrip("/")
        self.style = self.options.style or "infinity"
        if self.style not in STYLES:
            raise TeacherError("No such style.", expected=" or ".join(STYLES), found=self.style)
        self.limits = Limits(images=32, texts=64)  # infinity takes 32 images a request
        self._ours = False  # whether it describes itself as a server of ours does

    def card(self, fetch: Fetch) -> TeacherCard:
        """Ask the server who it is; see `Wire.card`."""
        entry = self._entry(fetch(f"{self.base}/models"))
        self.model = str(entry["id"])
        # A server of ours that leaves something out is refused by `_described`, and never taken for a free one.
        if "identity" in entry or "price_per_1000_images" in entry or entry.get("owned_by") == "vl2v":
            return self._described(_flat(entry))
        price = self.own_price or Price()
        if self.options.dimension is None and not price.free:
            step = f"add it: {self.base}#dimension=512"
            raise TeacherError(f"{self.base} does not tell its dimension.", expected="a number", next_step=step)
        # Another address may serve another model under the same name, so the address is part of who it is.
        return TeacherCard(
            identity=f"{self.base}#{self.model}",
            revision="unversioned",
            dimension=self.options.dimension or 0,  # 0: to be found by asking
            logit_scale=self.options.logit_scale or 100.0,
            price=price,
            batch_size=self.limits.images,
        )

    def price(self) -> Price:
        """What the server charges: known once `card` was asked."""
        return self.own_price or Price()

    def url(self, kind: Kind) -> str:
        """See `Wire.url`."""
        return f"{self.base}/embeddings"

    def content(self, kind: Kind, items: Sequence[Any]) -> Any:
        """See `Wire.content`."""
        asked: dict[str, Any] = {"model": self.model, "encoding_format": "base64" if self._ours else "float"}
        if kind == "text":
            return asked | {"input": list(items)}
        uris = [data_uri(image) for image in items]
        if self.style == "infinity":
            return asked | {"input": uris, "modality": "image"}
        return asked | {"input": [{"content": [{"type": "image_url", "image_url": {"url": uri}}]} for uri in uris]}

    def origin(self, answer: Any) -> Origin:
        """See `Wire.origin`; a server of ours also sends its revision and its logit scale."""
        found = super().origin(answer)
        return replace(found, **_version(answer)) if self._ours and isinstance(answer, dict) else found

    def origin_now(self, fetch: Fetch) -> Origin:
        """See `Wire.origin_now`; of a server that describes its revision."""
        return Origin(**_version(self._entry(fetch(f"{self.base}/models")))) if self._ours else Origin()

    def charged(self, kind: Kind, count: int, answer: Any) -> Decimal | None:
        """``usage.cost`` of a server of ours."""
        usage = answer.get("usage") if isinstance(answer, dict) else None
        cost = usage.get("cost") if isinstance(usage, dict) and self._ours else None
        return None if cost is None else _money(cost, "usage.cost")

    def _entry(self, answer: Any) -> Mapping[str, Any]:
        try:
            entries = {str(entry["id"]): entry for entry in answer["data"]}
        except (LookupError, TypeError) as error:
            raise TeacherError(f"{self.base}/models is no list of models.", expected='{"data":[{"id":..}]}') from error
        wanted = self.model or (next(iter(entries)) if len(entries) == 1 else "")
        if wanted not in entries:
            raise TeacherError(
                f"{self.base} has no model '{wanted}'." if wanted else f"{self.base} has several models.",
                expected="one of " + ", ".join(sorted(entries)),
                found=wanted or "none named",
                next_step=f"name it: {self.base}#model={next(iter(sorted(entries)), '...')}",
            )
        found = entries[wanted]
        assert isinstance(found, Mapping)
        return found

    def _described(self, entry: Mapping[str, Any]) -> TeacherCard:
        if self.own_price is not None:
            step = "drop teacher.price_per_1000_images and teacher.price_per_1000_texts"
            raise TeacherError(f"{self.base} states its own price.", expected="no other", next_step=step)
        try:
            price = Price(
                _money(entry["price_per_1000_images"], "price_per_1000_images"),
                _money(entry["price_per_1000_texts"], "price_per_1000_texts"),
                str(entry["currency"]),
            )
            most = max(1, int(entry["max_batch"]))
            dimension, scale = int(entry["dimension"]), float(entry["logit_scale"])
            revision = str(entry["revision"])
            # The ledger counts on a key being remembered for a day; a server that forgets earlier has to say so.
            remembers = float(entry.get("idempotency_hours", 24)) >= 24
        except (LookupError, TypeError, ValueError) as error:
            raise TeacherError(
                f"{self.base} does not describe its model as expected.",
                expected="revision, dimension, logit_scale, price_per_1000_images, price_per_1000_texts, currency"
                " and max_batch in GET /v1/models",
                found=f"{type(error).__name__} {error}",
                next_step="is the server of the same version as this client?",
            ) from error
        self.own_price, self.idempotent, self._ours = price, remembers, True
        # The bytes and pixels are what our server takes unless its owner says otherwise.
        self.limits = Limits(most, most, request_bytes=32 * MEGA, image_bytes=10 * MEGA, image_pixels=20 * MEGA)
        return TeacherCard(str(entry["identity"]), revision, dimension, scale, price, most)


def _version(said: Mapping[str, Any]) -> dict[str, Any]:
    """Revision and logit scale, where they are said."""
    revision, scale = said.get("revision"), said.get("logit_scale")
    return {
        "revision": None if revision is None else str(revision),
        "logit_scale": None if scale is None else float(scale),
    }


def _flat(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A model's description with its prices beside the rest, where they stand in an object ``price``."""
    price = entry.get("price")
    stated = {(f"price_{k}" if k.startswith("per_") else k): v for k, v in price.items()} if price else {}
    return {"identity": entry["id"], **stated, **entry}


def _money(value: Any, name: str) -> Decimal:
    try:
        money = Decimal(str(value))
    except InvalidOperation as error:
        raise ValueError(f"{name} is no amount of money: {value!r}") from error
    if not money.is_finite() or money < 0:
        raise ValueError(f"{name} is no amount of money: {value!r}")
    return money
