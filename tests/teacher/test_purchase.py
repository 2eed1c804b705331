from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from misbehaving_vendor import digests_of

from vl2v.errors import BudgetError, TeacherError
from vl2v.teacher.base import Price, TeacherCard, checked, unit_rows
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.ledger import Budget, Ledger, Quote
from vl2v.teacher.purchase.store import EmbeddingStore


@dataclass
class Vendor:
    """A teacher that hashes its inputs and records them; `answer` replaces its answers."""

    price: Price = field(default_factory=Price)
    batch_size: int = 4
    dimension: int = 3
    answer: Any = None
    queried: list[bytes] = field(default_factory=list)

    def describe(self) -> TeacherCard:
        return TeacherCard("test:vendor", "1", self.dimension, 100.0, self.price, self.batch_size)

    def embed_images(self, images: list[bytes]) -> Any:
        self.queried += images
        return self.answer(len(images)) if self.answer else np.stack([hashed(data) for data in images])

    def embed_texts(self, texts: list[str]) -> Any:
        return self.embed_images([text.encode() for text in texts])


def hashed(data: bytes) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(data).digest(), np.uint8)[:3].astype(np.float32) + 1


def contents_of(count: int) -> list[bytes]:
    return [b"content %d" % i for i in range(count)]


def buy(vendor: Vendor, store: EmbeddingStore, contents: list[bytes], budget: Budget, run: str = "run") -> int:
    return Buyer(vendor, store, budget, run).images(digests_of(contents), contents.__getitem__, "training")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddingStore]:
    opened = EmbeddingStore(tmp_path / "store.sqlite")
    yield opened
    opened.close()


@settings(max_examples=30, deadline=None)
@given(
    price=st.decimals(0, 50, places=3),
    limit=st.decimals(0, 2, places=3),
    count=st.integers(0, 30),
    batch=st.integers(1, 9),
    restarts=st.integers(1, 3),
)
def test_the_budget_is_never_exceeded(
    tmp_path_factory: pytest.TempPathFactory, price: Decimal, limit: Decimal, count: int, batch: int, restarts: int
) -> None:
    store = EmbeddingStore(tmp_path_factory.mktemp("budget") / "s.sqlite")
    vendor, refused = Vendor(Price(price, price), batch), False
    for _ in range(restarts):
        budget = Budget(limit, Ledger(store).spent("run"))
        try:
            buy(vendor, store, contents_of(count), budget)
            Buyer(vendor, store, budget, "run").texts([f"text {i}" for i in range(5)])
        except BudgetError:
            refused = True
        assert budget.spent == Ledger(store).spent("run") <= limit
    assert Ledger(store).spent() == vendor.price.of(images=len(vendor.queried))
    assert len(vendor.queried) == len(set(vendor.queried))
    if price * (count + 5) / 1000 <= limit:
        assert not refused
        assert len(vendor.queried) == count + 5
    else:
        assert refused
    store.close()


def test_without_a_budget_a_teacher_that_charges_is_refused_before_any_query(store: EmbeddingStore) -> None:
    vendor = Vendor(Price(Decimal(1), Decimal(1)))
    with pytest.raises(BudgetError, match=r"No budget(.|\n)*--budget 0.004"):
        buy(vendor, store, contents_of(9), Budget(None))
    with pytest.raises(BudgetError):
        Buyer(vendor, store, Budget(None), "run").texts(["a"])
    assert vendor.queried == []
    assert Ledger(store).entries() == []


def test_without_a_budget_a_free_teacher_is_queried(store: EmbeddingStore) -> None:
    assert buy(Vendor(), store, contents_of(9), Budget(None)) == 9
    assert Ledger(store).spent() == 0


def test_embeddings_bought_before_the_budget_ends_are_stored(store: EmbeddingStore) -> None:
    vendor = Vendor(Price(Decimal(1000)))
    with pytest.raises(BudgetError, match="--budget 12"):
        buy(vendor, store, contents_of(20), Budget(Decimal(10)))
    assert len(vendor.queried) == 8
    assert store.knows_images(vendor.describe(), digests_of(contents_of(20))).sum() == 8


