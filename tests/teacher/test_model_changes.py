"""Vendors that change their model, scale or dimension during a purchase, announced or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from misbehaving_vendor import PER_IMAGE, PER_TEXT, UnreliableVendor, answer_to, digests_of, picture
from test_unreliable_vendor import buy, teacher_of

from vl2v.errors import TeacherError
from vl2v.runs.folder import RunFolder
from vl2v.runs.start_checks import ensure_same_model
from vl2v.teacher.base import Price, TeacherCard
from vl2v.teacher.http.client import HttpTeacher
from vl2v.teacher.http.uri import open_wire
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.ledger import Budget, Ledger
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.teacher.purchase.watch import TeacherWatch

CONTENTS = [picture(i) for i in range(40)]


class ChangingVendor(UnreliableVendor):
    """Adds `changes` to its answers after `after` requests and does not repeat answers of the old model."""

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
    ("change", "message"),
    [
        ({"revision": "2"}, r"expected: revision 1, as quoted(.|\n)*found: revision 2"),
        ({"logit_scale": 55.5}, r"expected: logit scale 20, as quoted(.|\n)*found: logit scale 55.5"),
    ],
)
def test_a_change_stops_the_purchase_and_stores_nothing_new(
    store: EmbeddingStore, change: dict[str, Any], message: str
) -> None:
    with ChangingVendor(2, **change) as vendor:
        teacher = teacher_of(vendor, "concurrency=1")
        with pytest.raises(TeacherError, match=rf"test:clip changed its model during the purchase(.|\n)*{message}"):
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


@pytest.mark.parametrize("change", [{"revision": "2"}, {"logit_scale": 55.5}])
def test_answers_without_a_revision_are_compared_with_the_description(
    store: EmbeddingStore, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with UnreliableVendor(max_batch=8) as vendor:
        described = vendor.models()

        def models() -> dict[str, Any]:
            late = vendor.meter.requests > 2
            return described | {"data": [described["data"][0] | (change if late else {})]}

        monkeypatch.setattr(vendor, "models", models)
        teacher = teacher_of(vendor, "concurrency=1")
        with pytest.raises(TeacherError, match="changed its model during the purchase"):
            buy(teacher, store, CONTENTS, Decimal(1))
        assert Ledger(store).spent() == vendor.meter.money == PER_IMAGE * 24
    assert store.knows_images(teacher.describe(), digests_of(CONTENTS)).sum() == 16


def test_the_key_and_a_header_name_the_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[httpx.Headers] = []
    keys = []
    for revision in ("1", "2 · ünïcode\n"):
        with UnreliableVendor() as vendor:
            models = vendor.models()
            models["data"][0]["revision"] = revision
            monkeypatch.setattr(vendor, "models", partial(dict, models))
            teacher = teacher_of(vendor)
            teacher.embed_texts(["a"])
            keys.append(teacher.order("text", ["a"]).key)
            seen.append(httpx.Headers(vendor.meter.headers[0]))
    assert len(set(keys)) == 2
    assert [headers["idempotency-key"] for headers in seen] == keys
    assert [headers["vl2v-revision"] for headers in seen] == ["1", "2%20%C2%B7%20%C3%BCn%C3%AFcode%0A"]


class Drifting(UnreliableVendor):
    """A server without revisions that names another model or scales its rows after `after` answers."""

    def __init__(self, after: int, model: str = "clip", scale: float = 1.0, *, unit: bool = True) -> None:
        super().__init__(idempotent=False)
        self.answered, self.after, self.model, self.scale, self.unit = 0, after, model, scale, unit

    def embed(self, body: bytes, key: str) -> bytes:
        answer: dict[str, Any] = json.loads(super().embed(body, key))
        self.answered += 1
        late = self.answered > self.after
        answer["model"] = self.model if late else "clip"
        for item in answer["data"]:
            row = np.array(item["embedding"])
            row = row / np.linalg.norm(row) if self.unit else row
            item["embedding"] = (row * (self.scale if late else 1)).tolist()
        return json.dumps(answer).encode()


class NoCheck(TeacherWatch):
    """A watch that checks nothing."""

    def __init__(self) -> None: ...

    def texts(self, *_: object) -> None: ...

    def images(self, *_: object, **__: object) -> None: ...


def buy_watched(vendor: UnreliableVendor, store: EmbeddingStore, watch: NoCheck | None) -> HttpTeacher:
    teacher = teacher_of(vendor, "concurrency=1&dimension=4", Price(PER_IMAGE * 1000, PER_TEXT * 1000))
    teacher.wire.limits = type(teacher.wire.limits)(8, 8)
    buyer = Buyer(teacher, store, Budget(Decimal(1)), "r", watch=watch)
    buyer.images(digests_of(CONTENTS), CONTENTS.__getitem__, "training")
    return teacher


@pytest.mark.parametrize(
    ("vendor", "message"),
    [
        (Drifting(2, model="clip-v2"), "model clip, as before(.|\n)*model clip-v2"),
        (Drifting(2, scale=1.5), "length 1 to 1, as before(.|\n)*length 1.5"),
        (Drifting(2, scale=20, unit=False), "length [0-9.]+ to [0-9.]+, as before(.|\n)*length [0-9.]+"),
    ],
)
def test_an_unannounced_change_is_noticed_by_model_name_and_norm(
    store: EmbeddingStore, vendor: Drifting, message: str
) -> None:
    with vendor:
        with pytest.raises(TeacherError, match=rf"seems to have changed its model(.|\n)*{message}"):
            buy_watched(vendor, store, NoCheck())
        assert len(store.lengths(teacher_card(vendor), "image", 99)) == 16
        assert Ledger(store).spent() == vendor.meter.money == PER_IMAGE * 24
        buy_watched(vendor, store, None)
        assert len(store.lengths(teacher_card(vendor), "image", 99)) == len(CONTENTS)


def teacher_card(vendor: UnreliableVendor) -> TeacherCard:
    return teacher_of(vendor, "dimension=4", Price(PER_IMAGE * 1000, PER_TEXT * 1000)).describe()


def test_varying_norms_are_not_a_change(store: EmbeddingStore) -> None:
    with Drifting(2, scale=1.6, unit=False) as vendor:
        buy_watched(vendor, store, NoCheck())
    with Drifting(0) as vendor:
        buy_watched(vendor, store, NoCheck())


def test_a_run_does_not_continue_with_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    with UnreliableVendor() as vendor:
        described = vendor.models()

        def open_again(**change: Any) -> HttpTeacher:
            monkeypatch.setattr(vendor, "models", lambda: {"data": [described["data"][0] | change]})
            return HttpTeacher(open_wire(vendor.url))

        ensure_same_model(folder, open_again())
        ensure_same_model(folder, open_again())
        with pytest.raises(TeacherError, match=r"expected: revision 1(.|\n)*found: revision 2(.|\n)*another --out"):
            ensure_same_model(folder, open_again(revision="2"))
        ensure_same_model(folder, open_again())
