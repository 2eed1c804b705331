"""Batches the requests of all clients through one network."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vl2v_runtime import Model
from vl2v_runtime.imaging import Pixels

Floats = NDArray[np.float32]
MOST = 16  # images of a batch; beyond it a CPU gains nothing, and the others wait longer


@dataclass(frozen=True)
class Seen:
    """What the network gave for the images of one request.

    Attributes:
        model: which model it was; its class names belong to the columns.
        logits: [N, K], not divided by any temperature.
        embeddings: [N, D], rows of length one; None for a linear classifier.
    """

    model: Model
    logits: Floats
    embeddings: Floats | None


class _Order:
    """Pixels that wait for the network, and what became of them."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self.seen: Seen | None = None
        self.error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.seen is not None or self.error is not None


class Engine:
    """One model, asked from many threads; it may be replaced while it is at work.

    Whoever finds the network idle runs it at once, in its own thread, so that a lone client waits for nobody. Who
    finds it busy leaves the pixels; the next to run takes all that wait with its own.

    Args:
        model: the first model; another one of the same input size may take its place, in `model`.
        observe: called with (images, seconds) after each batch.
    """

    def __init__(self, model: Model, observe: Callable[[int, float], None] = lambda images, seconds: None) -> None:
        self._observe = observe
        self.model = model
        self._waiting: deque[_Order] = deque()
        self._network = threading.Lock()

    def look(self, pixels: Pixels) -> Seen:
        """Pass a request's images through the network.

        Args:
            pixels: [N, S, S, 3] uint8, N at least 1.
        """
        order = _Order(pixels)
        self._waiting.append(order)
        while not order.done:
            with self._network:
                if not order.done:
                    self._run(self._take())
        if order.error is not None:
            raise order.error
        assert order.seen is not None
        return order.seen

    def _take(self) -> list[_Order]:
        """What has waited longest, up to `MOST` images, but at least one order; called by the thread at work only."""
        batch: list[_Order] = []
        room = MOST
        while self._waiting and (not batch or len(self._waiting[0].pixels) <= room):
            batch.append(self._waiting.popleft())
            room -= len(batch[-1].pixels)
        return batch

    def _run(self, batch: list[_Order]) -> None:
        model = self.model
        try:
            pixels = np.concatenate([order.pixels for order in batch])
            started = time.perf_counter()
            parts = [model.run(model.normalise(pixels[i : i + MOST])) for i in range(0, len(pixels), MOST)]
            self._observe(len(pixels), time.perf_counter() - started)
        except Exception as error:
            for order in batch:
                order.error = error
            return
        logits = np.concatenate([part[0] for part in parts])
        rows = [part[1] for part in parts if part[1] is not None]
        embeddings = np.concatenate(rows) if rows else None
        start = 0
        for order in batch:
            stop = start + len(order.pixels)
            order.seen = Seen(model, logits[start:stop], None if embeddings is None else embeddings[start:stop])
            start = stop
