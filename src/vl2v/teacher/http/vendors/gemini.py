"""Google Gemini API: ``models/...:embedContent`` of gemini-embedding-2, one input per request.

According to "Embeddings" and "Gemini Developer API pricing" in the vendor's documentation, the latter as of 2026-09-20.
The model has no field ``taskType``: the vendor asks for the task as a prefix of a text, and images have none. All parts
of a request share one embedding, so each request has one part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

from vl2v.errors import TeacherError
from vl2v.teacher.base import Price
from vl2v.teacher.http.packing import MEGA, Limits
from vl2v.teacher.http.remote import Kind
from vl2v.teacher.http.vendors import gemini_batch
from vl2v.teacher.http.vendors.base import NO_PURPOSE, Options, Verdict, Wire, b64, mime
from vl2v.teacher.http.vendors.prices import PriceSource

PER_IMAGE, PER_TEXT_TOKEN = Decimal("0.00012"), Decimal("0.20") / MEGA
PREFIX = "task: {purpose} | query: "
TABLE = Price(PER_IMAGE * 1000, 200 * PER_TEXT_TOKEN * 1000)
TEXT_ONLY = ("gemini-embedding-001", "embedding-001", "text-embedding-004")


class Gemini(Wire):
    """gemini-embedding-2, by API key. The user states the price of other models.

    Raises:
        TeacherError: if the model embeds only texts.
    """

    name = "gemini"
    key_names = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    base = "https://generativelanguage.googleapis.com"
    per_text_token = PER_TEXT_TOKEN
    dimensions = (3072, 1536, 768, 512, 256, 128)
    limits = Limits(images=1, texts=1, formats=frozenset({"JPEG", "PNG"}))
    source = PriceSource(
        date(2026, 9, 20), "Gemini Developer API pricing", "https://ai.google.dev/gemini-api/docs/pricing"
    )
    image_purposes = (NO_PURPOSE,)
    text_purposes = (
        NO_PURPOSE,
        "classification",
        "search result",
        "sentence similarity",
        "clustering",
        "question answering",
        "fact checking",
    )

    def __init__(self, model: str, options: Options | None = None, price: Price | None = None) -> None:
        super().__init__(model.removeprefix("models/"), options, price)
        if self.model in TEXT_ONLY:
            problem = f"'{self.model}' embeds only texts."
            raise TeacherError(problem, expected="a model for images and texts", next_step="use gemini-embedding-2")
        self.table = TABLE if self.model.startswith("gemini-embedding-2") else None

    def use_batch_api(self) -> None:
        """See `Wire.use_batch_api`; prompts are few, and are bought by single requests."""
        if self.model != gemini_batch.MODEL:
            super().use_batch_api()
        api = gemini_batch.GeminiBatch(self)
        self.jobs, self.source = api, gemini_batch.SOURCE
        self.table = replace(TABLE, per_1000_images=gemini_batch.PER_1000_IMAGES)
        usual, expires = (int(time.total_seconds() // 3600) for time in (api.usual, api.expires))
        self.price_note = (
            f"images at the price of the batch API: answers usually take up to {usual} hours, and a job that is not"
            f" done after {expires} hours ends without answers; prompts at the full price, at once"
        )

    def url(self, kind: Kind) -> str:
        """See `Wire.url`."""
        return f"{self.base}/v1beta/models/{self.model}:embedContent"

    def headers(self, key: str) -> dict[str, str]:
        """See `Wire.headers`."""
        return {"x-goog-api-key": key}

    def content(self, kind: Kind, items: Sequence[Any]) -> Any:
        """See `Wire.content`."""
        (item,) = items
        part: dict[str, Any] = {"text": self._prefix() + item} if kind == "text" else {}
        if kind == "image":
            part["inline_data"] = {"mime_type": mime(item), "data": b64(item)}
        return {"content": {"parts": [part]}, "output_dimensionality": self.dimension}

    def _prefix(self) -> str:
        purpose = self.purpose("text")
        return PREFIX.format(purpose=purpose) if purpose else ""

    def embeddings(self, kind: Kind, count: int, answer: Any) -> Any:
        """See `Wire.embeddings`."""
        return [answer["embedding"]["values"]]

    def verdict(self, status: int, headers: Mapping[str, str], answer: Any) -> Verdict:
        """See `Wire.verdict`; an invalid key is reported as status 400."""
        if status == 400 and "API_KEY_INVALID" in _reasons(answer):
            return Verdict(True, False, self.step(401))
        return super().verdict(status, headers, answer)

    def most(self, kind: Kind, items: Sequence[Any]) -> Decimal:
        """See `Wire.most`; a text has the prefix of its purpose."""
        return super().most(kind, [self._prefix() + text for text in items] if kind == "text" else items)


def _reasons(answer: Any) -> list[str]:
    """Return the machine-readable reasons of an error response, in ``error.details``."""
    error = answer.get("error") if isinstance(answer, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    return [str(entry.get("reason")) for entry in details or () if isinstance(entry, dict)]
