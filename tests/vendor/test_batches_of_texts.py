"""Default batch sizes of common clients are accepted. Token ids are refused with the setting to change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vendor_serving import HTTP, PlainTeacher, bearer, local_server, new_key

from vl2v.vendor_server.inputs import parse
from vl2v.web.faults import ApiError
from vl2v.web.limits import Limits


def parse_items(items: Any, **fields: Any) -> Any:
    return parse(json.dumps({"model": "m", "input": items, **fields}).encode(), "m", 4, Limits())


@pytest.mark.parametrize("items", [[1, 2, 3], [[1, 2], [3]], [[]], [1] * 5000, [True]])
def test_token_ids_are_refused_with_the_setting_to_change(items: Any) -> None:
    with pytest.raises(ApiError) as caught:
        parse_items(items)
    assert (caught.value.status, caught.value.code) == (422, "token_ids")
    assert "OpenAIEmbeddings(check_embedding_ctx_length=False)" in caught.value.message


def test_2048_texts_fit_and_64_images() -> None:
    assert parse_items(["x"] * 2048).texts == 2048
    image = {"image": "aGVsbG8="}
    assert parse_items([image] * 64).images == 64
    assert len(parse_items([image] * 64 + ["x"] * 2048).items) == 2112
    for items in (["x"] * 2049, [image] * 65, [image] * 65 + ["x"], [image] * 64 + ["x"] * 2049):
        with pytest.raises(ApiError, match="at most 64 images and 2048 texts"):
            parse_items(items)
    assert parse_items("x", output_dimension=4).texts == 1
    with pytest.raises(ApiError, match="4 dimensions"):
        parse_items("x", output_dimension=5)


def test_a_full_batch_over_http_also_without_v1(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(2048)]
    with local_server(PlainTeacher(batch_size=64), tmp_path) as server:
        key = new_key(server.db)
        answer = server.ask(key, {"model": "plain", "input": texts}).json()
        wanted = [PlainTeacher.vector(text.encode()).tolist() for text in texts]
        assert [row["embedding"] for row in answer["data"]] == wanted
        model = HTTP.get(f"{server.url}/models", headers=bearer(key)).json()["data"][0]
        assert (model["max_batch"], model["max_texts"]) == (64, 2048)
        body = {"model": "plain", "input": [texts[0]], "encoding_format": "float"}
        bare = HTTP.post(f"{server.url}/embeddings", json=body, headers=bearer(key))
        assert bare.json()["data"][0]["embedding"] == wanted[0]
        assert server.usage(key)["text_inputs"] == 2049
