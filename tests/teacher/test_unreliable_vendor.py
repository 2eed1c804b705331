from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from misbehaving_vendor import FAULTS, PER_IMAGE, PER_TEXT, UnreliableVendor, answer_to, digests_of, picture

from vl2v.data.images import ImageFile
from vl2v.errors import BudgetError, TeacherError
from vl2v.progress import Silent
from vl2v.teacher.base import Price
from vl2v.teacher.http.client import HttpTeacher
from vl2v.teacher.http.retry import CircuitBreaker, RetryPolicy
from vl2v.teacher.http.uri import open_wire
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.image_set import ImageSet
from vl2v.teacher.purchase.ledger import Budget, Ledger
from vl2v.teacher.purchase.store import EmbeddingStore

QUICK = RetryPolicy(first=0.005, longest=0.05)


def teacher_of(vendor: UnreliableVendor, options: str = "timeout=0.3", price: Price | None = None) -> HttpTeacher:
    wire = open_wire(f"{vendor.url}#{options}", price)
    return HttpTeacher(wire, policy=QUICK, rng=random.Random(0), circuit=CircuitBreaker(rest=0.05))


def buy(
    teacher: HttpTeacher, store: EmbeddingStore, contents: list[bytes], limit: Decimal | None, run: str = "r"
) -> int:
    budget = Budget(limit, Ledger(store).spent(run))
    return Buyer(teacher, store, budget, run).images(digests_of(contents), contents.__getitem__, "training")


class Notes(Silent):
    """Records warnings."""

    def __init__(self) -> None:
        self.warned: list[str] = []

    def warn(self, text: str) -> None:
        self.warned.append(text)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddingStore]:
    opened = EmbeddingStore(tmp_path / "s.sqlite")
    yield opened
    opened.close()


def test_after_a_thousand_faults_everything_is_bought_once_and_the_bills_agree(store: EmbeddingStore) -> None:
    """All faults mixed; benchmarks/unreliable_vendor.py records the same for 10,000 images."""
    contents = [picture(i) for i in range(2000)]
    exact = PER_IMAGE * len(contents)  # the exact amount
    with UnreliableVendor(FAULTS, max_batch=8) as vendor:
        teacher = teacher_of(vendor)
        assert buy(teacher, store, contents, exact) == len(contents)
        meter = vendor.meter
    assert np.array_equal(store.images(teacher.describe(), digests_of(contents)), np.stack([*map(answer_to, contents)]))
    assert set(meter.inputs) == set(contents)
    assert set(meter.inputs.values()) == {1}
    assert meter.money == Ledger(store).spent("r") == exact
    assert {name for name in FAULTS if meter.faults[name]} == set(FAULTS)
    entries = Ledger(store).entries("r")
    assert {entry.state for entry in entries} == {"kept"}
    assert sum(entry.attempts for entry in entries) == meter.requests
    assert meter.most_in_flight > 1


def test_without_idempotency_the_ledger_is_never_below_the_meter(store: EmbeddingStore) -> None:
    contents = [picture(i) for i in range(600)]
    with UnreliableVendor(FAULTS, idempotent=False, seed=3) as vendor:
        price = Price(PER_IMAGE * 1000, PER_TEXT * 1000)
        teacher = teacher_of(vendor, "timeout=0.3&dimension=4", price)
        buy(teacher, store, contents, Decimal(10))
        meter = vendor.meter
    assert np.array_equal(store.images(teacher.describe(), digests_of(contents)), np.stack([*map(answer_to, contents)]))
    spent = Ledger(store).spent("r")
    assert PER_IMAGE * len(contents) < meter.money <= spent
    entries = Ledger(store).entries("r")
    assert len(entries) == meter.requests  # an entry for every attempt
    assert sum(e.queries for e in entries if e.state == "kept") == len(contents)
    assert sum(e.state == "refused" for e in entries) == meter.faults["429"]
    assert all(e.cost == 0 for e in entries if e.state == "refused")
    lost = sum(meter.faults[name] for name in ("500", "timeout", "cut", "nan"))
    assert sum(e.state == "sent" for e in entries) == lost


