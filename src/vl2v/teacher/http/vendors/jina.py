"""Jina AI: ``POST /v1/embeddings`` in the format of OpenAI, with ``{"image"}`` and ``{"text"}`` items.

Limits and error codes according to the vendor's OpenAPI document (api.jina.ai/openapi.json), for the free tier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vl2v.teacher.base import Price
from vl2v.teacher.http.packing import Limits
from vl2v.teacher.http.remote import Kind
from vl2v.teacher.http.vendors.base import Options, Verdict, Wire, b64, error_code

FINAL = frozenset({"AUTHZ_INSUFFICIENT_BALANCE", "INPUT_MODEL_NOT_FOUND"})


class Jina(Wire):
    """jina-clip-v2 and jina-embeddings-v4. The vendor charges per token; the user states the price per 1000 queries."""

    name = "jina"
    base, path = "https://api.jina.ai", "/v1/embeddings"
    key_names = ("JINA_API_KEY",)
    dimensions: tuple[int, ...] = (1024, 768, 512, 256, 128, 64)  # clip-v2 was trained for truncation to these
    limits = Limits(images=16, texts=64, requests_per_minute=500, tokens_per_minute=1_000_000, concurrency=5)

    def __init__(self, model: str, options: Options | None = None, price: Price | None = None) -> None:
        super().__init__(model, options, price)
        if model.startswith("jina-embeddings-v4"):
            self.dimensions = (2048, 1024, 512, 256, 128)

    def content(self, kind: Kind, items: Sequence[Any]) -> Any:
        """See `Wire.content`."""
        inputs = [{"image": b64(item)} if kind == "image" else {"text": item} for item in items]
        form = {"dimensions": self.dimension, "normalized": True, "embedding_type": "float"}
        return {"model": self.model, "input": inputs, **form}

    def verdict(self, status: int, headers: Mapping[str, str], answer: Any) -> Verdict:
        """See `Wire.verdict`; an empty balance is reported with various statuses."""
        if error_code(answer) in FINAL:
            return Verdict(True, False, self.step(404 if "MODEL" in error_code(answer) else 402))
        return super().verdict(status, headers, answer)
