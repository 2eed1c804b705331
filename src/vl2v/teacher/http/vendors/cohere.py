"""Cohere: ``POST /v2/embed``; responses contain ``embeddings.float`` and ``meta.billed_units``.

Limits according to the documentation of Embed v4 by Cohere and Amazon Bedrock; tokens per image according to Oracle's
documentation of the same model (512 x 512 pixels are about 1,610 tokens). Embed v5 according to the vendor's changelog
"Announcing Cohere's Embed 5 Models" and its Embed API. The price of its image tokens was not found; the user states it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from vl2v.teacher.base import Price
from vl2v.teacher.http.packing import MEGA, Limits, image_size
from vl2v.teacher.http.remote import Kind
from vl2v.teacher.http.vendors.base import Options, Wire, data_uri
from vl2v.teacher.http.vendors.prices import PriceSource

PER_IMAGE_TOKEN, PER_TEXT_TOKEN = Decimal("0.47") / MEGA, Decimal("0.12") / MEGA
LARGEST, SMALLEST = 2_458_624, 3_136  # pixels; the vendor resizes larger and smaller images
PIXELS_A_TOKEN = Decimal(512 * 512) / 1610
CENT = Decimal("0.01")

TABLE = Price(
    (LARGEST / PIXELS_A_TOKEN * PER_IMAGE_TOKEN * 1000).quantize(CENT, "ROUND_CEILING"), 200 * PER_TEXT_TOKEN * 1000
)
"""Maximum prices, for the largest image and for a prompt of 200 bytes."""
LIST = "https://cohere.com/pricing"
SOURCE = PriceSource(date(2026, 11, 1), "the vendor's price list", LIST)
TEXT_TABLES = {  # of Embed v5, whose text tokens cost as many dollars per million
    model: Price(per_1000_texts=200 * Decimal(dollars) / MEGA * 1000)
    for model, dollars in (("embed-v5.0-pro", "0.12"), ("embed-v5.0-fast", "0.08"))
}
SOURCE_V5 = PriceSource(date(2026, 11, 3), "model pages of Vercel and OpenRouter", LIST)
PURPOSES = ("search_document", "search_query", "classification", "clustering")


class Cohere(Wire):
    """embed-v5.0-pro and embed-v5.0-fast, embed-v4.0, and the v3 models with images.

    The user states the price of the v3 models, and of images for Embed v5. The purpose is ``input_type``. By default,
    Embed v5 embeds images as documents and prompts as queries.
    """

    name = "cohere"
    base, path = "https://api.cohere.com", "/v2/embed"
    key_names = ("COHERE_API_KEY", "CO_API_KEY")
    per_text_token = PER_TEXT_TOKEN

    def __init__(self, model: str, options: Options | None = None, price: Price | None = None) -> None:
        super().__init__(model, options, price)
        self.new = model.startswith(("embed-v4", "embed-v5"))
        self.limits = Limits(images=96 if self.new else 1, texts=96, image_bytes=(14 if self.new else 5) * MEGA)
        self.image_purposes = ("image", *PURPOSES) if self.new else ("image",)
        self.text_purposes = ("classification", "search_query", "search_document", "clustering")
        self.unstated_purposes = ("image", "classification")
        self.dimensions = (1024,)
        if model.startswith("embed-v4"):
            self.table, self.source, self.dimensions = TABLE, SOURCE, (1536, 256, 512, 1024)
        elif self.new:
            self.table, self.source = TEXT_TABLES.get(model), SOURCE_V5
            self.dimensions = (2048, 1536, 1024, 768, 512, 256)
            self.image_purposes = PURPOSES
            self.text_purposes = ("search_query", "search_document", "classification", "clustering")
            self.unstated_purposes = None

    def content(self, kind: Kind, items: Sequence[Any]) -> Any:
        """See `Wire.content`."""
        request: dict[str, Any] = {"model": self.model, "embedding_types": ["float"]}
        if self.new:
            request["output_dimension"] = self.dimension
        request["input_type"] = self.purpose(kind)
        if kind == "image":
            return request | {"images": [data_uri(image) for image in items]}
        return request | {"texts": list(items), "truncate": "NONE"}

    def embeddings(self, kind: Kind, count: int, answer: Any) -> Any:
        """See `Wire.embeddings`; rows are in the order of the inputs."""
        return answer["embeddings"]["float"]

    def most(self, kind: Kind, items: Sequence[Any]) -> Decimal:
        """See `Wire.most`; an image is charged by its pixels."""
        if self.own_price is not None or kind == "text":
            return super().most(kind, items)
        sizes = (min(LARGEST, max(SMALLEST, image_size(image).pixels)) for image in items)
        return (
            sum((Decimal(size) / PIXELS_A_TOKEN).to_integral_value("ROUND_CEILING") for size in sizes) * PER_IMAGE_TOKEN
        )

    def charged(self, kind: Kind, count: int, answer: Any) -> Decimal | None:
        """See `Wire.charged`: from ``meta.billed_units``, if it states tokens."""
        units = (answer.get("meta") or {}).get("billed_units") or {}
        if self.own_price is not None or not {"image_tokens", "input_tokens"} & set(units):
            return None
        images, texts = Decimal(units.get("image_tokens") or 0), Decimal(units.get("input_tokens") or 0)
        return images * PER_IMAGE_TOKEN + texts * PER_TEXT_TOKEN