def test_texts_are_bought_the_same_way(store: EmbeddingStore) -> None:
    texts = [f"a photo of a thing {i}, “quoted” – ünïcode" for i in range(100)]
    with UnreliableVendor(FAULTS, seed=5, max_batch=4) as vendor:
        teacher = teacher_of(vendor)
        budget = Budget(PER_TEXT * len(texts))
        assert Buyer(teacher, store, budget, "r").texts([*texts, *texts[:3]]) == len(texts)
        assert vendor.meter.money == Ledger(store).spent("r") == budget.spent == PER_TEXT * len(texts)
    expected = np.stack([answer_to(t.encode()) for t in texts])
    assert np.array_equal(store.texts(teacher.describe(), texts), expected)


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("rejected", [[3], [0, 17, 18, 63]])
def test_rejected_images_are_named_and_do_not_stop_the_others(
    tmp_path: Path, store: EmbeddingStore, idempotent: bool, rejected: list[int]
) -> None:
    contents = [picture(i) for i in range(64)]
    good, bad = [c for i, c in enumerate(contents) if i not in rejected], {contents[i] for i in rejected}
    names, progress = [f"a/{i}.png" for i in range(64)], Notes()
    files = [ImageFile(tmp_path / f"{i}", hashlib.sha256(c).digest(), names[i]) for i, c in enumerate(contents)]
    for file, content in zip(files, contents, strict=True):
        file.path.write_bytes(content)
    exact = PER_IMAGE * len(good)
    with UnreliableVendor({"429": 0.1}, rejects=bad, idempotent=idempotent) as vendor:
        options = "timeout=0.3" if idempotent else "timeout=0.3&dimension=4"
        teacher = teacher_of(vendor, options, None if idempotent else Price(PER_IMAGE * 1000, PER_TEXT * 1000))
        buyer = Buyer(teacher, store, Budget(PER_IMAGE * len(contents)), "r", progress)
        with pytest.raises(TeacherError, match=f"did not embed {len(bad)} image") as caught:
            buyer.buy(ImageSet.of(digests_of(contents), files.__getitem__, "training"))
        assert buyer.images(digests_of(good), good.__getitem__, "training") == 0
        meter = vendor.meter
    for i in rejected:
        assert names[i] in caught.value.found
        assert f"rejected {names[i]}: an image violates the policy" in " ".join(progress.warned)
    assert "--drop" in caught.value.next_step
    assert set(meter.inputs) == set(good)
    assert set(meter.inputs.values()) == {1}
    assert meter.money == Ledger(store).spent("r") == buyer.budget.spent == exact


def test_a_vendor_that_rejects_everything_gets_few_requests(store: EmbeddingStore) -> None:
    contents = [picture(i) for i in range(300)]
    with UnreliableVendor(rejects=set(contents)) as vendor:
        with pytest.raises(TeacherError, match="violates the policy"):
            buy(teacher_of(vendor), store, contents, Decimal(1))
        assert vendor.meter.requests < 60
        assert vendor.meter.money == Ledger(store).spent("r") == 0


