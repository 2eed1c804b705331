"""Amazon Bedrock: InvokeModel of Titan Multimodal Embeddings G1 and Amazon Nova Multimodal Embeddings.

Requests have an API key, or are signed by botocore (extra: bedrock). According to "Amazon Titan Multimodal Embeddings
G1", "Use an Amazon Bedrock API key" and "Complete embeddings request and response schema" of Amazon Nova in the
vendor's documentation, the last one read on 2026-11-28.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from vl2v.errors import MissingExtraError, TeacherError
from vl2v.teacher.base import Price
from vl2v.teacher.http.packing import MEGA, Limits
from vl2v.teacher.http.remote import Kind
from vl2v.teacher.http.vendors.base import Options, Verdict, Wire, b64, mime
from vl2v.teacher.http.vendors.prices import PriceSource

PRICES = "https://aws.amazon.com/bedrock/pricing/"
NOVA_SCHEMA = "nova-multimodal-embed-v1"
PROMPT = 200  # bytes of a prompt in a quote; a text has at most as many tokens as bytes


class Bedrock(Wire):
    """amazon.titan-embed-image-v1. Region and credentials come from the usual AWS settings.

    Without an API key in AWS_BEARER_TOKEN_BEDROCK, requests are signed with Signature Version 4.
    """

    name = "bedrock"
    key_names = ("AWS_BEARER_TOKEN_BEDROCK",)
    needs_key = False
    dimensions: tuple[int, ...] = (1024, 384, 256)
    per_text_token = Decimal("0.80") / MEGA
    table: Price | None = Price(Decimal("0.06"), PROMPT * per_text_token * 1000)
    source = PriceSource(date(2026, 2, 20), "LiteLLM's price list for us-east-1, in pull request 21646", PRICES)
    limits = Limits(images=1, texts=1, image_bytes=5 * MEGA, formats=frozenset({"JPEG", "PNG"}), concurrency=8)

    def __init__(self, model: str, options: Options | None = None, price: Price | None = None) -> None:
        super().__init__(model, options, price)
        self.region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        self.base = f"https://bedrock-runtime.{self.region}.amazonaws.com"
        self._session: Any = None

    @classmethod
    def for_model(cls, model: str) -> type[Wire]:
        """See `Wire.for_model`; the models of the family Nova have another format."""
        return Nova if "amazon.nova" in model else cls

    def url(self, kind: Kind) -> str:
        """See `Wire.url`."""
        return f"{self.base}/model/{quote(self.model, safe='')}/invoke"

    def content(self, kind: Kind, items: Sequence[Any]) -> Any:
        """See `Wire.content`. Image and text are never sent together, since the response would be their average."""
        (item,) = items
        request = {"inputText": item} if kind == "text" else {"inputImage": b64(item)}
        return request | {"embeddingConfig": {"outputEmbeddingLength": self.dimension}}

    def headers(self, key: str) -> dict[str, str]:
        """See `Wire.headers`; without an API key, `sign` adds the signature."""
        return {"accept": "application/json"} | super().headers(key)

    def need_packages(self, key: bool) -> None:
        """See `Wire.need_packages`; a request with an API key needs none."""
        if not key:
            try:
                import botocore.session  # noqa: F401
            except ImportError as error:
                raise MissingExtraError("Amazon Bedrock without an API key", "bedrock", "boto3") from error

    def sign(self, url: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        """Return the headers of AWS Signature Version 4; none for a request with an API key.

        Raises:
            TeacherError: if there are no credentials.
        """
        if "authorization" in headers:
            return {}
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.session import Session

        self._session = self._session or Session()
        credentials = self._session.get_credentials()
        if credentials is None:
            step = "export AWS_BEARER_TOKEN_BEDROCK (an API key of Bedrock); or aws configure, or export"
            step += " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            raise TeacherError("There are no credentials for Amazon Web Services.", expected="a key", next_step=step)
        request = AWSRequest(method="POST", url=url, data=body, headers=dict(headers))
        SigV4Auth(credentials.get_frozen_credentials(), "bedrock", self.region).add_auth(request)
        return {str(name): str(value) for name, value in request.headers.items()}

    def embeddings(self, kind: Kind, count: int, answer: Any) -> Any:
        """See `Wire.embeddings`.

        Raises:
            ValueError: if the response is an error.
        """
        if answer.get("message"):
            raise ValueError("the model returned an error instead of an embedding")
        return [answer["embedding"]]

    def verdict(self, status: int, headers: Mapping[str, str], answer: Any) -> Verdict:
        """See `Wire.verdict`; throttling is temporary, an exhausted quota is final."""
        kind = headers.get("x-amzn-errortype", "").split(":")[0]
        if kind in ("ThrottlingException", "ModelNotReadyException"):
            return Verdict(False, False)
        if kind == "ServiceQuotaExceededException":
            return Verdict(True, False, self.step(402))
        return super().verdict(status, headers, answer)


class Nova(Bedrock):
    """amazon.nova-2-multimodal-embeddings-v1:0; the price is that of a standard image in us-east-1.

    The vendor describes ``GENERIC_INDEX`` for stored images and ``IMAGE_RETRIEVAL`` for the texts that search them.
    Class prompts search images, so these two are the default.
    """

    dimensions = (3072, 1024, 384, 256)
    per_text_token = Decimal("0.135") / MEGA
    table = Price(Decimal("0.06"), PROMPT * per_text_token * 1000)
    limits = replace(Bedrock.limits, formats=frozenset({"JPEG", "PNG", "WEBP", "GIF"}))
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
        return {"schemaVersion": NOVA_SCHEMA, "taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": request}

    def embeddings(self, kind: Kind, count: int, answer: Any) -> Any:
        """See `Wire.embeddings`.

        Raises:
            ValueError: if the response does not contain exactly one embedding.
        """
        (entry,) = answer["embeddings"]
        return [entry["embedding"]]
