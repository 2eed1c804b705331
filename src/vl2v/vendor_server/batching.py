"""Batches the requests of all clients through one model, in one thread."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vl2v.errors import TeacherError
from vl2v.teacher.base import Teacher, Vectors, checked
from vl2v.threads import computing
from vl2v.web.faults import ApiError

Kind = Literal["image", "text"]


class UnansweredError(Exception):
    """The model cannot embed an input, for example because an image is broken. This is the client's fault."""


class ModelFailedError(Exception):
    """The model failed or returned an unusable response. This is the vendor's fault."""


@dataclass(eq=False)
class _Order:
    """The images or the texts of one request.

    Attributes:
        rows: [N, D] float32, filled when batches are complete.
        done: gets `rows` when all are complete, or the error.
        taken: number of inputs that are already in a batch.
        missing: number of rows that are not complete.
    """

    kind: Kind
    inputs: Sequence[Any]
    rows: Vectors
    done: asyncio.Future[Vectors]
    taken: int = 0
    missing: int = 0


@dataclass(frozen=True)
class _Slice:
    order: _Order
    start: int
    stop: int

    @property
    def inputs(self) -> Sequence[Any]:
        return self.order.inputs[self.start : self.stop]


Outcome = Vectors | Exception


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
        self._orders: dict[Kind, deque[_Order]] = {"image": deque(), "text": deque()}
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
        """Finish the current batch and stop; queued orders are cancelled."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for orders in self._orders.values():
            for order in orders:
                order.done.cancel()
        self._thread.shutdown()

    async def ask(self, images: Sequence[bytes], texts: Sequence[str]) -> tuple[Vectors, Vectors]:
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
        orders = [self._enter("image", images), self._enter("text", texts)]
        self.depth += count
        try:
            results = await asyncio.gather(*(order.done for order in orders))
            return results[0], results[1]
        finally:
            self.depth -= count
            for order in orders:
                order.done.cancel()  # no effect if it is finished; skips the rest of a failed request

    def _enter(self, kind: Kind, inputs: Sequence[Any]) -> _Order:
        rows = np.empty((len(inputs), self.card.dimension), np.float32)
        order = _Order(kind, inputs, rows, asyncio.get_running_loop().create_future(), missing=len(inputs))
        if inputs:
            self._orders[kind].append(order)
            self._waiting.set()
        else:
            order.done.set_result(rows)
        return order

    async def _work(self) -> None:
        turn: Kind = "image"
        while True:
            await self._waiting.wait()
            turn = turn if self._orders[turn] else _other(turn)
            if sum(len(order.inputs) - order.taken for order in self._orders[turn]) < self.card.batch_size:
                await asyncio.sleep(self._wait)
            batch = self._take(turn)
            if batch:
                await self._serve(batch, turn)
            if not any(self._orders.values()):
                self._waiting.clear()
            turn = _other(turn)

    async def _serve(self, batch: list[_Slice], kind: Kind) -> None:
        size, started = sum(len(part.inputs) for part in batch), time.perf_counter()
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._answer, batch, kind)
        outcomes = await asyncio.shield(work)
        self._pace += 0.2 * ((time.perf_counter() - started) / size - self._pace)
        self._observe(kind, size)
        for part, outcome in zip(batch, outcomes, strict=True):
            _deliver(part, outcome)

    def _take(self, kind: Kind) -> list[_Slice]:
        """Take the next batch from the queue, oldest orders first; an order may be divided into several batches."""
        batch: list[_Slice] = []
        room, orders = self.card.batch_size, self._orders[kind]
        while room and orders:
            order = orders[0]
            if not order.done.done():
                stop = min(len(order.inputs), order.taken + room)
                batch.append(_Slice(order, order.taken, stop))
                room -= stop - order.taken
                order.taken = stop
            if order.done.done() or order.taken == len(order.inputs):
                orders.popleft()
        return batch

    def _answer(self, batch: list[_Slice], kind: Kind) -> list[Outcome]:
        """Run a batch in the teacher's thread. After an error, halves are run, so that only one order fails."""
        try:
            rows = self._run(kind, [value for part in batch for value in part.inputs])
        except Exception as error:
            if len(batch) == 1:
                return [error]
            half = len(batch) // 2
            return [*self._answer(batch[:half], kind), *self._answer(batch[half:], kind)]
        ends = np.cumsum([len(part.inputs) for part in batch])
        return list(np.split(rows, ends[:-1]))

    def _run(self, kind: Kind, inputs: list[Any]) -> Vectors:
        embed = self._teacher.embed_images if kind == "image" else self._teacher.embed_texts
        try:
            with computing(self._threads):
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


def _deliver(part: _Slice, outcome: Outcome) -> None:
    order = part.order
    if order.done.done():
        return
    if isinstance(outcome, Exception):
        order.done.set_exception(outcome)
        return
    order.rows[part.start : part.stop] = outcome
    order.missing -= part.stop - part.start
    if not order.missing:
        order.done.set_result(order.rows)
