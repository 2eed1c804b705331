"""OpenAI-compatible servers, such as vl2v's own, infinity and vLLM: ``POST /v1/embeddings``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

from vl2v.addresses import host_of, is_local
from vl2v.errors import TeacherError
from vl2v.teacher.base import Price, TeacherCard
from vl2v.teacher.http.packing import MEGA, Limits
from vl2v.teacher.http.remote import Kind, Origin
from vl2v.teacher.http.vendors.base import Fetch, Options, Wire, data_uri
from vl2v.teacher.http.vendors.openai_styles import PROBE, STYLES, Ask, find_style, one_image, some_texts

VERSION = "/v1"


class OpenAICompatible(Wire):
    """An OpenAI-compatible server at a URL.

    A vl2v server describes itself in ``GET /v1/models``: identity (or its id), revision, dimension, logit_scale, prices
    and max_batch. It states the cost in each response and honours ``Idempotency-Key``. For any other server, the user
    states the price; without one, the server must be on this machine or be declared free. The dimension of a free
    server is determined with one text, and one image tests that it embeds images; see `openai_styles`.

    Args:
        url: address of the server; ``/v1`` is added or removed if the server lists its models there.
        options: ``model`` selects one of several models; ``style`` is the format of images, detected by default.
        price: price per 1000 queries, for a server that states none; a price of 0 declares the server free.
    """

    name = "openai-compatible"
    key_names = ("VL2V_API_KEY",)
    needs_key = False
    path = "/embeddings"

    def __init__(self, url: str, options: Options | None = None, price: Price | None = None) -> None:
        super().__init__((options or Options()).model, options, price)
        self.base = url.rstrip("/")
        if self.options.style not in ("", *STYLES):
            expected, step = " or ".join(STYLES), f"use #style={STYLES[0]}, or omit the style"
            raise TeacherError("Unknown style.", expected=expected, found=self.options.style, next_step=step)
        self._ours = False  # whether it describes itself like a vl2v server
        self._use(self.options.style or STYLES[0])

    def _use(self, style: str) -> None:
        self.style = style
        one = style == "messages"  # vLLM embeds one conversation per request; infinity accepts 32 images
        self.limits = Limits(images=1, texts=1, concurrency=8) if one else Limits(images=32, texts=64)

    def card(self, fetch: Fetch) -> TeacherCard:
        """Query the description of the server; see `Wire.card`."""
        entry = self._entry(self._listed(fetch))
        self.model = str(entry["id"])
        # A vl2v server with an incomplete description is rejected by `_described`, not taken for a free server.
        if "identity" in entry or "price_per_1000_images" in entry or entry.get("owned_by") == "vl2v":
            return self._described(_flat(entry))
        self._know_by_name(entry)
        price = self._price_of_another()
        if self.options.dimension is None and not price.free:
            step = f"add it: {self.base}#dimension=512"
            raise TeacherError(f"{self.base} does not state its dimension.", expected="a number", next_step=step)
        # Another address may serve another model under the same name, so the address is part of the identity.
        return TeacherCard(
            identity=f"{self.base}#{self.model}",
            revision="unversioned",
            dimension=self.options.dimension or 0,  # 0: determined by a query
            logit_scale=self.options.logit_scale or 100.0,
            price=price,
            batch_size=self.limits.images,
        )

    def prove(self, ask: Ask) -> None:
        """See `Wire.prove`: one image, and its data URI as a text, for a free server other than vl2v's."""
        if self._ours or not self.price().free:
            return
        styles = [self.options.style] if self.options.style else [self.style, *(s for s in STYLES if s != self.style)]
        find_style(self.base, styles, self._use, ask, data_uri(PROBE))

    def _listed(self, fetch: Fetch) -> Any:
        """Fetch the list of models at the given address, or else with ``/v1`` added or removed."""
        bare = self.base.removesuffix(VERSION)
        others = (self.base, bare if self.base.endswith(VERSION) else self.base + VERSION)
        faults = []
        for base in others:
            try:
                answer = fetch(f"{base}/models")
            except TeacherError as error:
                if "HTTP 404" not in error.problem:
                    raise
                faults.append(error)
                continue
            self.base = base
            return answer
        if self.model:  # specified by the user, so the list is not needed
            return {"data": [{"id": self.model}]}
        raise TeacherError(
            f"There is no list of models at {others[0]}/models, nor at {others[1]}/models (HTTP 404).",
            expected="an OpenAI-compatible server",
            found=faults[0].found,
            next_step=f"check the address; if the server has no list, specify the model: {self.base}#model=...",
        ) from faults[0]

    def _know_by_name(self, entry: Mapping[str, Any]) -> None:
        """Select the image format of a server from the owner that it states, and check that it embeds images."""
        owner, able = entry.get("owned_by"), entry.get("capabilities")
        if owner == "vllm" and not self.options.style:
            self._use("messages")
        if owner == "infinity" and isinstance(able, list) and "image_embed" not in able:
            raise TeacherError(
                f"{self.base} serves '{self.model}', which does not embed images.",
                expected="the capability image_embed",
                found=", ".join(map(str, able)),
                next_step="serve a CLIP-like model: infinity_emb v2 --model-id <a CLIP>",
            )

    def _price_of_another(self) -> Price:
        """Return the price of a server other than vl2v's. Only one on this machine is free by default."""
        if self.own_price is None and not is_local(host_of(self.base)):
            raise TeacherError(
                f"The price of {self.base} is unknown.",
                expected="a price, to enforce the budget, or confirmation that it is free",
                found="neither",
                next_step="add --price-per-1000-images and --price-per-1000-texts, or --free if it charges nothing"
                " (in a config: teacher.free: true; in Python: price=Price())",
            )
        if self.own_price is None:
            self.price_note = (
                f"{self.base} states no price and is assumed to be free; if it forwards requests to a vendor that"
                " charges, add --price-per-1000-images and --price-per-1000-texts"
            )
        return self.own_price or Price()

    def price(self) -> Price:
        """Return the price of the server; known after a call of `card`."""
        return self.own_price or Price()

    def content(self, kind: Kind, items: Sequence[Any]) -> Any:
        """See `Wire.content`."""
        request: dict[str, Any] = {"model": self.model, "encoding_format": "base64" if self._ours else "float"}
        if kind == "text":
            return request | some_texts(self.style, items)
        return request | one_image(self.style, [data_uri(image) for image in items], self.options.image_text)

    def origin(self, answer: Any) -> Origin:
        """See `Wire.origin`; a vl2v server also states its revision and its logit scale."""
        origin = super().origin(answer)
        return replace(origin, **_version(answer)) if self._ours and isinstance(answer, dict) else origin

    def origin_now(self, fetch: Fetch) -> Origin:
        """See `Wire.origin_now`; only for a vl2v server."""
        return Origin(**_version(self._entry(fetch(f"{self.base}/models")))) if self._ours else Origin()

    def charged(self, kind: Kind, count: int, answer: Any) -> Decimal | None:
        """See `Wire.charged`: ``usage.cost`` of a vl2v server."""
        usage = answer.get("usage") if isinstance(answer, dict) else None
        cost = usage.get("cost") if isinstance(usage, dict) and self._ours else None
        return None if cost is None else _money(cost, "usage.cost")

    def _entry(self, answer: Any) -> Mapping[str, Any]:
        try:
            entries = {str(entry["id"]): entry for entry in answer["data"]}
        except (LookupError, TypeError) as error:
            raise TeacherError(
                f"{self.base}/models does not return a list of models.",
                expected='{"data":[{"id":..}]}',
                found="other content",
                next_step="check the address, which usually ends in /v1",
            ) from error
        name = self.model or (next(iter(entries)) if len(entries) == 1 else "")
        if name not in entries:
            raise TeacherError(
                f"{self.base} has no model '{name}'." if name else f"{self.base} has several models.",
                expected="one of " + ", ".join(sorted(entries)),
                found=name or "none named",
                next_step=f"specify it: {self.base}#model={next(iter(sorted(entries)), '...')}",
            )
        entry = entries[name]
        assert isinstance(entry, Mapping)
        return entry

    def _described(self, entry: Mapping[str, Any]) -> TeacherCard:
        if self.own_price is not None:
            step = "drop --price-per-1000-images and --price-per-1000-texts, or --free"
            raise TeacherError(f"{self.base} states its own price.", expected="no price from you", next_step=step)
        try:
            price = Price(
                _money(entry["price_per_1000_images"], "price_per_1000_images"),
                _money(entry["price_per_1000_texts"], "price_per_1000_texts"),
                str(entry["currency"]),
            )
            most = max(1, int(entry["max_batch"]))
            dimension, scale = int(entry["dimension"]), float(entry["logit_scale"])
            revision = str(entry["revision"])
            # The ledger relies on keys being remembered for a day; a server that forgets them earlier states so.
            remembers = float(entry.get("idempotency_hours", 24)) >= 24
        except (LookupError, TypeError, ValueError) as error:
            raise TeacherError(
                f"{self.base} does not describe its model as expected.",
                expected="revision, dimension, logit_scale, price_per_1000_images, price_per_1000_texts, currency"
                " and max_batch in GET /v1/models",
                found=f"{type(error).__name__} {error}",
                next_step="check that server and client have the same version",
            ) from error
        self.own_price, self.idempotent, self._ours = price, remembers, True
        # The limits on bytes and pixels are the defaults of a vl2v server.
        self.style = STYLES[0]
        self.limits = Limits(most, most, request_bytes=32 * MEGA, image_bytes=10 * MEGA, image_pixels=20 * MEGA)
        return TeacherCard(str(entry["identity"]), revision, dimension, scale, price, most)


def _version(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the revision and the logit scale in a description; None for what is missing."""
    revision, scale = description.get("revision"), description.get("logit_scale")
    return {
        "revision": None if revision is None else str(revision),
        "logit_scale": None if scale is None else float(scale),
    }


def _flat(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's description with the prices of an object ``price`` moved to the top level."""
    price = entry.get("price")
    stated = {(f"price_{k}" if k.startswith("per_") else k): v for k, v in price.items()} if price else {}
    return {"identity": entry["id"], **stated, **entry}


def _money(value: Any, name: str) -> Decimal:
    try:
        money = Decimal(str(value))
    except InvalidOperation as error:
        raise ValueError(f"{name} is not an amount of money: {value!r}") from error
    if not money.is_finite() or money < 0:
        raise ValueError(f"{name} is not an amount of money: {value!r}")
    return money
