"""Ctrl-C and SIGTERM while a teacher is queried: received answers are saved before the command stops."""

from __future__ import annotations

import os
import signal
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from misbehaving_vendor import PER_IMAGE, PER_TEXT, UnreliableVendor, digests_of, picture
from test_purchase import Vendor, contents_of, hashed
from test_purchase import buy as buy_locally
from test_unreliable_vendor import buy, teacher_of

from vl2v.interrupts import deferred_interrupts
from vl2v.teacher.base import Price
from vl2v.teacher.http.packing import Limits
from vl2v.teacher.purchase.ledger import Budget
from vl2v.teacher.purchase.store import EmbeddingStore

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


class Interrupting(Vendor):
    """A vendor that is interrupted in the middle of its second batch."""

    def __init__(self, *numbers: signal.Signals) -> None:
        super().__init__()
        self.numbers, self.batches = numbers, 0

    def embed_images(self, images: list[bytes]) -> Any:
        self.batches += 1
        for number in self.numbers if self.batches == 2 else ():
            os.kill(os.getpid(), number)
        self.queried += images
        return np.stack([hashed(image) for image in images])


@SIGNALS
def test_a_local_teacher_finishes_its_batch(tmp_path: Path, number: signal.Signals) -> None:
    store, vendor, contents = EmbeddingStore(tmp_path / "s.sqlite"), Interrupting(number), contents_of(20)
    with pytest.raises(KeyboardInterrupt):
        buy_locally(vendor, store, contents, Budget(None))
    assert store.knows_images(vendor.describe(), digests_of(contents)).sum() == len(vendor.queried) == 8
    assert buy_locally(vendor, store, contents, Budget(None)) == 12
    assert len(vendor.queried) == 20
    store.close()


def test_a_second_ctrl_c_does_not_wait_for_a_local_teacher(tmp_path: Path) -> None:
    store, vendor = EmbeddingStore(tmp_path / "s.sqlite"), Interrupting(signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        buy_locally(vendor, store, contents_of(20), Budget(None))
    assert len(vendor.queried) == 4
    store.close()


@SIGNALS
@pytest.mark.parametrize("when", ["saving", "sending"])
def test_every_paid_answer_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, when: str
) -> None:
    """The vendor charges each request, so a lost answer would be paid twice; Ctrl-C is pressed three times."""
    store, pictures, price = EmbeddingStore(tmp_path / "s.sqlite"), [picture(i) for i in range(40)], Decimal(1)
    calls = []

    def interrupted(self: Any, *args: Any, **more: Any) -> Any:
        calls.append(args)
        for _ in range(3 if len(calls) == 3 else 0):
            os.kill(os.getpid(), number)
        return original(self, *args, **more)

    with UnreliableVendor(idempotent=False, work=0.02) as vendor:
        teacher = teacher_of(vendor, "dimension=4", Price(PER_IMAGE * 1000, PER_TEXT * 1000))
        teacher.wire.limits = Limits(4, 4)
        owner, name = (EmbeddingStore, "keep_images") if when == "saving" else (type(teacher), "fulfil")
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            buy(teacher, store, pictures, price)
        charged = vendor.meter.inputs.total()
        assert 0 < charged < 40
        known = store.knows_images(teacher.describe(), digests_of(pictures)).sum()
        assert known == charged
        monkeypatch.undo()
        assert buy(teacher, store, pictures, price) == 40 - known
        assert vendor.meter.inputs.total() == 40
    store.close()


def test_a_signal_after_the_last_batch_is_not_lost() -> None:
    done = []

    def finish() -> None:
        with deferred_interrupts():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("finished")

    with pytest.raises(KeyboardInterrupt):
        finish()
    assert done == ["finished"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
