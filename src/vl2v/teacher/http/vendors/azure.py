"""Azure AI Vision: ``retrieval:vectorizeImage`` and ``retrieval:vectorizeText``, one input per request.

According to the vendor's "Image Retrieval" reference, responses contain ``vector`` and ``modelVersion``. The price was
not verified, so the user must state it. The body of a text request was not verified against a document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vl2v.errors import TeacherError
from vl2v.teacher.base import Price
from vl2v.teacher.http.packing import Limits
from vl2v.teacher.http.remote import Kind
from vl2v.teacher.http.vendors.base import Options, Wire

API_VERSION, MODEL_VERSION = "2024-02-01", "2023-04-15"


class Azure(Wire):
    """The multimodal embeddings of a Vision resource.

    Args:
        model: address of the resource, e.g. ``https://<name>.cognitiveservices.azure.com``.
        options: ``model`` selects another model version than 2023-04-15.
        price: price per 1000 queries.
    """

    name = "azure"
    key_names = ("AZURE_VISION_KEY", "VISION_KEY")
    dimensions = (1024,)
    limits = Limits(images=1, texts=1, formats=frozenset({"JPEG", "PNG", "BMP", "WEBP", "TIFF"}))

    def __init__(self, model: str, options: Options | None = None, price: Price | None = None) -> None:
        super().__init__(f"vision/{(options or Options()).model or MODEL_VERSION}", options, price)
        self.base = (model if "://" in model else f"https://{model}").rstrip("/")
        self.version = (options or Options()).model or MODEL_VERSION

    def revision(self) -> str:
        """Return the model version, which every request states."""
        return self.version

    def url(self, kind: Kind) -> str:
        """See `Wire.url`."""
        verb = "vectorizeImage" if kind == "image" else "vectorizeText"
        query = f"api-version={API_VERSION}&model-version={self.version}"
        return f"{self.base}/computervision/retrieval:{verb}?{query}"

    def body(self, kind: Kind, items: Sequence[Any]) -> tuple[bytes, str]:
        """See `Wire.body`; an image is sent as raw bytes."""
        if kind == "image":
            (image,) = items
            return image, "application/octet-stream"
        return super().body(kind, items)

    def content(self, kind: Kind, items: Sequence[Any]) -> Any:
        """See `Wire.content`."""
        (text,) = items
        return {"text": text}

    def headers(self, key: str) -> dict[str, str]:
        """See `Wire.headers`."""
        return {"ocp-apim-subscription-key": key}

    def embeddings(self, kind: Kind, count: int, answer: Any) -> Any:
        """See `Wire.embeddings`.

        Raises:
            TeacherError: if the response is from another model version, whose embeddings are not comparable.
        """
        if answer.get("modelVersion", self.version) != self.version:
            found = str(answer["modelVersion"])[:40]
            problem, step = "The response is from another model version.", "check which version the endpoint offers"
            raise TeacherError(problem, expected=self.version, found=found, next_step=step)
        return [answer["vector"]]
