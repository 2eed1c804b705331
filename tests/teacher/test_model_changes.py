"""A vendor that changes its model, its scale or its dimension during a purchase, and one that says nothing of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from misbehaving_vendor import PER_IMAGE, UnreliableVendor, answer_to, picture
from test_unreliable_vendor import buy, digests_of, teacher_of

from vl2v.errors import TeacherError
from vl2v.teacher.ledger import Ledger
from vl2v.teacher.store import EmbeddingStore

CONTENTS = [picture(i) for i in range(40)]


class ChangingVendor(UnreliableVendor):
    """Adds `changes` to its answers after so many; keeps no answers of the old model."""

    def __init__(self, after: int, **changes: Any) -> None:
        super().__init__(max_batch=8)
        self.answered, self.after, self.changes = 0, after, changes

    def embed(self, body: bytes, key: str) -> bytes:
        answer: dict[str, Any] = json.loads(super().embed(body, key))
        answer |= {"revision": "1", "logit_scale": 20.0}
        self.answered += 1
        if self.answered > self.after:
            answer |= self.changes
        return json.dumps(answer).encode()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddingStore]:
    opened = EmbeddingStore(tmp_path / "s.sqlite")
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"revision": "2"}, r"expected: revision 1, as quoted(.|\n)*found: revision 2"),
        ({"logit_scale": 55.5}, r"expected: logit scale 20, as quoted(.|\n)*found: logit scale 55.5"),
    ],
)
def test_a_change_stops_the_purchase_and_stores_nothing_new(
    store: EmbeddingStore, change: dict[str, Any], said: str
) -> None:
    with ChangingVendor(2, **change) as vendor:
        teacher = teacher_of(vendor, "concurrency=1")
        with pytest.raises(TeacherError, match=rf"test:clip changed its model during the purchase(.|\n)*{said}"):
            buy(teacher, store, CONTENTS, Decimal(1))
        assert vendor.meter.requests == 3
        spent = vendor.meter.money
    known = store.knows_images(teacher.describe(), digests_of(CONTENTS))
    assert known.sum() == 16
    expected = np.stack([answer_to(c) for c, k in zip(CONTENTS, known, strict=True) if k])
    assert np.array_equal(store.images(teacher.describe(), digests_of(CONTENTS)[known]), expected)
    assert Ledger(store).spent() == spent == PER_IMAGE * 24
    assert [e.state for e in Ledger(store).entries()] == ["kept", "kept", "sent"]
    assert store.pending(teacher.describe()) == [], "its key would only bring the wrong answer again"


def test_the_key_and_a_header_name_the_revision() -> None:
    seen: list[httpx.Headers] = []
    keys = []
    for revision in ("1", "2 · ünïcode\n"):
        with UnreliableVendor() as vendor:
            models = vendor.models()
            models["data"][0]["revision"] = revision
            vendor.models = lambda models=models: models  # type: ignore[method-assign]
            teacher = teacher_of(vendor)
            teacher.embed_texts(["a"])
            keys.append(teacher.order("text", ["a"]).key)
            seen.append(httpx.Headers(vendor.meter.headers[0]))
    assert len(set(keys)) == 2
    assert [headers["idempotency-key"] for headers in seen] == keys
    assert [headers["vl2v-revision"] for headers in seen] == ["1", "2%20%C2%B7%20%C3%BCn%C3%AFcode%0A"]