# Imports once. Then forks a child that buys for each line of input and prints its number and exit status.
NURSERY = """
import os, sys
from decimal import Decimal
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from test_unreliable_vendor import buy, picture
from vl2v.teacher.http.client import HttpTeacher
from vl2v.teacher.http.retry import RetryPolicy
from vl2v.teacher.http.uri import open_wire
from vl2v.teacher.purchase.store import EmbeddingStore
contents = [picture(i) for i in range(int(sys.argv[3]))]
for _ in sys.stdin:
    child = os.fork()
    if not child:
        wire = open_wire(sys.argv[1] + "#timeout=0.5")
        teacher = HttpTeacher(wire, policy=RetryPolicy(first=0.005, longest=0.05))
        try:
            buy(teacher, EmbeddingStore(Path(sys.argv[2])), contents, Decimal("0.0006") * len(contents))
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.system
def test_a_client_that_is_killed_again_and_again_pays_for_each_image_once(tmp_path: Path) -> None:
    count, path, rng = 1500, tmp_path / "s.sqlite", random.Random(1)
    with UnreliableVendor({"429": 0.05, "500": 0.05, "cut": 0.05}, max_batch=8, work=0.01) as vendor:
        arguments = [vendor.url, str(path), str(count), str(Path(__file__).parent)]
        command = [sys.executable, "-c", NURSERY, *arguments]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as nursery:
            assert nursery.stdin is not None
            assert nursery.stdout is not None
            for kill in range(21):
                nursery.stdin.write("again\n")
                child = int(nursery.stdout.readline())
                if kill < 20:
                    wanted, deadline = len(vendor.meter.inputs) + rng.randrange(0, 25), time.monotonic() + 30
                    while len(vendor.meter.inputs) < wanted and time.monotonic() < deadline:
                        time.sleep(0.0005)
                    time.sleep(rng.uniform(0, 0.01))
                    os.kill(child, signal.SIGKILL)
                assert int(nursery.stdout.readline()) == (-signal.SIGKILL if kill < 20 else 0)
            nursery.stdin.close()
        meter = vendor.meter
    assert len(meter.inputs) == count
    assert set(meter.inputs.values()) == {1}
    store = EmbeddingStore(path)
    assert meter.money == Ledger(store).spent() == PER_IMAGE * count
    assert {entry.state for entry in Ledger(store).entries()} == {"kept"}
    assert max(entry.attempts for entry in Ledger(store).entries()) > 1
    store.close()


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_final_error_ends_the_purchase_and_costs_nothing(store: EmbeddingStore, status: int) -> None:
    contents = [picture(i) for i in range(100)]
    with UnreliableVendor(script=["", str(status)] + [str(status)] * 50, max_batch=8) as vendor:
        teacher = teacher_of(vendor, "concurrency=1")
        with pytest.raises(TeacherError, match=f"HTTP {status}(.|\n)*told to say {status}(.|\n)*next: ") as caught:
            buy(teacher, store, contents, Decimal(1))
        assert caught.value.exit_code == 4
        assert vendor.meter.requests == 2
        assert vendor.meter.money == Ledger(store).spent() == PER_IMAGE * 8
    assert [entry.state for entry in Ledger(store).entries()] == ["kept", "refused"]


@pytest.mark.parametrize("fault", ["408", "429", "500", "502", "503", "504", "drop", "timeout", "cut", "nan", "short"])
def test_a_temporary_fault_is_retried(store: EmbeddingStore, fault: str) -> None:
    contents = [picture(i) for i in range(8)]
    with UnreliableVendor(script=[fault, fault, fault], max_batch=8) as vendor:
        assert buy(teacher_of(vendor), store, contents, PER_IMAGE * 8) == 8
        assert vendor.meter.requests == 4
        assert vendor.meter.money == Ledger(store).spent() == PER_IMAGE * 8
    (entry,) = Ledger(store).entries()
    assert (entry.state, entry.attempts) == ("kept", 4)


def test_the_vendor_can_forbid_a_retry(store: EmbeddingStore) -> None:
    with UnreliableVendor(script=["429", "429"], extra={"x-should-retry": "false"}) as vendor:
        with pytest.raises(TeacherError, match="HTTP 429"):
            buy(teacher_of(vendor), store, [picture(0)], Decimal(1))
        assert vendor.meter.requests == 1


def test_another_dimension_is_final(store: EmbeddingStore) -> None:
    with UnreliableVendor(script=["wide"] * 9) as vendor:
        with pytest.raises(TeacherError, match="unusable response"):
            buy(teacher_of(vendor), store, [picture(0)], Decimal(1))
        assert vendor.meter.requests == 1
    assert [e.state for e in Ledger(store).entries()] == ["sent"]


def test_a_vendor_that_charges_for_unusable_answers_is_not_queried_indefinitely(store: EmbeddingStore) -> None:
    with UnreliableVendor(script=["nan"] * 20, idempotent=False) as vendor:
        teacher = teacher_of(vendor, "dimension=4", Price(PER_IMAGE * 1000, PER_TEXT * 1000))
        with pytest.raises(TeacherError, match="NaN"):
            buy(teacher, store, [picture(0)], Decimal(1))
        assert vendor.meter.requests == QUICK.unusable
        assert vendor.meter.money == Ledger(store).spent() == PER_IMAGE * QUICK.unusable


def test_after_the_last_retry_possible_charges_stay_spent(store: EmbeddingStore) -> None:
    with UnreliableVendor(script=["500"] * 99) as vendor:
        with pytest.raises(TeacherError, match="HTTP 500"):
            buy(teacher_of(vendor), store, [picture(0)], PER_IMAGE)
        assert vendor.meter.requests == QUICK.attempts
        assert [(e.state, e.cost) for e in Ledger(store).entries()] == [("sent", PER_IMAGE)]
        vendor.script.clear()
        assert (
            buy(teacher_of(vendor), store, [picture(0)], PER_IMAGE) == 1
        )  # the key is unchanged, so nothing more is bought
        assert vendor.meter.money == Ledger(store).spent() == PER_IMAGE


def test_an_insufficient_budget_buys_as_much_as_it_covers(store: EmbeddingStore) -> None:
    contents = [picture(i) for i in range(64)]
    with UnreliableVendor(FAULTS, max_batch=8) as vendor:
        with pytest.raises(BudgetError, match="does not cover"):
            buy(teacher_of(vendor), store, contents, PER_IMAGE * 30)
        assert vendor.meter.money == Ledger(store).spent() == PER_IMAGE * 24
        assert store.knows_images(teacher_of(vendor).describe(), digests_of(contents)).sum() == 24
