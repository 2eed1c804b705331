"""Buy 10,000 images from a vendor on a real socket with 20% bad answers, and compare ledger and bill."""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import tempfile
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path

import numpy as np

from common import ROOT, circumstances, keep
from vl2v.teacher.http.client import HttpTeacher
from vl2v.teacher.http.retry import RetryPolicy
from vl2v.teacher.http.uri import open_wire
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.ledger import Budget, Ledger
from vl2v.teacher.purchase.store import EmbeddingStore

sys.path.insert(0, str(ROOT / "tests" / "teacher"))

from misbehaving_vendor import FAULTS, PER_IMAGE, UnreliableVendor, answer_to, picture


def main() -> None:
    """Buy, compare, and save the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=8)
    a = parser.parse_args()
    contents = [picture(i) for i in range(a.images)]
    digests = np.array([list(hashlib.sha256(content).digest()) for content in contents], np.uint8)
    exact = PER_IMAGE * a.images
    with tempfile.TemporaryDirectory() as scratch, UnreliableVendor(FAULTS, max_batch=a.batch) as vendor:
        store = EmbeddingStore(Path(scratch) / "s.sqlite")
        wire = open_wire(f"{vendor.url}#timeout=0.3")
        teacher = HttpTeacher(wire, policy=RetryPolicy(first=0.01, longest=0.1), rng=random.Random(0))
        start = time.perf_counter()
        purchased = Buyer(teacher, store, Budget(exact), "benchmark").images(digests, contents.__getitem__, "training")
        seconds = time.perf_counter() - start
        meter, entries = vendor.meter, Ledger(store).entries()
        right = np.array_equal(store.images(teacher.describe(), digests), np.stack([*map(answer_to, contents)]))
        ledger_cost = sum((entry.cost for entry in entries), Decimal(0))
        keep(
            "unreliable_vendor",
            {
                "setting": vars(a) | {"faults": FAULTS, "budget": f"{exact:f}"},
                "bought": purchased,
                "vectors_all_right": right,
                "seconds": round(seconds, 1),
                "requests": meter.requests,
                "requests_by_fault": dict(meter.faults),
                "images_billed": sum(meter.inputs.values()),
                "distinct_images_billed": len(meter.inputs),
                "billed_by_the_vendor": f"{meter.money:f}",
                "spent_by_the_ledger": f"{ledger_cost:f}",
                "ledger_entries_by_state": dict(Counter(entry.state for entry in entries)),
                "circumstances": circumstances(),
            },
        )
        store.close()


if __name__ == "__main__":
    main()
