"""Voyage AI: ``POST /v1/multimodalembeddings``; ``usage`` contains text_tokens and image_pixels.

According to the vendor's documentation of voyage-multimodal-3.5 and voyage-multimodal-3, which cost the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from vl2v.teacher.base import Price
from vl2v.teacher.http.packing import MEGA, WEB_FORMATS, Limits, image_size
from vl2v.teacher.http.remote import Kind
from vl2v.teacher.http.vendors.base import NO_PURPOSE, Options, Wire, data_uri
from vl2v.teacher.http.vendors.prices import PriceSource

PER_PIXEL, PER_TEXT_TOKEN = Decimal("0.60") / 1000 / MEGA, Decimal("0.12") / MEGA
SMALLEST, LARGEST = 50_000, 2_000_000  # minimum and maximum number of pixels charged for an image
PIXELS_A_TOKEN, TOKENS_A_REQUEST = 560, 320_000
TABLE = Price(LARGEST * PER_PIXEL * 1000, 200 * PER_TEXT_TOKEN * 1000)
PRICED = ("voyage-multimodal-3", "voyage-multimodal-3.5")


class Voyage(Wire):
    """voyage-multimodal-3.5 and voyage-multimodal-3; the user states the price of other models.

    The purpose is ``input_type``. By default none is sent, since it would prepend text to the input.
    """

    name = "voyage"
    base, path = "https://api.voyageai.com", "/v1/multimodalembeddings"
    key_names = ("VOYAGE_API_KEY",)
    per_text_token = PER_TEXT_TOKEN
    dimensions: tuple[int, ...] = (1024,)
    source = PriceSource(date(2026, 11, 1), "the vendor's price list", "https://docs.voyageai.com/docs/pricing")
    image_purposes = text_purposes = (NO_PURPOSE, "query", "document")
    unstated_purposes = (NO_PURPOSE, NO_PURPOSE)
    limits = Limits(
        images=100,  # the vendor accepts 1000; with smaller requests, less is lost if one fails
        texts=100,
        image_pixels=16 * MEGA,
        request_pixels=PIXELS_A_TOKEN * TOKENS_A_REQUEST,
        formats=WEB_FORMATS,
    )

    def __init__(self, model: str, options: Options | None = None, price: Price | None = None) -> None:
        super().__init__(model, options, price)
        self.table = TABLE if model in PRICED else None
        if model != "voyage-multimodal-3":
            self.dimensions = (1024, 256, 512, 2048)

    def content(self, kind: Kind, items: Sequence[Any]) -> Any:
        """See `Wire.content`."""
        request: dict[str, Any] = {"model": self.model, "truncation": False}
        if purpose := self.purpose(kind):
            request["input_type"] = purpose
        if self.dimension != self.dimensions[0]:
            request["output_dimension"] = self.dimension
        if kind == "text":
            return request | {"inputs": [{"content": [{"type": "text", "text": text}]} for text in items]}
        uris = (data_uri(image) for image in items)
        return request | {"inputs": [{"content": [{"type": "image_base64", "image_base64": uri}]} for uri in uris]}

    def most(self, kind: Kind, items: Sequence[Any]) -> Decimal:
        """See `Wire.most`; an image is charged by its pixels."""
        if self.own_price is not None or kind == "text":
            return super().most(kind, items)
        return sum(min(LARGEST, max(SMALLEST, image_size(image).pixels)) for image in items) * PER_PIXEL

    def charged(self, kind: Kind, count: int, answer: Any) -> Decimal | None:
        """See `Wire.charged`: from ``usage``, with the minimum number of pixels per image of the price list."""
        usage = answer.get("usage") or {}
        if self.own_price is not None or "image_pixels" not in usage:
            return None
        pixels = Decimal(usage["image_pixels"])
        floor = SMALLEST * count if kind == "image" else 0
        return max(pixels, Decimal(floor)) * PER_PIXEL + Decimal(usage.get("text_tokens") or 0) * PER_TEXT_TOKEN
