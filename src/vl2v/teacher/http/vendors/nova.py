"""Amazon Nova Multimodal Embeddings on Bedrock: InvokeModel with ``taskType`` SINGLE_EMBEDDING, one input per request.

According to "Complete embeddings request and response schema" in the user guide of Amazon Nova, read on 2026-11-28.
The vendor describes ``GENERIC_INDEX`` for stored images and ``IMAGE_RETRIEVAL`` for the texts that search them. Class
prompts search images, so these two are the default.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from vl2v.teacher.base import Price
from vl2v.teacher.http.packing import MEGA, Limits
from vl2v.teacher.http.remote import Kind
from vl2v.teacher.http.vendors.base import b64, mime
from vl2v.teacher.http.vendors.bedrock import PRICES, PROMPT, Bedrock
from vl2v.teacher.http.vendors.prices import PriceSource

SCHEMA = "nova-multimodal-embed-v1"


class Nova(Bedrock):
    """amazon.nova-2-multimodal-embeddings-v1:0; the price is that of a standard image in us-east-1."""

    dimensions = (3072, 1024, 384, 256)
    per_text_token = Decimal("0.135") / MEGA
    table = Price(Decimal("0.06"), PROMPT * per_text_token * 1000)
    source = PriceSource(date(2026, 2, 20), "LiteLLM's price list for us-east-1, in pull request 21646", PRICES)
    limits = Limits(
        images=1,
        texts=1,
        image_bytes=5 * MEGA,
        formats=frozenset({"JPEG", "PNG", "WEBP", "GIF"}),
        concurrency=8,
    )
    image_purposes = ("GENERIC_INDEX", "CLASSIFICATION", "CLUSTERING", "GENERIC_RETRIEVAL", "IMAGE_RETRIEVAL")
    text_purposes = ("IMAGE_RETRIEVAL", "GENERIC_RETRIEVAL", "CLASSIFICATION", "CLUSTERING", "GENERIC_INDEX")

    def content(self, kind: Kind, items: Sequence[Any]) -> Any:
        """See `Wire.content`. A text that is too long is an error instead of being truncated."""
        (item,) = items
        request: dict[str, Any] = {"embeddingPurpose": self.purpose(kind), "embeddingDimension": self.dimension}
        if kind == "text":
            request["text"] = {"truncationMode": "NONE", "value": item}
        else:
            form = mime(item).removeprefix("image/")
            request["image"] = {"detailLevel": "STANDARD_IMAGE", "format": form, "source": {"bytes": b64(item)}}
        return {"schemaVersion": SCHEMA, "taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": request}

    def vectors(self, kind: Kind, count: int, answer: Any) -> Any:
        """See `Wire.vectors`.

        Raises:
            ValueError: if the response does not contain exactly one embedding.
        """
        (entry,) = answer["embeddings"]
        return [entry["embedding"]]
