"""For vendors of any price, faults and speed, every charge is recorded and every record is within the budget.

`make test` tries 50 of them, `make test-rest` a thousand.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import threading
from collections.abc import Iterator
from decimal import Decimal

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from misbehaving_vendor import DIMENSION, answer_to, picture

from vl2v.errors import BudgetError, TeacherError
from vl2v.teacher.base import Price
from vl2v.teacher.http.client import HttpTeacher
from vl2v.teacher.http.retry import CircuitBreaker, RetryPolicy
from vl2v.teacher.http.uri import open_wire
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.ledger import Budget, Ledger
from vl2v.teacher.purchase.store import EmbeddingStore

PICTURES = [picture(i) for i in range(24)]
DIGESTS = np.array([list(hashlib.sha256(p).digest()) for p in PICTURES], np.uint8)
NUMBERS = itertools.count()
NOW = RetryPolicy(attempts=4, first=0.0, unusable=2)
OUTCOMES = ["ok", "429", "500", "lost", "lost unbilled", "nan", "402", "unreached"]


class Scripted:
    """A vendor without a socket that returns `outcomes` in order, then succeeds."""

    def __init__(self, name: str, price: Decimal, once: bool, share: Decimal, outcomes: list[str], batch: int) -> None:
        self.name, self.price, self.once, self.share, self.batch = name, price, once, share, batch
        self.outcomes, self.money, self.lock = list(outcomes), Decimal(0), threading.Lock()
        self.answered_keys: set[str] = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"data": [self.entry()]})
        with self.lock:
            outcome = self.outcomes.pop(0) if self.outcomes else "ok"
            if outcome == "unreached":
                raise httpx.ConnectError("no server")
            if outcome in ("429", "402", "500"):
                return httpx.Response(int(outcome), json={"error": {"message": "no"}})
            if outcome == "lost unbilled":
                raise httpx.ReadError("gone")
            inputs = json.loads(request.content)["input"]
            cost = self.price * len(inputs) / 1000 * self.share
            key = request.headers.get("idempotency-key", "")
            if not (self.once and key in self.answered_keys):
                self.money += cost
            self.answered_keys.add(key)
        if outcome == "lost":
            raise httpx.ReadTimeout("too late")
        rows = [answer_to(base64.b64decode(i.partition(",")[2])).tolist() for i in inputs]
        if outcome == "nan":
            rows[0][0] = float("nan")
        data = [{"index": i, "embedding": row} for i, row in enumerate(rows)]
        usage = {"cost": str(cost)} if self.once else {}
        return httpx.Response(200, content=json.dumps({"data": data, "usage": usage}))

    def entry(self) -> dict[str, object]:
        if not self.once:
            return {"id": self.name}
        prices = {"price_per_1000_images": str(self.price), "price_per_1000_texts": "0", "currency": "USD"}
        about = {"identity": self.name, "revision": "1", "dimension": DIMENSION, "logit_scale": 1.0}
        return {"id": self.name, **about, **prices, "max_batch": self.batch}

    def teacher(self, concurrency: int) -> HttpTeacher:
        options = f"dimension={DIMENSION}&concurrency={concurrency}"
        wire = open_wire(f"http://{self.name}/v1#{options}", None if self.once else Price(self.price))
        if not self.once:
            wire.limits = type(wire.limits)(self.batch, self.batch)
        circuit = CircuitBreaker(threshold=1000)
        return HttpTeacher(wire, policy=NOW, circuit=circuit, transport=httpx.MockTransport(self))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddingStore]:
    opened = EmbeddingStore(tmp_path_factory.mktemp("schedules") / "s.sqlite")
    opened._db.execute("PRAGMA synchronous=OFF")  # power cuts are not tested here
    yield opened
    opened.close()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    price=st.decimals("0.001", 50, places=3),
    limit=st.decimals(0, 2, places=3),
    once=st.booleans(),
    share=st.sampled_from([Decimal(1), Decimal(1), Decimal("0.5")]),
    count=st.integers(0, len(PICTURES)),
    batch=st.integers(1, 9),
    concurrency=st.integers(1, 4),
    outcomes=st.lists(st.sampled_from(OUTCOMES), max_size=14),
    restarts=st.integers(1, 3),
)
@example(  # the second process settles requests of the first
    price=Decimal("3.725"),
    limit=Decimal("0.339"),
    once=True,
    share=Decimal("0.5"),
    count=8,
    batch=3,
    concurrency=3,
    outcomes=["nan", "lost", "lost", "402", "429", "ok", "500", "ok", "402", "500", "429", "nan", "429", "429"],
    restarts=2,
)
def test_a_budget_is_never_exceeded(
    store: EmbeddingStore,
    price: Decimal,
    limit: Decimal,
    once: bool,
    share: Decimal,
    count: int,
    batch: int,
    concurrency: int,
    outcomes: list[str],
    restarts: int,
) -> None:
    name = f"vendor{next(NUMBERS)}"
    vendor, ledger = Scripted(name, price, once, share, outcomes, batch), Ledger(store)
    finished = False
    for _ in range(restarts):
        teacher = vendor.teacher(concurrency)
        budget = Budget(limit, ledger.spent(name))
        try:
            Buyer(teacher, store, budget, name).images(DIGESTS[:count], PICTURES.__getitem__, "training")
            finished = True
        except (BudgetError, TeacherError):
            pass
        assert vendor.money <= ledger.spent(name) == budget.spent <= limit
        teacher.close()
    known = store.knows_images(teacher.describe(), DIGESTS[:count])
    assert known.all() or not finished
    if finished:
        expected = np.array([answer_to(p) for p in PICTURES[:count]], np.float32).reshape(-1, DIMENSION)
        assert np.array_equal(store.images(teacher.describe(), DIGESTS[:count]), expected)
        if once:
            assert vendor.money == ledger.spent(name) == price * count / 1000 * share
    if price * count / 1000 <= limit and not outcomes:
        assert finished


def test_a_vendor_that_charges_more_than_stated_ends_the_purchase(store: EmbeddingStore) -> None:
    vendor = Scripted("greedy", Decimal(100), True, Decimal(2), [], 4)
    teacher, budget = vendor.teacher(1), Budget(Decimal(2))
    with pytest.raises(TeacherError, match=r"charged more than it stated(.|\n)*at most 0.4 USD(.|\n)*0.8"):
        Buyer(teacher, store, budget, "greedy").images(DIGESTS[:12], PICTURES.__getitem__, "training")
    assert vendor.money == Ledger(store).spent("greedy") == budget.spent == Decimal("0.8")
    assert store.knows_images(teacher.describe(), DIGESTS[:12]).sum() == 4  # it was paid for, so it is stored