BAD = {
    "one too few": lambda n: np.ones((n - 1, 3)),
    "one too many": lambda n: np.ones((n + 1, 3)),
    "another dimension": lambda n: np.ones((n, 4)),
    "flat": lambda n: np.ones(n * 3),
    "NaN": lambda n: np.where(np.arange(n * 3).reshape(n, 3) == 5, np.nan, 1.0),
    "infinity": lambda n: np.full((n, 3), np.inf),
    "beyond float32": lambda n: np.full((n, 3), 1e300),
    "zero row": lambda n: np.where(np.arange(n)[:, None] == 1, 0.0, 1.0) * np.ones((n, 3)),
    "strings": lambda n: ["no"] * n,
    "ragged": lambda n: [[1.0, 2.0, 3.0]] * (n - 1) + [[1.0]],
    "nothing": lambda n: None,
}


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("what", ["image", "text"])
def test_an_unusable_answer_is_not_stored_and_is_recorded_as_sent(store: EmbeddingStore, kind: str, what: str) -> None:
    vendor = Vendor(Price(Decimal(1000), Decimal(1000)), answer=BAD[kind])
    buyer, budget = Buyer(vendor, store, Budget(Decimal(100)), "run"), Decimal(4)
    texts = [f"text {i}" for i in range(6)]

    def ask() -> int:
        return buy(vendor, store, contents_of(6), buyer.budget) if what == "image" else buyer.texts(texts)

    with pytest.raises(TeacherError, match="test:vendor returned an unusable response"):
        ask()
    assert not store.knows_images(vendor.describe(), digests_of(contents_of(6))).any()
    assert not any(store.knows_texts(vendor.describe(), texts))
    (entry,) = Ledger(store).entries()
    assert (entry.state, entry.queries, entry.kind) == ("sent", 4, what)
    assert entry.cost == buyer.budget.spent == budget


def test_stored_embeddings_cost_nothing(store: EmbeddingStore) -> None:
    vendor = Vendor(Price(Decimal(1000), Decimal(1000)))
    buy(vendor, store, contents_of(5), Budget(Decimal(100)))
    Buyer(vendor, store, Budget(Decimal(100)), "run").texts(["a", "b"])
    count, none = len(vendor.queried), Budget(None)
    assert buy(vendor, store, contents_of(5), none, "other") == 0
    assert Buyer(vendor, store, none, "other").texts(["b", "a"]) == 0
    assert len(vendor.queried) == count
    assert Ledger(store).spent("other") == 0
    assert buy(vendor, store, contents_of(6), Budget(Decimal(1)), "other") == 1


def test_duplicates_are_bought_once(store: EmbeddingStore) -> None:
    vendor = Vendor(Price(Decimal(1000), Decimal(1000)))
    contents = [*contents_of(3), *contents_of(3), b"content 1"]
    assert buy(vendor, store, contents, Budget(Decimal(3))) == 3
    assert Buyer(vendor, store, Budget(Decimal(2)), "run").texts(["a", "b", "a"]) == 2
    assert len(vendor.queried) == 5


def test_each_embedding_is_stored_under_its_own_image_and_queried_in_another_order(store: EmbeddingStore) -> None:
    vendor, contents = Vendor(), contents_of(40)
    buy(vendor, store, contents, Budget(None))
    assert np.array_equal(store.images(vendor.describe(), digests_of(contents)), np.stack([*map(hashed, contents)]))
    assert vendor.queried != contents
    assert sorted(vendor.queried) == sorted(contents)


def test_the_ledger_sums_by_run(store: EmbeddingStore) -> None:
    vendor = Vendor(Price(Decimal("0.1"), Decimal("0.3"), "EUR"))
    buy(vendor, store, contents_of(5), Budget(Decimal(1)), "one")
    buy(vendor, store, contents_of(8), Budget(Decimal(1)), "two")
    Buyer(vendor, store, Budget(Decimal(1)), "two").texts(["a"])
    ledger = Ledger(store)
    assert ledger.spent("one") == Decimal("0.0005")
    assert ledger.spent("two") == Decimal("0.0006")
    assert ledger.spent() == Decimal("0.0011")
    assert ledger.spent("three") == 0
    assert (ledger.queries(), ledger.queries("two"), ledger.queries("two", "text")) == (8, 3, 1)
    assert [entry.queries for entry in ledger.entries("one")] == [4, 1]
    assert {entry.currency for entry in ledger.entries()} == {"EUR"}


def test_the_cost_of_a_quote_is_exact() -> None:
    quote = Quote(
        "t", {"training": 3, "evaluation": 4}, {"training": 1}, 10, 3, Price(Decimal("0.1"), Decimal("0.7")), {}
    )
    assert (quote.image_queries, quote.text_queries) == (6, 7)
    assert quote.cost == Decimal("0.0055")
    assert Price().free
    assert not Price(per_1000_texts=Decimal("0.001")).free


def test_a_valid_answer_is_accepted_as_any_numpy_type() -> None:
    card = Vendor().describe()
    answer = checked([[1, 2, 3], [4, 5, 6]], 2, card, "image")
    assert answer.dtype == np.float32
    assert answer.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert checked(np.zeros((0, 3)), 0, card, "image").shape == (0, 3)
    assert np.allclose(np.linalg.norm(unit_rows(answer), axis=1), 1)
    assert unit_rows(np.zeros((1, 3))).tolist() == [[0, 0, 0]]
