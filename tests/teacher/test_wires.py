"""Each vendor's wire format, against requests and answers of the shapes that its documents show. None was called."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image

from vl2v.errors import TeacherError
from vl2v.teacher.base import Price
from vl2v.teacher.http.client import HttpTeacher
from vl2v.teacher.http.remote import Account
from vl2v.teacher.http.retry import RetryPolicy
from vl2v.teacher.http.uri import open_wire
from vl2v.teacher.http.vendors.values import data_uri
from vl2v.teacher.registry import ADDRESSED, VENDORS

KEY = "test-key-123"


def image_of(size: tuple[int, int] = (8, 6), form: str = "PNG", colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, form)
    return out.getvalue()


RED, BLUE = image_of(), image_of(colour="blue", form="JPEG")
RED64, BLUE64 = base64.b64encode(RED).decode(), base64.b64encode(BLUE).decode()
RED_URI, BLUE_URI = f"data:image/png;base64,{RED64}", f"data:image/jpeg;base64,{BLUE64}"


def row(dimension: int, first: float) -> list[float]:
    return [first, *[0.25] * (dimension - 1)]


def openai(*rows: list[float], **usage: Any) -> dict[str, Any]:
    data = [{"object": "embedding", "index": i, "embedding": r} for i, r in enumerate(rows)]
    return {
        "object": "list",
        "model": "m",
        "data": data[::-1],
        "usage": usage,
    }  # in any order, because the index identifies the row


@dataclass
class Fixture:
    """A documented exchange with a vendor.

    `image_request` and `texts` are the bodies expected for the two images (or as many as one request takes) and the
    texts; `answer` and `text_answer` what comes back; `errors` maps (status, headers, body) to whether it is final.
    """

    source: str
    spec: str
    url: str
    headers: dict[str, str]
    image_request: Any
    answer: Any
    texts: Any
    text_answer: Any
    dimension: int
    cost: Decimal | None = None
    errors: list[tuple[int, dict[str, str], Any, bool]] = field(default_factory=list)
    text_url: str = ""
    price: Price | None = None
    images: int = 2


BEARER = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}

FIXTURES = {
    "jina": Fixture(
        source="the vendor's OpenAPI document, api.jina.ai/openapi.json, and its embeddings page",
        spec="jina:jina-clip-v2",
        url="https://api.jina.ai/v1/embeddings",
        headers=BEARER,
        image_request={
            "model": "jina-clip-v2",
            "input": [{"image": RED64}, {"image": BLUE64}],
            "dimensions": 1024,
            "normalized": True,
            "embedding_type": "float",
        },
        answer=openai(row(1024, 1), row(1024, 2), total_tokens=8000),
        texts={
            "model": "jina-clip-v2",
            "input": [{"text": "a"}, {"text": "b"}],
            "dimensions": 1024,
            "normalized": True,
            "embedding_type": "float",
        },
        text_answer=openai(row(1024, 3), row(1024, 4), total_tokens=8),
        dimension=1024,
        price=Price(Decimal("0.2"), Decimal("0.01")),
        errors=[
            (403, {}, {"code": "AUTHZ_INSUFFICIENT_BALANCE", "detail": "Insufficient account balance"}, True),
            (400, {}, {"code": "INPUT_MODEL_NOT_FOUND", "detail": "Model 'X' not found"}, True),
            (401, {}, {"code": "AUTH_INVALID_API_KEY", "detail": "Invalid API key"}, True),
            (429, {}, {"code": "RATE_REQUEST_LIMIT_EXCEEDED", "detail": "slow down"}, False),
            (500, {}, {"detail": "oops"}, False),
        ],
    ),
    "cohere": Fixture(
        source="docs.cohere.com, Embed API v2, and Amazon's 'Cohere Embed v4'",
        spec="cohere:embed-v4.0",
        url="https://api.cohere.com/v2/embed",
        headers=BEARER,
        image_request={
            "model": "embed-v4.0",
            "embedding_types": ["float"],
            "output_dimension": 1536,
            "input_type": "image",
            "images": [RED_URI, BLUE_URI],
        },
        answer={
            "id": "x",
            "embeddings": {"float": [row(1536, 1), row(1536, 2)]},
            "meta": {"billed_units": {"image_tokens": 1000}},
        },
        texts={
            "model": "embed-v4.0",
            "embedding_types": ["float"],
            "output_dimension": 1536,
            "input_type": "classification",
            "texts": ["a", "b"],
            "truncate": "NONE",
        },
        text_answer={
            "embeddings": {"float": [row(1536, 3), row(1536, 4)]},
            "meta": {"billed_units": {"input_tokens": 2}},
        },
        dimension=1536,
        cost=Decimal("0.00047"),
        errors=[
            (402, {}, {"message": "Please add or update your payment method"}, True),
            (429, {}, {"message": "You are using a Trial key"}, False),
            (404, {}, {"message": "model not found"}, True),
            (503, {}, None, False),
        ],
    ),
    "voyage": Fixture(
        source="docs.voyageai.com, multimodal embeddings and their API reference",
        spec="voyage:voyage-multimodal-3",
        url="https://api.voyageai.com/v1/multimodalembeddings",
        headers=BEARER,
        image_request={
            "model": "voyage-multimodal-3",
            "truncation": False,
            "inputs": [
                {"content": [{"type": "image_base64", "image_base64": RED_URI}]},
                {"content": [{"type": "image_base64", "image_base64": BLUE_URI}]},
            ],
        },
        answer=openai(row(1024, 1), row(1024, 2), text_tokens=0, image_pixels=2_100_000, total_tokens=3750),
        texts={
            "model": "voyage-multimodal-3",
            "truncation": False,
            "inputs": [{"content": [{"type": "text", "text": "a"}]}, {"content": [{"type": "text", "text": "b"}]}],
        },
        text_answer=openai(row(1024, 3), row(1024, 4), text_tokens=4, image_pixels=0, total_tokens=4),
        dimension=1024,
        cost=Decimal("0.00126"),
        errors=[
            (401, {}, {"detail": "Provided API key is invalid."}, True),
            (400, {}, {"detail": "The request body is not valid JSON"}, True),
            (429, {}, {"detail": "rate limit"}, False),
        ],
    ),
    "vertex": Fixture(
        source="cloud.google.com, Get multimodal embeddings",
        spec="vertex:multimodalembedding@001",
        url="https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1/publishers/google/models/"
        "multimodalembedding@001:predict",
        headers={"authorization": "Bearer token-of-google", "content-type": "application/json"},
        image_request={"instances": [{"image": {"bytesBase64Encoded": RED64}}], "parameters": {"dimension": 1408}},
        answer={"predictions": [{"imageEmbedding": row(1408, 1)}], "deployedModelId": "1"},
        texts={"instances": [{"text": "a"}], "parameters": {"dimension": 1408}},
        text_answer={"predictions": [{"textEmbedding": row(1408, 3)}]},
        dimension=1408,
        images=1,
        errors=[
            (429, {}, {"error": {"code": 429, "message": "Quota exceeded", "status": "RESOURCE_EXHAUSTED"}}, False),
            (403, {}, {"error": {"code": 403, "message": "no", "status": "PERMISSION_DENIED"}}, True),
        ],
    ),
    "bedrock": Fixture(
        source="docs.aws.amazon.com, Amazon Titan Multimodal Embeddings G1, and InvokeModel's errors",
        spec="bedrock:amazon.titan-embed-image-v1",
        url="https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.titan-embed-image-v1/invoke",
        headers={"content-type": "application/json", "accept": "application/json"},
        image_request={"inputImage": RED64, "embeddingConfig": {"outputEmbeddingLength": 1024}},
        answer={"embedding": row(1024, 1), "inputTextTokenCount": 0},
        texts={"inputText": "a", "embeddingConfig": {"outputEmbeddingLength": 1024}},
        text_answer={"embedding": row(1024, 3), "inputTextTokenCount": 3, "message": None},
        dimension=1024,
        images=1,
        errors=[
            (429, {"x-amzn-errortype": "ThrottlingException"}, {"message": "Too many requests"}, False),
            (400, {"x-amzn-errortype": "ServiceQuotaExceededException:x"}, {"message": "quota"}, True),
            (400, {"x-amzn-errortype": "ValidationException"}, {"message": "bad image"}, True),
            (403, {"x-amzn-errortype": "AccessDeniedException"}, {"message": "no access"}, True),
            (404, {"x-amzn-errortype": "ResourceNotFoundException"}, {"message": "no model"}, True),
        ],
    ),
    "azure": Fixture(
        source="learn.microsoft.com, Image Retrieval - Vectorize Image",
        spec="azure:https://mine.cognitiveservices.azure.com/",
        url="https://mine.cognitiveservices.azure.com/computervision/retrieval:vectorizeImage"
        "?api-version=2024-02-01&model-version=2023-04-15",
        text_url="https://mine.cognitiveservices.azure.com/computervision/retrieval:vectorizeText"
        "?api-version=2024-02-01&model-version=2023-04-15",
        headers={"ocp-apim-subscription-key": KEY, "content-type": "application/octet-stream"},
        image_request=RED,
        answer={"vector": row(1024, 1), "modelVersion": "2023-04-15"},
        texts={"text": "a"},
        text_answer={"vector": row(1024, 3), "modelVersion": "2023-04-15"},
        dimension=1024,
        images=1,
        price=Price(Decimal("0.1"), Decimal("0.1")),
        errors=[
            (401, {}, {"error": {"code": "401", "message": "Access denied due to invalid subscription key"}}, True),
            (429, {}, {"error": {"code": "429", "message": "Rate limit"}}, False),
            (415, {}, {"error": {"code": "InvalidRequest", "message": "unsupported media"}}, True),
        ],
    ),
}


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for vendor in ("JINA_API", "COHERE_API", "VOYAGE_API", "AZURE_VISION", "VL2V_API", "GEMINI_API"):
        monkeypatch.setenv(f"{vendor}_KEY", KEY)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    monkeypatch.delenv("GOOGLE_CLOUD_LOCATION", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-aws")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
    google = pytest.importorskip("google.auth")

    class Credentials:
        valid, token = True, "token-of-google"

    monkeypatch.setattr(google, "default", lambda scopes: (Credentials(), "p"))


def teacher_of(spec: str, reply: Callable[[httpx.Request], httpx.Response], price: Price | None = None) -> HttpTeacher:
    policy = RetryPolicy(attempts=2, first=0.0)
    return HttpTeacher(open_wire(spec, price), policy=policy, transport=httpx.MockTransport(reply))


def decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body


def exchange(f: Fixture) -> list[httpx.Request]:
    """Embed the images and texts of a fixture, check requests and answers, and return the requests."""
    seen: list[httpx.Request] = []

    def reply(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=f.answer if len(seen) == 1 else f.text_answer)

    teacher = teacher_of(f.spec, reply, f.price)
    card = teacher.describe()
    assert seen == []  # the description comes from the table
    assert card.dimension == f.dimension
    assert isinstance(teacher, HttpTeacher)
    images, texts = [RED, BLUE][: f.images], ["a", "b"][: f.images]
    order = teacher.order("image", images)
    answer = teacher.fulfil(order, Account())
    assert answer.embeddings[:, 0].tolist() == [1.0, 2.0][: f.images]
    assert answer.cost == f.cost
    assert answer.cost is None or answer.cost > 0
    assert 0 < order.cost <= card.price.of(images=len(images))
    words = teacher.fulfil(teacher.order("text", texts), Account())
    assert words.embeddings[:, 0].tolist() == [3.0, 4.0][: f.images]
    for request, url, body in zip(seen, (f.url, f.text_url or f.url), (f.image_request, f.texts), strict=True):
        assert (request.method, str(request.url)) == ("POST", url)
        assert decoded(request.content) == body
    assert {key: seen[0].headers[key] for key in f.headers} == f.headers
    return seen


def refusal(f: Fixture, case: int) -> TeacherError | None:
    """Answer with an error of a fixture first. Return the message if the error is final, None if it is temporary."""
    status, headers, body, final = f.errors[case]
    seen = []

    def reply(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if len(seen) > 1:
            return httpx.Response(200, json=f.answer)
        return httpx.Response(status, headers=headers, json=body)

    teacher = teacher_of(f.spec, reply, f.price)
    images, error = [RED, BLUE][: f.images], None
    if final:
        with pytest.raises(TeacherError, match=f"HTTP {status}") as caught:
            teacher.embed_images(images)
        error = caught.value
        assert error.next_step
        assert (body.get("detail") or body.get("message") or body["error"]["message"]) in error.found
    else:
        assert len(teacher.embed_images(images)) == len(images)
    assert len(seen) == (1 if final else 2)
    return error


@pytest.mark.parametrize("name", FIXTURES)
def test_images_and_texts_as_documented(name: str) -> None:
    seen = exchange(FIXTURES[name])
    if name == "bedrock":
        assert seen[0].headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
        assert "/us-east-1/bedrock/aws4_request" in seen[0].headers["authorization"]


@pytest.mark.parametrize(("name", "case"), [(n, i) for n, f in FIXTURES.items() for i in range(len(f.errors))])
def test_errors_are_final_or_temporary_as_documented(name: str, case: int) -> None:
    refusal(FIXTURES[name], case)


@pytest.mark.parametrize(
    ("name", "case", "step"),
    [
        ("jina", 0, "no money left"),
        ("jina", 1, "model's name"),
        ("jina", 2, "JINA_API_KEY"),
        ("bedrock", 1, "no money left"),
    ],
)
def test_the_error_code_of_the_vendor_determines_the_next_step(name: str, case: int, step: str) -> None:
    f = FIXTURES[name]
    status, headers, body, _ = f.errors[case]
    reply = httpx.Response(status, headers=headers, json=body)
    with pytest.raises(TeacherError) as caught:
        teacher_of(f.spec, lambda _: reply, f.price).embed_images([RED])
    assert step in caught.value.next_step


@pytest.mark.parametrize("spec", ["jina:jina-clip-v2", "azure:https://h", "cohere:embed-english-v3.0"])
def test_an_unknown_price_has_to_be_stated(spec: str) -> None:
    with pytest.raises(TeacherError, match=r"--price-per-1000-images"):
        teacher_of(spec, lambda _: httpx.Response(500)).describe()
    half = Price(Decimal(1))
    with pytest.raises(TeacherError, match=r"--price-per-1000-texts"):  # texts are not free
        teacher_of(spec, lambda _: httpx.Response(500), half).describe()
    price = Price(Decimal(1), Decimal(2))
    assert teacher_of(spec, lambda _: httpx.Response(500), price).describe().price == price


def test_an_exhausted_quota_is_final_although_its_status_is_429() -> None:
    seen = []

    def reply(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(429, json={"error": {"message": "quota", "code": "insufficient_quota"}})

    with pytest.raises(TeacherError, match="no money left"):
        teacher_of("http://localhost/v1#dimension=4&model=m", lambda r: models(r) or reply(r)).embed_texts(["a"])
    assert len(seen) == 1


def models(request: httpx.Request, **entry: Any) -> httpx.Response | None:
    return httpx.Response(200, json={"data": [{"id": "m"} | entry]}) if request.method == "GET" else None


OURS = {
    "identity": "open_clip:ViT-B-16/openai",
    "revision": "abc",
    "dimension": 4,
    "logit_scale": 99.5,
    "price_per_1000_images": "0.60",
    "price_per_1000_texts": "0.05",
    "currency": "EUR",
    "max_batch": 7,
}


def test_a_vl2v_server_describes_itself() -> None:
    seen = []

    def reply(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        rows = [base64.b64encode(struct.pack("<4f", *row(4, 5))).decode()]
        answer = {"data": [{"index": 0, "embedding": rows[0]}], "usage": {"cost": "0.0006"}}
        return models(request, **OURS) or httpx.Response(200, json=answer)

    teacher = teacher_of("http://127.0.0.1:1/v1", reply)
    card = teacher.describe()
    assert (card.identity, card.revision, card.dimension) == ("open_clip:ViT-B-16/openai", "abc", 4)
    assert (card.logit_scale, card.batch_size) == (99.5, 7)
    assert card.price == Price(Decimal("0.60"), Decimal("0.05"), "EUR")
    assert teacher.idempotent
    order = teacher.order("image", [RED])
    answer = teacher.fulfil(order, Account())
    assert answer.embeddings.tolist() == [row(4, 5)]
    assert answer.cost == order.cost == Decimal("0.0006")
    image_request = {"model": "m", "encoding_format": "base64", "input": [RED_URI], "modality": "image"}
    assert json.loads(seen[1].content) == image_request
    assert seen[1].headers["idempotency-key"] == order.key == teacher.order("image", [RED]).key
    others = [teacher.order("image", [BLUE]), teacher.order("image", [RED], salt="x"), teacher.order("text", ["a"])]
    assert len({order.key, *(other.key for other in others)}) == 4
    moved = teacher_of("http://127.0.0.1:2/v1", reply)
    moved.describe()
    assert moved.order("image", [RED]).key == order.key


def test_our_server_can_state_its_prices_as_an_object() -> None:
    price = {"per_1000_images": "0.60", "per_1000_texts": "0.05", "currency": "EUR"}
    about = {key: OURS[key] for key in ("revision", "dimension", "logit_scale", "max_batch")}
    entry = about | {"owned_by": "vl2v", "price": price}
    teacher = teacher_of("http://localhost/v1", lambda request: models(request, **entry) or httpx.Response(500))
    card = teacher.describe()
    assert (card.identity, card.price) == ("m", Price(Decimal("0.60"), Decimal("0.05"), "EUR"))
    assert teacher.idempotent
    bare = teacher_of("http://localhost/v1", lambda request: models(request, owned_by="vl2v") or httpx.Response(500))
    with pytest.raises(TeacherError, match="does not describe its model"):
        bare.describe()  # it is not treated as a free server


def test_a_server_that_forgets_keys_too_soon_is_not_idempotent() -> None:
    for hours, idempotent in ((24, True), (1, False)):
        entry = OURS | {"idempotency_hours": hours}

        def reply(request: httpx.Request, entry: dict[str, Any] = entry) -> httpx.Response:
            return models(request, **entry) or httpx.Response(500)

        teacher = teacher_of("http://localhost/v1", reply)
        teacher.describe()
        assert teacher.idempotent is idempotent


def test_a_free_server_of_another_kind_is_reported() -> None:
    with pytest.raises(TeacherError, match="another form"):
        teacher_of(
            "http://localhost/v1", lambda request: models(request) or httpx.Response(200, json={"a": 1})
        ).describe()


@pytest.mark.parametrize("lack", ["revision", "dimension", "price_per_1000_images", "currency", "max_batch"])
def test_a_server_that_describes_itself_badly_is_refused(lack: str) -> None:
    entry = {key: value for key, value in OURS.items() if key != lack}
    with pytest.raises(TeacherError, match=lack):
        teacher_of("http://localhost/v1", lambda request: models(request, **entry) or httpx.Response(500)).describe()


def test_a_server_with_a_price_needs_a_stated_dimension() -> None:
    price = Price(Decimal(1), Decimal(1))
    with pytest.raises(TeacherError, match="#dimension=512"):
        teacher_of("http://localhost/v1", lambda request: models(request) or httpx.Response(500), price).describe()


def test_one_of_several_models_has_to_be_named() -> None:
    listed = {"data": [{"id": "b"}, {"id": "a"}]}
    with pytest.raises(TeacherError, match=r"one of a, b(.|\n)*#model=a"):
        teacher_of("http://localhost/v1", lambda _: httpx.Response(200, json=listed)).describe()
    with pytest.raises(TeacherError, match="no model 'c'"):
        teacher_of("http://localhost/v1#model=c", lambda _: httpx.Response(200, json=listed)).describe()


@pytest.mark.parametrize(
    "data",
    [
        [{"index": 0, "embedding": row(4, 1)}, {"index": 0, "embedding": row(4, 2)}],
        [{"index": 0, "embedding": row(4, 1)}, {"index": 2, "embedding": row(4, 2)}],
        [{"index": 0, "embedding": row(4, 1)}],
        [{"index": 0, "embedding": row(4, 1)}, {"index": 1, "embedding": "not base64!"}],
        [{"index": 0, "embedding": row(4, 1)}, {"index": 1, "embedding": [float("nan"), 1, 1, 1]}],
        [{"index": 0, "embedding": row(4, 1)}, {"index": 1, "embedding": [0.0] * 4}],
        [{"index": 0, "embedding": row(4, 1)}, {"index": 1}],
        [],
        None,
        "text",
    ],
)
def test_answers_of_another_form_are_refused(data: Any) -> None:
    def reply(request: httpx.Request) -> httpx.Response:
        return models(request) or httpx.Response(200, content=json.dumps({"data": data}))

    with pytest.raises(TeacherError):
        teacher_of("http://localhost/v1#dimension=4", reply).embed_texts(["a", "b"])


def test_a_redirect_is_not_followed_with_the_key() -> None:
    seen = []

    def reply(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(302, headers={"location": "http://elsewhere/v1/models"})

    with pytest.raises(TeacherError, match="HTTP 302"):
        teacher_of("http://localhost/v1", reply).describe()
    assert len(seen) == 1


@pytest.mark.parametrize("kind", VENDORS)
def test_only_a_vendor_that_is_listed_is_queried_at_the_address_in_its_name(kind: str) -> None:
    """The name in the folder of a stranger must not determine where a key is sent."""
    name = "//stranger.example/v1" if kind in ("http", "https") else "stranger.example"
    host = urlsplit(open_wire(f"{kind}:{name}").url("image")).netloc
    assert (host == "stranger.example") == (kind in ADDRESSED)
    assert kind in ADDRESSED or "stranger" not in host


@pytest.mark.parametrize(("form", "media_type"), [("BMP", "bmp"), ("TIFF", "tiff"), ("WEBP", "webp"), ("GIF", "gif")])
def test_an_image_in_a_request_has_its_media_type(form: str, media_type: str) -> None:
    assert data_uri(image_of(form=form)).startswith(f"data:image/{media_type};base64,")


def test_a_titan_error_in_place_of_an_embedding_is_refused() -> None:
    answer = {"embedding": row(1024, 1), "message": "something went wrong"}
    with pytest.raises(TeacherError):
        teacher_of(FIXTURES["bedrock"].spec, lambda _: httpx.Response(200, json=answer)).embed_images([RED])


def test_azure_embeddings_of_another_model_version_are_refused() -> None:
    f = FIXTURES["azure"]
    reply = httpx.Response(200, json=f.answer | {"modelVersion": "2022-04-11"})
    with pytest.raises(TeacherError, match="another model version"):
        teacher_of(f.spec, lambda _: reply, f.price).embed_images([RED])


def test_a_stated_price_replaces_the_table_and_the_reported_usage() -> None:
    f = FIXTURES["voyage"]
    teacher = teacher_of(f.spec, lambda _: httpx.Response(200, json=f.answer), Price(Decimal(5)))
    assert teacher.describe().price.per_1000_images == 5
    assert teacher.describe().price.per_1000_texts > 0  # from the table
    order = teacher.order("image", [RED, BLUE])
    assert order.cost == Decimal("0.01")
    assert teacher.fulfil(order, Account()).cost is None


def test_a_price_per_pixel_reserves_by_pixels() -> None:
    teacher = teacher_of("voyage:voyage-multimodal-3", lambda _: httpx.Response(500))
    teacher.describe()
    small, middle, large = image_of((10, 10)), image_of((1000, 1000)), image_of((3000, 1000))
    costs = [teacher.order("image", [image]).cost for image in (small, middle, large)]
    assert costs == [Decimal("0.00003"), Decimal("0.0006"), Decimal("0.0012")]  # 50k, 1M and 2M pixels
    assert np.isclose(float(sum(costs)), float(teacher.order("image", [small, middle, large]).cost))
