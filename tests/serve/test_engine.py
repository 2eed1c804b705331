"""One network serves many threads: each gets its own rows, and waiting requests share a batch."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import pytest

from vl2v.serve.engine import MOST, Engine
from vl2v_runtime import Model


class Slow:
    """A slow stand-in for a model. Its logits are the mean of the pixels."""

    def __init__(self, gate: threading.Event) -> None:
        self.gate, self.batches = gate, list[int]()

    def normalise(self, pixels: Any) -> Any:
        return pixels.astype(np.float32)

    def run(self, pixels: Any) -> Any:
        self.batches.append(len(pixels))
        assert self.gate.wait(10)
        if pixels.max() == 255:
            raise RuntimeError("no memory")
        return pixels.mean(axis=(1, 2, 3))[:, None], None


def test_waiting_requests_share_a_batch_and_get_their_own_answers() -> None:
    gate = threading.Event()
    model = Slow(gate)
    engine = Engine(cast(Model, model))

    def ask(value: int) -> list[float]:
        return [float(row) for row in engine.run(np.full((1 + value % 3, 2, 2, 3), value, np.uint8)).logits[:, 0]]

    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(ask, 0)
        while not model.batches:
            time.sleep(0.001)
        rest = [pool.submit(ask, value) for value in range(1, 20)]
        while len(engine._waiting) < 19:
            time.sleep(0.001)
        gate.set()
        assert first.result() == [0.0]
        for value, one in enumerate(rest, 1):
            assert one.result() == [float(value)] * (1 + value % 3)
    assert max(model.batches) <= MOST
    assert len(model.batches) < 6
    assert sum(model.batches) == 1 + sum(1 + value % 3 for value in range(1, 20))


def test_a_large_request_is_split_and_an_error_of_the_network_is_raised() -> None:
    gate = threading.Event()
    gate.set()
    model = Slow(gate)
    engine = Engine(cast(Model, model))
    values = np.arange(40, dtype=np.uint8)
    pixels = np.broadcast_to(values[:, None, None, None], (40, 2, 2, 3))
    assert engine.run(pixels).logits[:, 0].tolist() == list(range(40))
    assert model.batches == [16, 16, 8]
    with pytest.raises(RuntimeError, match="no memory"):
        engine.run(np.full((1, 2, 2, 3), 255, np.uint8))
    assert engine.run(pixels[:1]).logits.tolist() == [[0.0]]
