"""Batches the requests of all clients through one model, in one thread."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vl2v.errors import TeacherError
from vl2v.teacher.base import Embeddings, Teacher, checked
from vl2v.threads import using_threads
from vl2v.web.faults import ApiError

Kind = Literal["image", "text"]
Row = NDArray[np.float32]


class UnansweredError(Exception):
    """The model cannot embed an input, for example because an image is broken. This is the client's fault."""


class ModelFailedError(Exception):
    """The model failed or returned an unusable response. This is the vendor's fault."""


@dataclass(eq=False)
class _Input:
    """An image or a text of a request.

    Attributes:
        request: identifies the request; its inputs fail together.
        done: gets the embedding, [D] float32, or the error.
    """

    value: Any
    request: object
    done: asyncio.Future[Row]


class Batcher:
    """Combines the inputs of concurrent requests into batches, and returns to each client its rows.

    Args:
        teacher: the model; used from one thread only.
        queue: maximum number of inputs that are queued or processed; at least the size of the largest request.
        wait_seconds: seconds for which a batch that is not full waits for more inputs.
        threads: number of threads of the teacher; None leaves it unchanged.
        observe: called with (kind, size) after each batch.
    """

    def __init__(
        self,
        teacher: Teacher,
        *,
        queue: int = 1024,
        wait_seconds: float = 0.002,
        threads: int | None = None,
        observe: Callable[[Kind, int], None] = lambda kind, size: None,
    ) -> None:
        self._teacher, self.card, self._threads = teacher, teacher.describe(), threads
        self._most, self._wait, self._observe = queue, wait_seconds, observe
        self._queues: dict[Kind, deque[_Input]] = {"image": deque(), "text": deque()}
        self._waiting = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "teacher")
        self._task: asyncio.Task[None] | None = None
        self._pace = 0.05  # seconds per input, smoothed; for retry-after
        self.depth = 0  # number of inputs that are queued or processed

    @property
    def alive(self) -> bool:
        """Whether the batcher is running."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Start processing; called in the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Finish the current batch and stop; queued inputs are cancelled."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for one in chain(*self._queues.values()):
            one.done.cancel()
        self._thread.shutdown()

    async def ask(self, images: Sequence[bytes], texts: Sequence[str]) -> tuple[Embeddings, Embeddings]:
        """Embed the images and texts of a request.

        Returns:
            ([len(images), D], [len(texts), D]) float32.

        Raises:
            ApiError: 503 if the queue has too little space.
            UnansweredError: if the model rejects an input of this request.
            ModelFailedError: if the model fails.
        """
        count = len(images) + len(texts)
        if self.depth + count > self._most:
            message = "Too many requests are queued; retry after the time in retry-after. Nothing was billed."
            raise ApiError(503, "overloaded", message, retry_after=min(60.0, self.depth * self._pace))
        request, loop = object(), asyncio.get_running_loop()
        inputs = [_Input(value, request, loop.create_future()) for value in (*images, *texts)]
        self._queues["image"] += inputs[: len(images)]
        self._queues["text"] += inputs[len(images) :]
        self._waiting.set()
        self.depth += count
        try:
            rows = np.stack(await asyncio.gather(*(one.done for one in inputs)))
            return rows[: len(images)], rows[len(images) :]
        finally:
            self.depth -= count
            for one in inputs:
                one.done.cancel()  # no effect if it is done; skips the rest of a failed request

    async def _work(self) -> None:
        turn: Kind = "image"
        while True:
            await self._waiting.wait()
            turn = turn if self._queues[turn] else _other(turn)
            if len(self._queues[turn]) < self.card.batch_size:
                await asyncio.sleep(self._wait)
            batch = self._take(turn)
            if batch:
                await self._serve(batch, turn)
            if not any(self._queues.values()):
                self._waiting.clear()
            turn = _other(turn)

    async def _serve(self, batch: list[_Input], kind: Kind) -> None:
        started = time.perf_counter()
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._answer, batch, kind)
        outcomes = await asyncio.shield(work)
        self._pace += 0.2 * ((time.perf_counter() - started) / len(batch) - self._pace)
        self._observe(kind, len(batch))
        for one, outcome in zip(batch, outcomes, strict=True):
            if one.done.done():
                continue
            if isinstance(outcome, Exception):
                one.done.set_exception(outcome)
            else:
                one.done.set_result(outcome)

    def _take(self, kind: Kind) -> list[_Input]:
        """Take the next batch from the queue, oldest inputs first."""
        batch: list[_Input] = []
        queue = self._queues[kind]
        while queue and len(batch) < self.card.batch_size:
            if not (one := queue.popleft()).done.done():
                batch.append(one)
        return batch

    def _answer(self, batch: list[_Input], kind: Kind) -> list[Row | Exception]:
        """Run a batch in the teacher's thread. After an error, halves are run, so that only one request fails."""
        try:
            return list(self._run(kind, [one.value for one in batch]))
        except Exception as error:
            if all(one.request is batch[0].request for one in batch):
                return [error] * len(batch)
            half = len(batch) // 2
            return [*self._answer(batch[:half], kind), *self._answer(batch[half:], kind)]

    def _run(self, kind: Kind, inputs: list[Any]) -> Embeddings:
        embed = self._teacher.embed_images if kind == "image" else self._teacher.embed_texts
        try:
            with using_threads(self._threads):
                answer = embed(inputs)
        except TeacherError as error:
            raise UnansweredError from error
        except Exception as error:
            raise ModelFailedError from error
        try:
            return checked(answer, len(inputs), self.card, kind)
        except TeacherError as error:
            raise ModelFailedError from error


def _other(kind: Kind) -> Kind:
    return "text" if kind == "image" else "image"
