"""Google Vertex AI: ``...:predict`` of multimodalembedding@001, with an OAuth token of google-auth (extra: vertex).

According to "Get multimodal embeddings" in the vendor's documentation. The price of text was not verified and is set to
that of an image.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from vl2v.errors import MissingExtraError, TeacherError
from vl2v.teacher.base import Price
from vl2v.teacher.http.packing import Limits
from vl2v.teacher.http.remote import Kind
from vl2v.teacher.http.vendors.base import Options, Wire, b64
from vl2v.teacher.http.vendors.prices import PriceSource

SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class Vertex(Wire):
    """multimodalembedding. Project and location come from GOOGLE_CLOUD_PROJECT and GOOGLE_CLOUD_LOCATION."""

    name = "vertex"
    needs_key = False
    dimensions = (1408, 128, 256, 512)
    table = Price(Decimal("0.1"), Decimal("0.1"))
    source = PriceSource(
        date(2026, 11, 1), "the vendor's price list", "https://cloud.google.com/vertex-ai/generative-ai/pricing"
    )
    # 120 is the smallest quota of any region.
    limits = Limits(images=1, texts=1, formats=frozenset({"JPEG", "PNG", "BMP"}), requests_per_minute=120)

    def __init__(self, model: str, options: Options | None = None, price: Price | None = None) -> None:
        super().__init__(model, options, price)
        self.location = os.environ.get("GOOGLE_CLOUD_LOCATION", "us-central1")
        self.base = f"https://{self.location}-aiplatform.googleapis.com"
        self._credentials: Any = None
        self._lock = threading.Lock()

    def url(self, kind: Kind) -> str:
        """See `Wire.url`.

        Raises:
            TeacherError: if no project is set.
        """
        project = os.environ.get("GOOGLE_CLOUD_PROJECT", "")
        if not project:
            step = "export GOOGLE_CLOUD_PROJECT=<your project>"
            raise TeacherError("No Google Cloud project is set.", expected="GOOGLE_CLOUD_PROJECT", next_step=step)
        models = f"projects/{project}/locations/{self.location}/publishers/google/models"
        return f"{self.base}/v1/{models}/{self.model}:predict"

    def content(self, kind: Kind, items: Sequence[Any]) -> Any:
        """See `Wire.content`; the vendor truncates texts to 32 tokens."""
        instances = [{"text": i} if kind == "text" else {"image": {"bytesBase64Encoded": b64(i)}} for i in items]
        return {"instances": instances, "parameters": {"dimension": self.dimension}}

    def headers(self, key: str) -> dict[str, str]:
        """See `Wire.headers`; `sign` adds the token."""
        return {}

    def need_packages(self, key: bool) -> None:
        """See `Wire.need_packages`."""
        try:
            import google.auth.transport.requests  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("Google Vertex AI", "vertex", "google-auth") from error

    def sign(self, url: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        """Return a valid token from the application default credentials.

        Raises:
            TeacherError: if there are no credentials.
        """
        import google.auth
        import google.auth.exceptions
        from google.auth.transport.requests import Request

        try:
            with self._lock:
                if self._credentials is None:
                    self._credentials, _ = google.auth.default(scopes=[SCOPE])
                if not self._credentials.valid:
                    self._credentials.refresh(Request())
                return {"authorization": f"Bearer {self._credentials.token}"}
        except google.auth.exceptions.GoogleAuthError as error:
            step = "gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS"
            found = type(error).__name__
            raise TeacherError(
                "No credentials for Google Cloud.", expected="credentials", found=found, next_step=step
            ) from error

    def embeddings(self, kind: Kind, count: int, answer: Any) -> Any:
        """See `Wire.embeddings`; predictions are in the order of the instances."""
        name = "imageEmbedding" if kind == "image" else "textEmbedding"
        return [prediction[name] for prediction in answer["predictions"]]
