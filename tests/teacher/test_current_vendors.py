"""Gemini Embedding 2, Amazon Nova, Cohere Embed 5 and voyage-multimodal-3.5: formats, purposes, keys, prices."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from test_wires import (
    BEARER,
    BLUE_URI,
    KEY,
    RED,
    RED64,
    RED_URI,
    Fixture,
    decoded,
    exchange,
    openai,
    refusal,
    row,
    teacher_of,
)
from test_wires import credentials as credentials

from vl2v.api import quote
from vl2v.errors import TeacherError
from vl2v.locations import StoragePaths
from vl2v.teacher.base import Price, TeacherCard
from vl2v.teacher.http.uri import open_wire
from vl2v.teacher.purchase.store import EmbeddingStore

NOVA = "bedrock:amazon.nova-2-multimodal-embeddings-v1:0"
GEMINI_ERROR = {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}


def nova(purpose: str, **item: Any) -> dict[str, Any]:
    request = {"embeddingPurpose": purpose, "embeddingDimension": 3072} | item
    return {
        "schemaVersion": "nova-multimodal-embed-v1",
        "taskType": "SINGLE_EMBEDDING",
        "singleEmbeddingParams": request,
    }


def nova_answer(kind: str, first: float, dimension: int = 3072) -> dict[str, Any]:
    return {"embeddings": [{"embeddingType": kind, "embedding": row(dimension, first)}]}


FIXTURES = {
    "gemini": Fixture(
        source="ai.google.dev, Embeddings, and Gemini Developer API pricing",
        spec="gemini:gemini-embedding-2",
        url="https://generativelanguage.googleapis.com/v1beta/models/gemini-embedding-2:embedContent",
        headers={"x-goog-api-key": KEY, "content-type": "application/json"},
        image_request={
            "content": {"parts": [{"inline_data": {"mime_type": "image/png", "data": RED64}}]},
            "output_dimensionality": 3072,
        },
        answer={"embedding": {"values": row(3072, 1)}},
        texts={"content": {"parts": [{"text": "a"}]}, "output_dimensionality": 3072},
        text_answer={"embedding": {"values": row(3072, 3)}},
        dimension=3072,
        images=1,
        errors=[
            (400, {}, {"error": GEMINI_ERROR | {"details": [{"reason": "API_KEY_INVALID"}]}}, True),
            (400, {}, {"error": GEMINI_ERROR | {"message": "Unable to process input image"}}, True),
            (403, {}, {"error": {"code": 403, "message": "denied", "status": "PERMISSION_DENIED"}}, True),
            (404, {}, {"error": {"code": 404, "message": "models/x is not found", "status": "NOT_FOUND"}}, True),
            (429, {}, {"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED"}}, False),
            (503, {}, {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}, False),
        ],
    ),
    "nova": Fixture(
        source="docs.aws.amazon.com, Complete embeddings request and response schema",
        spec=NOVA,
        url="https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.nova-2-multimodal-embeddings-v1%3A0/invoke",
        headers={"content-type": "application/json", "accept": "application/json"},
        image_request=nova(
            "GENERIC_INDEX", image={"detailLevel": "STANDARD_IMAGE", "format": "png", "source": {"bytes": RED64}}
        ),
        answer=nova_answer("IMAGE", 1),
        texts=nova("IMAGE_RETRIEVAL", text={"truncationMode": "NONE", "value": "a"}),
        text_answer=nova_answer("TEXT", 3),
        dimension=3072,
        images=1,
        errors=[
            (429, {"x-amzn-errortype": "ThrottlingException"}, {"message": "Too many requests"}, False),
            (400, {"x-amzn-errortype": "ValidationException"}, {"message": "bad image"}, True),
            (403, {"x-amzn-errortype": "AccessDeniedException"}, {"message": "no access"}, True),
        ],
    ),
    "cohere 5": Fixture(
        source="docs.cohere.com, Embed API v2 and Announcing Cohere's Embed 5 Models",
        spec="cohere:embed-v5.0-pro",
        url="https://api.cohere.com/v2/embed",
        headers=BEARER,
        image_request={
            "model": "embed-v5.0-pro",
            "embedding_types": ["float"],
            "output_dimension": 2048,
            "input_type": "search_document",
            "images": [RED_URI, BLUE_URI],
        },
        answer={"embeddings": {"float": [row(2048, 1), row(2048, 2)]}},
        texts={
            "model": "embed-v5.0-pro",
            "embedding_types": ["float"],
            "output_dimension": 2048,
            "input_type": "search_query",
            "texts": ["a", "b"],
            "truncate": "NONE",
        },
        text_answer={"embeddings": {"float": [row(2048, 3), row(2048, 4)]}},
        dimension=2048,
        price=Price(per_1000_images=Decimal(1)),  # the table has the price of texts
        errors=[
            (402, {}, {"message": "Please add or update your payment method"}, True),
            (429, {}, {"message": "You are using a Trial key"}, False),
        ],
    ),
    "voyage 3.5": Fixture(
        source="docs.voyageai.com, multimodal embeddings",
        spec="voyage:voyage-multimodal-3.5#dimension=512&image_purpose=document&text_purpose=query",
        url="https://api.voyageai.com/v1/multimodalembeddings",
        headers=BEARER,
        image_request={
            "model": "voyage-multimodal-3.5",
            "truncation": False,
            "input_type": "document",
            "output_dimension": 512,
            "inputs": [
                {"content": [{"type": "image_base64", "image_base64": RED_URI}]},
                {"content": [{"type": "image_base64", "image_base64": BLUE_URI}]},
            ],
        },
        answer=openai(row(512, 1), row(512, 2), text_tokens=0, image_pixels=96, total_tokens=2),
        texts={
            "model": "voyage-multimodal-3.5",
            "truncation": False,
            "input_type": "query",
            "output_dimension": 512,
            "inputs": [{"content": [{"type": "text", "text": "a"}]}, {"content": [{"type": "text", "text": "b"}]}],
        },
        text_answer=openai(row(512, 3), row(512, 4), text_tokens=4, image_pixels=0, total_tokens=4),
        dimension=512,
        cost=Decimal("0.00006"),
        errors=[(401, {}, {"detail": "Provided API key is invalid."}, True)],
    ),
}


@pytest.mark.parametrize("name", FIXTURES)
def test_images_and_texts_as_documented(name: str) -> None:
    seen = exchange(FIXTURES[name])
    if name == "nova":
        assert seen[0].headers["authorization"].startswith("AWS4-HMAC-SHA256 ")


@pytest.mark.parametrize(("name", "case"), [(n, i) for n, f in FIXTURES.items() for i in range(len(f.errors))])
def test_errors_are_final_or_temporary_as_documented(name: str, case: int) -> None:
    error = refusal(FIXTURES[name], case)
    if (name, case) == ("gemini", 0):
        assert error is not None
        assert "GEMINI_API_KEY" in error.next_step


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("gemini", {"embedding": {"values": row(768, 1)}}),
        ("nova", nova_answer("IMAGE", 1, 1024)),
        ("cohere 5", {"embeddings": {"float": [row(1536, 1)]}}),
        ("voyage 3.5", openai(row(1024, 1))),
    ],
)
def test_another_dimension_is_refused_after_one_request(name: str, answer: Any) -> None:
    seen = []

    def reply(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=answer)

    with pytest.raises(TeacherError, match="shape"):
        teacher_of(FIXTURES[name].spec, reply, FIXTURES[name].price).embed_images([RED])
    assert len(seen) == 1


@pytest.mark.parametrize("answer", [{"embeddings": []}, {"embeddings": [{}]}, {"embedding": row(3072, 1)}])
def test_an_answer_of_nova_without_exactly_one_embedding_is_refused(answer: Any) -> None:
    with pytest.raises(TeacherError, match="another format"):
        teacher_of(NOVA, lambda _: httpx.Response(200, json=answer)).embed_images([RED])


@pytest.mark.parametrize("spec", [NOVA, "bedrock:amazon.titan-embed-image-v1"])
def test_an_api_key_of_bedrock_needs_neither_botocore_nor_credentials(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", KEY)
    monkeypatch.setitem(sys.modules, "botocore.auth", None)  # simulates a missing package
    seen = []

    def reply(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(403, json={"message": f"key {KEY} lacks permission"})

    with pytest.raises(TeacherError) as caught:
        teacher_of(spec, reply).embed_images([RED])
    assert seen[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in str(caught.value)
    assert "botocore" not in str(caught.value)


def test_a_key_in_a_separate_header_is_not_sent_unencrypted() -> None:
    teacher = teacher_of("gemini:gemini-embedding-2", lambda _: httpx.Response(500))
    for header in ("x-goog-api-key", "x-key-of-another-package"):
        with pytest.raises(TeacherError, match="unencrypted"):
            teacher._exchange._check_secrecy("http://elsewhere.example/v1", {header: KEY})
        teacher._exchange._check_secrecy("https://elsewhere.example/v1", {header: KEY})


# The purpose is part of the key of the store


def card_of(spec: str) -> TeacherCard:
    return teacher_of(spec, lambda _: httpx.Response(500), Price(Decimal(1), Decimal(1))).describe()


GOLDEN = {  # keys of embeddings that earlier versions stored; they must never change
    "cohere:embed-v4.0": ("cohere:embed-v4.0", "hosted/1536", 1536),
    "cohere:embed-v4.0#dimension=256": ("cohere:embed-v4.0", "hosted/256", 256),
    "cohere:embed-english-v3.0": ("cohere:embed-english-v3.0", "hosted/1024", 1024),
    "voyage:voyage-multimodal-3": ("voyage:voyage-multimodal-3", "hosted/1024", 1024),
    "voyage:voyage-multimodal-3.5": ("voyage:voyage-multimodal-3.5", "hosted/1024", 1024),
    "jina:jina-clip-v2": ("jina:jina-clip-v2", "hosted/1024", 1024),
    "vertex:multimodalembedding@001": ("vertex:multimodalembedding@001", "hosted/1408", 1408),
    "bedrock:amazon.titan-embed-image-v1": ("bedrock:amazon.titan-embed-image-v1", "hosted/1024", 1024),
    "azure:https://mine.cognitiveservices.azure.com": ("azure:vision/2023-04-15", "2023-04-15", 1024),
}


@pytest.mark.parametrize("spec", GOLDEN)
def test_old_stores_keep_their_keys(spec: str) -> None:
    card = card_of(spec)
    assert (card.identity, card.revision, card.dimension) == GOLDEN[spec]


def test_embeddings_of_different_purposes_never_mix(tmp_path: Path) -> None:
    specs = ["cohere:embed-v4.0#image_purpose=search_document", "cohere:embed-v4.0#text_purpose=search_query"]
    specs += ["cohere:embed-v4.0", "voyage:voyage-multimodal-3", "voyage:voyage-multimodal-3#text_purpose=query"]
    specs += [NOVA, f"{NOVA}#image_purpose=CLASSIFICATION&text_purpose=CLASSIFICATION"]
    specs += ["gemini:gemini-embedding-2", "gemini:gemini-embedding-2#text_purpose=search+result"]
    cards = [card_of(spec) for spec in specs]
    assert len({(card.identity, card.revision) for card in cards}) == len(cards)
    store, digests = EmbeddingStore(tmp_path / "s.sqlite"), np.zeros((1, 32), np.uint8)
    store.keep_images(cards[0], digests, np.ones((1, 1536), np.float32), 0, None)
    assert [bool(store.knows_images(card, digests)[0]) for card in cards] == [True] + [False] * (len(cards) - 1)
    store.close()


def test_the_default_purposes_can_be_stated() -> None:
    named = "cohere:embed-v4.0#image_purpose=image&text_purpose=classification"
    assert card_of(named).revision == "hosted/1536"
    assert card_of("voyage:voyage-multimodal-3#text_purpose=none").revision == "hosted/1024"
    assert card_of(NOVA).revision == "hosted/3072;image=GENERIC_INDEX;text=IMAGE_RETRIEVAL"


def test_the_task_of_gemini_is_a_prefix_of_the_text() -> None:
    seen = []

    def reply(request: httpx.Request) -> httpx.Response:
        seen.append(decoded(request.content))
        return httpx.Response(200, json={"embedding": {"values": row(3072, 1)}})

    teacher = teacher_of("gemini:gemini-embedding-2#text_purpose=search+result", reply)
    teacher.embed_texts(["a photo of a dog"])
    assert seen[0]["content"]["parts"] == [{"text": "task: search result | query: a photo of a dog"}]
    assert "taskType" not in seen[0]


@pytest.mark.parametrize(
    ("spec", "offered"),
    [
        ("cohere:embed-v4.0#text_purpose=query", "search_query"),
        ("cohere:embed-english-v3.0#image_purpose=search_document", "image"),
        ("jina:jina-clip-v2#text_purpose=query", "no choice"),
        ("http://localhost:8080/v1#image_purpose=query", "no choice"),
        (f"{NOVA}#image_purpose=classification", "CLASSIFICATION"),
    ],
)
def test_a_purpose_that_the_vendor_does_not_offer_is_refused(spec: str, offered: str) -> None:
    with pytest.raises(TeacherError, match="does not offer this purpose") as caught:
        open_wire(spec)
    assert offered in caught.value.expected


@pytest.mark.parametrize("model", ["gemini-embedding-001", "models/text-embedding-004"])
def test_models_of_gemini_for_texts_only_are_refused(model: str) -> None:
    with pytest.raises(TeacherError, match="embeds only texts"):
        open_wire(f"gemini:{model}")


# Prices


@pytest.mark.parametrize("spec", ["cohere:embed-v5.0-pro", "gemini:gemini-embedding-9", "voyage:voyage-multimodal-9"])
def test_an_unknown_price_has_to_be_stated(spec: str) -> None:
    with pytest.raises(TeacherError, match=r"--price-per-1000-images"):
        teacher_of(spec, lambda _: httpx.Response(500)).describe()


def test_every_table_has_a_date_and_a_source() -> None:
    specs = [f.spec for f in FIXTURES.values()] + list(GOLDEN)
    wires = [wire for wire in map(open_wire, specs) if wire.table is not None]
    assert len(wires) > 6
    for wire in wires:
        assert wire.source is not None, wire.name
        assert date(2026, 1, 1) < wire.source.read <= date(2026, 11, 28)
        assert wire.source.address.startswith("https://")
        assert wire.source.document


@pytest.mark.parametrize("days", [179, 180, 181, 400])
def test_a_quote_reports_a_price_older_than_180_days(
    days: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for domain in ("day", "night"):
        for number, name in enumerate(("cat", "dog")):
            folder = tmp_path / "photos" / domain / name
            folder.mkdir(parents=True)
            for shade in range(4):
                Image.new("RGB", (8, 8), (number * 90, shade * 40, len(domain) * 20)).save(folder / f"{shade}.png")
    teacher = teacher_of("voyage:voyage-multimodal-3.5", lambda _: httpx.Response(500))
    assert teacher.wire.source is not None
    teacher.wire.source = replace(teacher.wire.source, read=date.today() - timedelta(days=days))
    storage = StoragePaths(tmp_path / "cache", tmp_path / "s.sqlite")
    estimate = quote(tmp_path / "photos", teacher, storage=storage)
    note = estimate.to_dict()["note"]
    console = Console(width=1000, record=True, file=io.StringIO())
    console.print(estimate.table())
    assert ("note: " in console.export_text()) is (days > 180)
    if days <= 180:
        assert note == ""
    else:
        assert str(teacher.wire.source.read) in note
        assert f"{days} days ago" in note
        assert "https://docs.voyageai.com/docs/pricing" in note
        assert "--price-per-1000-images" in note
        assert "\n" not in note


def test_the_age_of_a_price_that_is_not_used_does_not_matter() -> None:
    long_ago = date.today() - timedelta(days=999)
    for price, warns in ((None, True), (Price(Decimal(1)), True), (Price(Decimal(1), Decimal(1)), False)):
        wire = open_wire("voyage:voyage-multimodal-3.5", price)
        assert wire.source is not None
        wire.source = replace(wire.source, read=long_ago)
        assert bool(wire.age_note(date.today())) is warns


@pytest.mark.parametrize(
    ("spec", "dollars"), [(NOVA, "0.135"), ("gemini:gemini-embedding-2", "0.20"), ("bedrock:amazon.titan-x", "0.80")]
)
def test_long_texts_reserve_what_they_may_cost(spec: str, dollars: str) -> None:
    teacher = teacher_of(spec, lambda _: httpx.Response(500))
    teacher.describe()
    cost = teacher.order("text", ["x" * 10_000]).cost
    assert Decimal(10_000) * Decimal(dollars) / 10**6 <= cost < Decimal(10_100) * Decimal(dollars) / 10**6
