"""The unmodified `openai` package against a real server: its requests and how it reads the answers."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from vendor_fixtures import key, server, spawner, teacher  # noqa: F401
from vendor_serving import Server, Spawner, new_key, picture

openai = pytest.importorskip("openai")


@pytest.fixture
def client(server: Server, key: str) -> Iterator[Any]:
    with openai.OpenAI(api_key=key, base_url=f"{server.url}/v1", max_retries=0) as one:
        yield one


def rows(answer: Any) -> np.ndarray[Any, Any]:
    assert [entry.index for entry in answer.data] == list(range(len(answer.data)))
    return np.array([entry.embedding for entry in answer.data], np.float32)


def uri(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


TEXTS = ["a drawing of a clock", "ein Hund, größer", "猫"]


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_texts_are_embedded(client: Any, server: Server, teacher: Any, encoding: str | None) -> None:
    options = {} if encoding is None else {"encoding_format": encoding}
    answer = client.embeddings.create(model=server.model, input=TEXTS, **options)
    if encoding == "base64":
        embeddings = np.stack([np.frombuffer(base64.b64decode(e.embedding), "<f4") for e in answer.data])
    else:
        embeddings = rows(answer)
    np.testing.assert_allclose(embeddings, teacher.embed_texts(TEXTS), atol=1e-6)
    assert answer.model == server.model
    assert answer.object == "list"
    usage = answer.usage.model_dump()
    assert (usage["images"], usage["text_inputs"], usage["billed_units"]) == (0, 3, 3)
    assert Decimal(usage["cost"]) == Decimal("0.0003")


def test_floats_and_base64_are_the_same_numbers(client: Any, server: Server) -> None:
    one = client.embeddings.create(model=server.model, input="one", encoding_format="float")
    two = client.embeddings.create(model=server.model, input="one", encoding_format="base64")
    packed = np.frombuffer(base64.b64decode(two.data[0].embedding), "<f4")
    np.testing.assert_array_equal(rows(one)[0], packed)


def test_images_are_accepted_in_every_form(client: Any, server: Server, teacher: Any) -> None:
    files = [picture(1), picture(2, "JPEG"), picture(3, "WEBP"), picture(4, "WEBP", lossless=True)]
    expected = teacher.embed_images(files)
    plain = [base64.b64encode(data).decode() for data in files]
    forms: dict[str, tuple[list[Any], dict[str, str]]] = {
        "data URIs": ([uri(data) for data in files], {"modality": "image"}),
        "base64 items": ([{"image": text} for text in plain], {}),
        "data URI items": ([{"image": uri(data)} for data in files], {}),
        "content": ([{"content": [{"type": "image_url", "image_url": {"url": uri(data)}}]} for data in files], {}),
    }
    for inputs, extra in forms.values():
        answer = client.embeddings.create(model=server.model, input=inputs, extra_body=extra)
        np.testing.assert_allclose(rows(answer), expected, atol=1e-5)
        assert answer.usage.model_dump()["images"] == 4


def test_images_and_texts_in_one_request_keep_their_order(client: Any, server: Server, teacher: Any) -> None:
    file = base64.b64encode(picture(5)).decode()
    inputs = [{"text": "a"}, {"image": file}, {"content": [{"type": "text", "text": "b"}]}, "c", {"image": file}]
    answer = client.embeddings.create(model=server.model, input=inputs)
    a, b, c = teacher.embed_texts(["a", "b", "c"])
    image = teacher.embed_images([picture(5)])[0]
    np.testing.assert_allclose(rows(answer), [a, image, b, c, image], atol=1e-5)
    usage = answer.usage.model_dump()
    assert (usage["images"], usage["text_inputs"]) == (2, 3)


def test_a_data_uri_without_modality_is_a_text(client: Any, server: Server, teacher: Any) -> None:
    text = uri(picture(6, size=(4, 4)))
    answer = client.embeddings.create(model=server.model, input=[text])
    assert answer.usage.model_dump()["text_inputs"] == 1
    np.testing.assert_allclose(rows(answer), teacher.embed_texts([text]), atol=1e-6)


def test_models_are_listed(client: Any, server: Server, teacher: Any) -> None:
    card = teacher.describe()
    listed = client.models.list().data
    assert [one.id for one in listed] == [card.identity]
    model = client.models.retrieve(card.identity).model_dump()
    assert model["revision"] == card.revision
    assert model["dimension"] == card.dimension == 32
    assert model["logit_scale"] == pytest.approx(card.logit_scale)
    assert model["max_batch"] == 64
    assert model["idempotency_hours"] == 24
    assert model["price"] == {"per_1000_images": "0.6", "per_1000_texts": "0.1", "currency": "USD"}
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another")


def test_only_the_dimension_of_the_model_is_accepted(client: Any, server: Server) -> None:
    assert len(client.embeddings.create(model=server.model, input="a", dimensions=32).data[0].embedding) == 32
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.embeddings.create(model=server.model, input="a", dimensions=16)
    assert caught.value.body == {
        "message": "This model has 32 dimensions and no others; omit this field.",
        "type": "invalid_request_error",
        "param": "dimensions",
        "code": "invalid_request",
    }


def test_errors_become_exceptions_of_the_package(client: Any, server: Server, key: str) -> None:
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(api_key=key[:-1] + "?", base_url=f"{server.url}/v1").embeddings.create(model="m", input="a")
    with pytest.raises(openai.NotFoundError) as missing:
        client.embeddings.create(model="another", input="a")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.embeddings.create(model=server.model, input=[{"text": "a"}, {"image": "AAAA"}])
    assert (bad.value.code, bad.value.param) == ("invalid_image", "input[1]")
    assert server.usage(key)["billed_units"] == 0


def test_402_is_final_and_costs_nothing(server: Server) -> None:
    key = new_key(server.db, quota="0.0012")  # two images
    client = openai.OpenAI(api_key=key, base_url=f"{server.url}/v1", max_retries=5)
    image = [{"image": base64.b64encode(picture(7)).decode()}]
    client.embeddings.create(model=server.model, input=image)
    with pytest.raises(openai.APIStatusError) as caught:
        client.embeddings.create(model=server.model, input=image * 2)
    assert caught.value.status_code == 402
    assert caught.value.code == "insufficient_quota"
    assert caught.value.response.headers["x-should-retry"] == "false"
    client.embeddings.create(model=server.model, input=image)  # the last one that fits
    with pytest.raises(openai.APIStatusError):
        client.embeddings.create(model=server.model, input="a")
    usage = server.usage(key)
    assert (usage["cost"], usage["remaining"], usage["requests"]) == ("0.0012", "0", 2)


def test_429_and_its_headers(server: Server) -> None:
    key = new_key(server.db, rate=2)
    client = openai.OpenAI(api_key=key, base_url=f"{server.url}/v1", max_retries=0)
    for left in ("1", "0"):
        raw = client.embeddings.with_raw_response.create(model=server.model, input="a")
        assert raw.headers["x-ratelimit-limit-requests"] == "2"
        assert raw.headers["x-ratelimit-remaining-requests"] == left
        assert len(raw.headers["x-request-id"]) == 32
    with pytest.raises(openai.RateLimitError) as caught:
        client.embeddings.create(model=server.model, input="a")
    assert caught.value.code == "rate_limited"
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 30
    assert server.usage(key)["requests"] == 2


def test_the_package_retries_after_a_429(spawner: Spawner, server: Server) -> None:
    key = new_key(server.db, rate=60)
    client = openai.OpenAI(api_key=key, base_url=f"{server.url}/v1", max_retries=3)
    for _ in range(62):
        client.embeddings.create(model=server.model, input="a")
    assert server.usage(key)["requests"] == 62
