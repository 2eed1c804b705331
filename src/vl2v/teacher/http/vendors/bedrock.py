"""Amazon Bedrock: InvokeModel of Titan Multimodal Embeddings G1, signed by botocore (extra: bedrock).

According to "Amazon Titan Multimodal Embeddings G1" in the vendor's documentation; prices as of 2026-11. The price of
text was not verified and is set to that of an image.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from vl2v.errors import MissingExtraError, TeacherError
from vl2v.teacher.base import Price
from vl2v.teacher.http.packing import MEGA, Limits
from vl2v.teacher.http.remote import Kind
from vl2v.teacher.http.vendors.base import Options, Verdict, Wire, b64


class Bedrock(Wire):
    """amazon.titan-embed-image-v1. Region and credentials come from the usual AWS settings."""

    name = "bedrock"
    needs_key = False
    dimensions = (1024, 384, 256)
    table = Price(Decimal("0.06"), Decimal("0.06"))
    limits = Limits(images=1, texts=1, image_bytes=5 * MEGA, formats=frozenset({"JPEG", "PNG"}), concurrency=8)

    def __init__(self, model: str, options: Options | None = None, price: Price | None = None) -> None:
        super().__init__(model, options, price)
        self.region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        self.base = f"https://bedrock-runtime.{self.region}.amazonaws.com"
        self._session: Any = None

    def url(self, kind: Kind) -> str:
        """See `Wire.url`."""
        return f"{self.base}/model/{quote(self.model, safe='')}/invoke"

    def content(self, kind: Kind, items: Sequence[Any]) -> Any:
        """See `Wire.content`. Image and text are never sent together, since the response would be their average."""
        (item,) = items
        request = {"inputText": item} if kind == "text" else {"inputImage": b64(item)}
        return request | {"embeddingConfig": {"outputEmbeddingLength": self.dimension}}

    def headers(self, key: str) -> dict[str, str]:
        """See `Wire.headers`; `sign` adds the signature."""
        return {"accept": "application/json"}

    def sign(self, url: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        """Return the headers of AWS Signature Version 4.

        Raises:
            MissingExtraError: if botocore is not installed.
            TeacherError: if there are no credentials.
        """
        try:
            from botocore.auth import SigV4Auth
            from botocore.awsrequest import AWSRequest
            from botocore.session import Session
        except ImportError as error:
            raise MissingExtraError("Amazon Bedrock", "bedrock", "boto3") from error
        self._session = self._session or Session()
        credentials = self._session.get_credentials()
        if credentials is None:
            step = "aws configure, or export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            raise TeacherError("There are no credentials for Amazon Web Services.", expected="some", next_step=step)
        request = AWSRequest(method="POST", url=url, data=body, headers=dict(headers))
        SigV4Auth(credentials.get_frozen_credentials(), "bedrock", self.region).add_auth(request)
        return {str(name): str(value) for name, value in request.headers.items()}

    def vectors(self, kind: Kind, count: int, answer: Any) -> Any:
        """See `Wire.vectors`.

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
