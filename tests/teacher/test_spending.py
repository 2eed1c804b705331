"""One budget covers parallel processes, processes killed at any point, and several stores."""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from misbehaving_vendor import PER_IMAGE, PER_TEXT, UnreliableVendor
from test_budget_schedules import DIGESTS, PICTURES, Scripted
from test_unreliable_vendor import teacher_of

from vl2v.errors import BudgetError, TeacherError
from vl2v.teacher.base import Price, TeacherCard
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.ledger import Budget, Ledger, PurchaseContext
from vl2v.teacher.purchase.spending import FILE, Spending
from vl2v.teacher.purchase.store import EmbeddingStore

CARD = TeacherCard("t", "1", 4, 20.0, Price(Decimal(1000)))
NUMBERS = itertools.count()


def is_of_this_run(run: str) -> bool:
    return run.startswith("run")


def opened(file: Path) -> EmbeddingStore:
    store = EmbeddingStore(file)
    store._db.execute("PRAGMA synchronous=OFF")  # power cuts are not tested here
    return store


def spend(folder: Path, store: EmbeddingStore, cost: int, limit: int = 10, run: str = "run") -> Budget:
    budget = Budget(Decimal(limit), spending=Spending(folder, store, is_of_this_run))
    PurchaseContext(store, budget, CARD, run, "training").open_entry("image", cost, Decimal(cost))
    return budget


def test_another_store_or_run_name_shares_the_budget(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "a.sqlite")) as one, closing(opened(tmp_path / "b.sqlite")) as two:
        spend(tmp_path, one, 6)
        spend(tmp_path, two, 3, run="run moved")
        with pytest.raises(BudgetError, match=r"at most 1 USD \(9 of 10 spent\)"):
            spend(tmp_path, one, 2)
        assert spend(tmp_path, two, 1).spent == 10
        assert Ledger(one).spent() + Ledger(two).spent() == 10


def test_the_spending_of_a_deleted_store_counts(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "a.sqlite")) as store:
        spend(tmp_path, store, 6)
    with closing(opened(tmp_path / "new.sqlite")) as store, pytest.raises(BudgetError, match="6 of 10 spent"):
        spend(tmp_path, store, 5)


def test_a_copy_of_a_store_counts_once(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "a.sqlite")) as store:
        spend(tmp_path, store, 6)
        store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (tmp_path / "copy.sqlite").write_bytes((tmp_path / "a.sqlite").read_bytes())
    with closing(opened(tmp_path / "copy.sqlite")) as store:
        assert spend(tmp_path, store, 4).spent == 10


def test_the_spending_of_an_earlier_version_counts(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "a.sqlite")) as store:
        store.open_entry(CARD, "run", "image", "training", 7, Decimal(7))
        store.open_entry(CARD, "another", "image", "training", 9, Decimal(9))
        assert Spending(tmp_path, store, is_of_this_run).total == 7


def test_a_correction_that_a_kill_prevented_is_made_later(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "a.sqlite")) as store:
        budget = spend(tmp_path, store, 6)
        (label, _, _), *_ = store.costs()
        store.note(int(label.rpartition("-")[2]), "refused", refused=True)  # and the process ends here
        assert budget.spent == 6
        assert Spending(tmp_path, store, is_of_this_run).total == 0


def test_requests_that_a_full_disk_prevented_do_not_count_as_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with closing(opened(tmp_path / "a.sqlite")) as store:
        budget = spend(tmp_path, store, 6)
        with monkeypatch.context() as patch:
            patch.setattr(Spending, "book", full)
            with pytest.raises(OSError, match="No space"):
                PurchaseContext(store, budget, CARD, "run", "training").open_entry("image", 3, Decimal(3))
        assert budget.spent == Ledger(store).spent() == 6
        assert [entry.state for entry in store.entries()] == ["sent", "refused"]
        assert Spending(tmp_path, store, is_of_this_run).total == 6


def test_free_queries_leave_no_file(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "a.sqlite")) as store:
        assert spend(tmp_path / "run", store, 0).spent == 0
    assert not (tmp_path / "run").exists()


def test_an_incomplete_last_line_of_a_killed_process_is_ignored(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "a.sqlite")) as store:
        spend(tmp_path, store, 6)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"entry": "x", "co')
    with closing(opened(tmp_path / "b.sqlite")) as store:
        assert spend(tmp_path, store, 3).spent == 9
        assert Spending(tmp_path, store, is_of_this_run).total == 9


@pytest.mark.parametrize("line", ["noise", "[]", "{}", '{"entry": 1, "cost": "NaN"}', '{"entry": 1, "cost": [1]}'])
def test_a_damaged_line_is_an_error(tmp_path: Path, line: str) -> None:
    with closing(opened(tmp_path / "a.sqlite")) as store:
        spend(tmp_path, store, 6)
        with (tmp_path / FILE).open("a") as file:
            file.write(f"{line}\n")
        with pytest.raises(BudgetError, match=r"spending.jsonl is damaged(.|\n)*expected(.|\n)*next"):
            spend(tmp_path, store, 1)


