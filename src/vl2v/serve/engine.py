"""Batches the requests of all clients through one network."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vl2v_runtime import Model
from vl2v_runtime.imaging import Pixels

Floats = NDArray[np.float32]
MOST = 16  # maximum batch size; larger batches are no faster on a CPU and increase the latency


@dataclass(frozen=True)
class Outputs:
    """The outputs of the network for the images of one request.

    Attributes:
        model: the model, whose class names belong to the columns of `logits`.
        logits: [N, K] float32, not divided by a temperature.
        embeddings: [N, D] float32, rows of length one; None for a linear classifier.
    """

    model: Model
    logits: Floats
    embeddings: Floats | None


Order = tuple[Pixels, Future[Outputs]]  # the images of one request, and their outputs or the error


class Engine:
    """A model that many threads use, and that can be replaced at any time.

    If the network is idle, a request runs it immediately in its own thread, so a single client never waits. If it is
    busy, the request is queued, and the next thread that runs the network processes the whole queue.

    Args:
        model: the model. It can be replaced, in `model`, by one with the same input size.
        observe: called with (number of images, seconds) after each batch.
    """

    def __init__(self, model: Model, observe: Callable[[int, float], None] = lambda images, seconds: None) -> None:
        self._observe = observe
        self.model = model
        self._waiting: deque[Order] = deque()
        self._network = threading.Lock()

    def run(self, pixels: Pixels) -> Outputs:
        """Run the network on the images of a request.

        Args:
            pixels: [N, S, S, 3] uint8, N at least 1.
        """
        future: Future[Outputs] = Future()
        self._waiting.append((pixels, future))
        while not future.done():
            with self._network:
                if not future.done():
                    self._run(self._take())
        return future.result()

    def _take(self) -> list[Order]:
        """Take the oldest orders, up to `MOST` images but at least one order; only called with the network locked."""
        batch: list[Order] = []
        room = MOST
        while self._waiting and (not batch or len(self._waiting[0][0]) <= room):
            batch.append(self._waiting.popleft())
            room -= len(batch[-1][0])
        return batch

    def _run(self, batch: list[Order]) -> None:
        model = self.model
        try:
            pixels = np.concatenate([images for images, _ in batch])
            started = time.perf_counter()
            parts = [model.run(model.normalise(pixels[i : i + MOST])) for i in range(0, len(pixels), MOST)]
            self._observe(len(pixels), time.perf_counter() - started)
        except Exception as error:
            for _, future in batch:
                future.set_exception(error)
            return
        logits = np.concatenate([part[0] for part in parts])
        rows = [part[1] for part in parts if part[1] is not None]
        embeddings = np.concatenate(rows) if rows else None
        start = 0
        for images, future in batch:
            part = slice(start, start + len(images))
            future.set_result(Outputs(model, logits[part], None if embeddings is None else embeddings[part]))
            start = part.stop
