"""Third-party servers: images are sent in the format that each accepts, and are never embedded as texts.

The fixtures copy request and answer shapes of these files:

- vLLM: vllm/entrypoints/pooling/base/protocol.py at 020638a (`input: list[int] | list[list[int]] | str | list[str]`,
  `messages`; unknown fields are allowed), answers of vllm/entrypoints/pooling/embed/openai_protocol.py at b76dd59,
  requests of examples/pooling/embed/vision_embedding_online.py at 010ffcc (vllm-project/vllm).
- infinity: infinity_emb/fastapi_schemas/pymodels.py and infinity_emb/infinity_server.py of infinity-emb 0.0.78
  (michaelfeil/infinity); it is run for real in test_infinity.py.
- text-embeddings-inference: router/src/http/types.rs at 02506d0 (huggingface/text-embeddings-inference;
  `OpenAICompatRequest`: `input` is a string or strings, unknown fields are ignored).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from misbehaving_vendor import picture

from vl2v.api import make_config
from vl2v.cli.classes import _priced
from vl2v.errors import ConfigError, TeacherError
from vl2v.planning.models import stated_price
from vl2v.student.model import Student
from vl2v.teacher.base import Price
from vl2v.teacher.http.client import HttpTeacher
from vl2v.teacher.http.retry import RetryPolicy
from vl2v.teacher.http.uri import open_wire
from vl2v.teacher.http.vendors.base import data_uri
from vl2v.teacher.http.vendors.openai_styles import PROBE

IMAGE = picture(1)
PRICE = Price(Decimal(1), Decimal(1))


def vector(kind: str, content: str) -> list[float]:
    return [float(byte) for byte in hashlib.sha256(f"{kind}{content}".encode()).digest()[:6]]


def rows(embeddings: list[list[float]]) -> httpx.Response:
    data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(embeddings)]
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    return httpx.Response(200, json={"object": "list", "model": "m", "data": data, "usage": usage})


def refusal(status: int, message: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": message, "type": "BadRequestError", "code": status}})


def strings(value: Any) -> list[str] | None:
    values = [value] if isinstance(value, str) else value
    return values if isinstance(values, list) and all(isinstance(v, str) for v in values) else None


def vllm(body: dict[str, Any]) -> httpx.Response:
    """Accepts images in `messages` and ignores other fields."""
    if "messages" in body:
        (message,) = body["messages"]
        assert message["role"] == "user"
        parts = [(p["type"], p["text"] if p["type"] == "text" else p["image_url"]["url"]) for p in message["content"]]
        return rows([vector("+".join(kind for kind, _ in parts), "".join(content for _, content in parts))])
    texts = strings(body.get("input"))
    return refusal(400, "1 validation error: input") if texts is None else rows([vector("text", t) for t in texts])


def infinity(body: dict[str, Any]) -> httpx.Response:
    """Images as data URIs with `modality`; at most 32."""
    values = strings(body.get("input"))
    if values is None:
        return httpx.Response(422, json={"detail": [{"loc": ["body", "input"], "msg": "Input should be a string"}]})
    kind = body.get("modality", "text")
    assert kind == "text" or len(values) <= 32
    return rows([vector(kind, value) for value in values])


def tei(body: dict[str, Any]) -> httpx.Response:
    """Texts only."""
    texts = strings(body.get("input"))
    if texts is None:
        return httpx.Response(
            422, text="Failed to deserialize the JSON body into the target type: missing field `input`"
        )
    return rows([vector("text", t) for t in texts])


def strict(body: dict[str, Any]) -> httpx.Response:
    """A server that accepts content items like `vl2v vendor serve`."""
    if extra := body.keys() - {"model", "input", "encoding_format"}:
        return refusal(422, f"unknown fields: {extra}")
    items = body["input"]
    texts = strings(items)
    return rows([vector("text" if texts else "image", json.dumps(item)) for item in items])


MODELS: dict[str, dict[str, Any]] = {
    "vllm": {"id": "openai/clip-vit-base-patch32", "object": "model", "owned_by": "vllm", "max_model_len": 77},
    "infinity": {"id": "m", "object": "model", "owned_by": "infinity", "capabilities": ["embed", "image_embed"]},
    "other": {"id": "m", "object": "model", "owned_by": "somebody"},
}


class Served:
    """A server behind a mock transport, with its list of models at one path."""

    def __init__(self, embed: Callable[[dict[str, Any]], httpx.Response], entry: str, prefix: str = "/v1") -> None:
        self.embed, self.entry, self.prefix = embed, entry, prefix
        self.body: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == f"{self.prefix}/models" and self.entry:
            return httpx.Response(200, json={"object": "list", "data": [MODELS[self.entry]]})
        if request.url.path != f"{self.prefix}/embeddings":
            return httpx.Response(404, json={"detail": "Not Found"})
        self.body.append(json.loads(request.content))
        return self.embed(self.body[-1])

    def teacher(self, url: str = "http://localhost/v1", price: Price | None = None) -> HttpTeacher:
        policy = RetryPolicy(attempts=3, first=0.001)
        return HttpTeacher(open_wire(url, price), policy=policy, transport=httpx.MockTransport(self))


@pytest.mark.parametrize(
    ("server", "style"),
    [
        (Served(vllm, "vllm"), "messages"),
        (Served(vllm, "other"), "messages"),  # behind a proxy that lists models under its own name
        (Served(infinity, "infinity", ""), "infinity"),
        (Served(infinity, "other"), "infinity"),
        (Served(strict, "other"), "content"),
    ],
    ids=["vllm", "vllm-behind-a-proxy", "infinity", "infinity-behind-a-proxy", "content"],
)
def test_images_are_embedded_as_images_by_every_server(server: Served, style: str) -> None:
    teacher = server.teacher()
    assert teacher.describe().dimension == 6
    assert teacher.describe().price.free
    assert teacher.wire.options.style == ""
    images, texts = teacher.embed_images([IMAGE, PROBE]), teacher.embed_texts(["a", "b"])
    uris = [data_uri(IMAGE), data_uri(PROBE)]
    if style == "content":
        wanted = [
            vector("image", json.dumps({"content": [{"type": "image_url", "image_url": {"url": u}}]})) for u in uris
        ]
        np.testing.assert_array_equal(texts, [vector("text", json.dumps(t)) for t in "ab"])
    else:
        wanted = [vector({"messages": "image_url", "infinity": "image"}[style], uri) for uri in uris]
        np.testing.assert_array_equal(texts, [vector("text", t) for t in "ab"])
    np.testing.assert_array_equal(images, wanted)


def test_requests_to_vllm_are_those_of_its_example() -> None:
    server = Served(vllm, "vllm")
    teacher = server.teacher("http://localhost:8000/v1#image_text=Represent+the+given+image.")
    teacher.embed_images([IMAGE])
    parts = [
        {"type": "image_url", "image_url": {"url": data_uri(IMAGE)}},
        {"type": "text", "text": "Represent the given image."},
    ]
    model = {"model": "openai/clip-vit-base-patch32", "encoding_format": "float"}
    assert server.body[-1] == model | {"messages": [{"role": "user", "content": parts}]}
    teacher.embed_texts(["a photo of a cat"])
    text = [{"type": "text", "text": "a photo of a cat"}]
    assert server.body[-1] == model | {"messages": [{"role": "user", "content": text}]}


@pytest.mark.parametrize("style", ["", "&style=infinity", "&style=messages"])
def test_a_server_of_texts_only_is_refused_before_anything_is_bought(style: str) -> None:
    with pytest.raises(TeacherError, match="does not embed images") as caught:
        Served(tei, "").teacher(f"http://localhost/v1#model=gte{style}").describe()
    if style != "&style=messages":
        assert "infinity: an image and its data URI as a text get the same embedding" in caught.value.found
    assert "text-embeddings-inference has none" in caught.value.next_step


def test_a_style_that_the_server_does_not_support_is_refused() -> None:
    with pytest.raises(TeacherError, match="does not embed images"):
        Served(vllm, "vllm").teacher("http://localhost/v1#style=infinity").describe()
    with pytest.raises(TeacherError, match="does not embed images") as caught:
        Served(vllm, "vllm").teacher("http://localhost/v1#style=content").describe()
    assert "1 validation error: input" in caught.value.found


def test_a_server_that_refuses_the_probe_as_a_text_may_still_embed_images() -> None:
    def short(body: dict[str, Any]) -> httpx.Response:
        if "modality" not in body and any(len(text) > 77 for text in body["input"]):
            return refusal(400, "This model's maximum context length is 77 tokens")
        return infinity(body)

    assert Served(short, "other").teacher().embed_images([IMAGE]).shape == (1, 6)


def test_infinity_with_a_text_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "infinity", MODELS["infinity"] | {"capabilities": ["embed"]})
    with pytest.raises(TeacherError, match="does not embed images"):
        Served(infinity, "infinity").teacher().describe()


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize("path", ["", "/v1", "/"])
def test_the_path_is_found_with_and_without_v1(prefix: str, path: str) -> None:
    card = Served(infinity, "infinity", prefix).teacher(f"http://localhost{path}").describe()
    assert card.identity == f"http://localhost{prefix}#m"


def test_a_missing_list_of_models_is_reported_with_the_urls_tried() -> None:
    with pytest.raises(TeacherError, match="no list of models at http://localhost/v1/models, nor at") as caught:
        Served(infinity, "", "/api").teacher().describe()
    assert "#model=..." in caught.value.next_step


# Price


@pytest.mark.parametrize("url", ["https://api.example/v1", "http://10.0.0.5:7997", "https://localhost.example/v1"])
def test_a_remote_server_needs_a_price_or_must_be_declared_free(url: str) -> None:
    server = Served(infinity, "other")
    with pytest.raises(TeacherError, match="is unknown") as caught:
        server.teacher(url).describe()
    assert "--price-per-1000-images" in caught.value.next_step
    assert "--free" in caught.value.next_step
    assert not server.body
    teacher = server.teacher(url, Price())
    assert teacher.describe().price.free
    assert teacher.price_note == ""
    priced = server.teacher(f"{url}#dimension=6", PRICE)
    before = len(server.body)
    assert priced.describe().price == PRICE
    assert len(server.body) == before, "a probe would have cost money"


@pytest.mark.parametrize("url", ["http://localhost:7997", "http://127.0.0.1/v1", "https://[::1]/v1"])
def test_a_server_on_this_machine_is_free_with_a_hint(url: str) -> None:
    teacher = Served(infinity, "other").teacher(url)
    assert teacher.describe().price.free
    assert "assumed to be free" in teacher.price_note
    assert "--price-per-1000-images" in teacher.price_note


def test_the_settings_state_the_price() -> None:
    def price(**teacher: Any) -> Price | None:
        config = {"data": {"root": "."}, "teacher": {"spec": "https://h/v1", **teacher}, "student": {}}
        return stated_price(make_config(None, config))

    assert price() is None
    assert price(free=True) == Price()
    assert price(price_per_1000_images="1") == Price(Decimal(1))
    with pytest.raises(ConfigError, match="cannot have a price and be free"):
        price(free=True, price_per_1000_texts="1")
    with pytest.raises(ConfigError, match="whose price is known"):
        price(free=True, spec="conse:")


def test_a_vendor_whose_price_is_known_is_not_free() -> None:
    with pytest.raises(TeacherError, match="drop --free"):
        open_wire("cohere:embed-v4.0", Price()).price()
    assert open_wire("jina:jina-clip-v2", Price()).price().free
    with pytest.raises(TeacherError, match="--free"):
        open_wire("jina:jina-clip-v2").price()


def test_a_class_is_added_at_the_currently_stated_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run may be older than the requirement to state them."""
    spec = "https://h/v1#dimension=6"
    config = make_config(None, {"data": {"root": "."}, "teacher": {"spec": spec}, "student": {}})
    recorded = {"config": config.model_dump(mode="json"), "teacher": {"identity": "h", "revision": "", "dimension": 6}}
    monkeypatch.setattr(Student, "load", lambda *_: SimpleNamespace(provenance=recorded))
    for free, price, wanted in ((True, None, Price()), (False, "2", Price(Decimal(0), Decimal(2)))):
        teacher = _priced(tmp_path, spec, free, price)
        assert isinstance(teacher, HttpTeacher)
        assert teacher.wire.own_price == wanted