class KilledError(BaseException):
    """Ends a purchase in a thread like a kill: nothing more is recorded for the request."""


class Deadly(Scripted):
    """A vendor that charges for lost answers and kills some clients while they wait for an answer."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self.lock:
            deadly = bool(self.outcomes) and self.outcomes[0] == "killed"
            if deadly:
                self.outcomes[0] = "lost"
        try:
            return super().__call__(request)
        except httpx.ReadTimeout:
            if deadly:
                raise KilledError from None
            raise


def local_jobs(work: list[Callable[[], None]]) -> None:
    """Run each in a separate thread; errors with which a purchase may end are expected."""
    faults: list[BaseException] = []

    def guarded(one: Callable[[], None]) -> None:
        try:
            one()
        except (BudgetError, TeacherError, KilledError):
            pass
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=guarded, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults, faults


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    price=st.decimals("0.001", 50, places=3),
    limit=st.decimals(0, 2, places=3),
    batch=st.integers(1, 9),
    parts=st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 20), st.integers(1, 24), st.integers(1, 3)), min_size=2, max_size=4
    ),
    outcomes=st.lists(st.sampled_from(["ok", "429", "lost", "nan", "killed"]), max_size=20),
    rounds=st.integers(1, 3),
)
def test_200_schedules_of_parallel_processes_stay_within_the_budget(
    tmp_path_factory: pytest.TempPathFactory,
    price: Decimal,
    limit: Decimal,
    batch: int,
    parts: list[tuple[int, int, int, int]],
    outcomes: list[str],
    rounds: int,
) -> None:
    """Each part is a process with a store, images and a number of parallel requests. All share one budget."""
    folder, name = tmp_path_factory.mktemp("budget"), f"vendor{next(NUMBERS)}"
    vendor = Deadly(name, price, False, Decimal(1), outcomes, batch)

    def process(store: int, first: int, count: int, concurrency: int) -> None:
        chosen = slice(first, first + count)
        with closing(opened(folder / f"{store}.sqlite")) as store_of_process:
            budget = Budget(limit, spending=Spending(folder, store_of_process, is_of_this_run))
            buyer = Buyer(vendor.teacher(concurrency), store_of_process, budget, f"run {store}")
            buyer.images(DIGESTS[chosen], PICTURES[chosen].__getitem__, "training")

    for _ in range(rounds):
        local_jobs([lambda part=part: process(*part) for part in parts])  # type: ignore[misc]
    with closing(opened(folder / "0.sqlite")) as one, closing(opened(folder / "1.sqlite")) as two:
        ledgers = Ledger(one).spent() + Ledger(two).spent()
        assert vendor.money <= ledgers == Spending(folder, one, is_of_this_run).total <= limit
        if "killed" not in outcomes:  # a killed process leaves entries of requests that it was about to send
            assert vendor.money == ledgers


@pytest.mark.slow
def test_killed_processes_stay_within_one_budget(tmp_path: Path) -> None:
    """With kill -9 and two stores, charges stay within the ledgers, and the ledgers within the budget."""
    rng, limit = random.Random(2), PER_IMAGE * 60
    with UnreliableVendor({"429": 0.1, "timeout": 0.1}, idempotent=False, hang=0.1, work=0.005) as vendor:
        for _ in range(4):
            children = []
            for number in range(3):
                child = os.fork()
                if not child:
                    _buy_and_exit(vendor, tmp_path, number, limit)
                children.append(child)
            for child in children:
                time.sleep(rng.uniform(0, 0.1))
                if rng.random() < 0.7:
                    os.kill(child, signal.SIGKILL)
            for child in children:
                os.waitpid(child, 0)
        time.sleep(0.3)  # requests that the vendor is still answering
        charged = vendor.meter.money
    with closing(opened(tmp_path / "0.sqlite")) as one, closing(opened(tmp_path / "1.sqlite")) as two:
        ledgers = Ledger(one).spent() + Ledger(two).spent()
        assert 0 < charged <= ledgers <= Spending(tmp_path, one, is_of_this_run).total <= limit


def _buy_and_exit(vendor: UnreliableVendor, folder: Path, number: int, limit: Decimal) -> None:
    try:
        store = opened(folder / f"{number % 2}.sqlite")
        price = Price(PER_IMAGE * 1000, PER_TEXT * 1000)
        teacher = teacher_of(vendor, "dimension=4&timeout=0.05", price)
        budget = Budget(limit, spending=Spending(folder, store, is_of_this_run))
        order = np.random.default_rng(number).permutation(len(PICTURES))
        for part in np.array_split(order, 6):
            pictures = [PICTURES[at] for at in part]
            Buyer(teacher, store, budget, "run").images(DIGESTS[part], pictures.__getitem__, "training")
    except BaseException:
        os._exit(1)
    os._exit(0)
