"""The work behind `POST /v1/embeddings`: authenticate, check quota, embed, bill, respond."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from vl2v.teacher.base import Teacher, Vectors
from vl2v.vendor_server.accounts import Account, Accounts, Locked
from vl2v.vendor_server.batching import Batcher, ModelFailedError, UnansweredError
from vl2v.vendor_server.database import write_probe
from vl2v.vendor_server.inputs import Asked, Link, Picture, Text, parse
from vl2v.vendor_server.links import Links
from vl2v.vendor_server.meter import Kept, Meter, Once, Reservation
from vl2v.vendor_server.metrics import Metrics
from vl2v.vendor_server.money import from_nano, written
from vl2v.vendor_server.rates import Rates
from vl2v.vendor_server.settings import VendorSettings
from vl2v.web.body import Held
from vl2v.web.faults import ApiError, bad_image, schema
from vl2v.web.images import first_broken, inspect

P = ParamSpec("P")
T = TypeVar("T")
PURGE_SECONDS = 600
logger = logging.getLogger("vl2v.vendor_server")


@dataclass(frozen=True)
class Reply:
    """A finished answer.

    Attributes:
        body: JSON.
        replayed: True if it was given, and billed, before.
    """

    body: bytes
    replayed: bool


class Service:
    """One teacher for sale.

    Args:
        teacher: the model; it answers one batch at a time.
        engine: the books.
        settings: everything else.
        links: how images are fetched; None makes it from `settings`.
    """

    def __init__(self, teacher: Teacher, engine: Engine, settings: VendorSettings, links: Links | None = None) -> None:
        limits = settings.limits
        self.limits = replace(limits, texts=min(limits.texts, limits.queue))
        self.settings, self.metrics = settings, Metrics()
        self.card = teacher.describe()
        self.accounts, self.rates = Accounts(engine), Rates()
        self.meter = Meter(engine, settings.idempotency_hours * 3600)
        self.batcher = Batcher(
            teacher,
            queue=self.limits.queue,
            wait_seconds=settings.wait_ms / 1000,
            threads=settings.threads,
            observe=lambda kind, size: self.metrics.batches.labels(kind).observe(size),
        )
        self.held = Held()
        self.metrics.queue.set_function(lambda: self.batcher.depth)
        self.metrics.held.set_function(lambda: self.held.bytes)
        self.links = links or Links(settings.image_hosts, self.limits.image_bytes, self.limits.link_seconds)
        self._engine = engine
        self._books = ThreadPoolExecutor(1, "books")  # one: see `vl2v.vendor_server.meter`
        self._hands = ThreadPoolExecutor(2, "hands")  # parses, inspects and writes, away from the event loop
        self._books_failed = False  # until something was written again
        self._at_work: dict[tuple[str, str], tuple[Once, asyncio.Task[Reply]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Begin to work, in the running event loop."""
        self.batcher.start()
        self._keep(asyncio.create_task(self._purge()))

    async def stop(self) -> None:
        """Stop; requests at work are cancelled, and not billed."""
        await self.batcher.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._books.shutdown()
        self._hands.shutdown()
        self._engine.dispose()

    async def authenticate(self, key: str) -> Account:
        """The account of a key.

        Raises:
            ApiError: 401 if the key opens nothing.
        """
        found = await self._in_books(self.accounts.find, key)
        if isinstance(found, Locked):
            step = "send 'Authorization: Bearer <key>' with a key of this vendor"
            step = step if found is Locked.UNKNOWN else "ask the vendor for a new one"
            step = "use the new one" if found is Locked.REPLACED else step
            code = "expired_api_key" if found is Locked.EXPIRED else "invalid_api_key"
            raise ApiError(401, code, f"The API key is {found}; {step}.")
        return found

    def expect_revision(self, wanted: str | None) -> None:
        """Refuse a client that was quoted another revision, before anything is billed.

        Args:
            wanted: the revision that the client was quoted, percent-encoded; None if it does not say.

        Raises:
            ApiError: 412.
        """
        if wanted is not None and wanted != quote(self.card.revision):
            message = (
                f"The model has changed: this service has revision {self.card.revision}, and the request expects "
                "another one. Nothing was billed. Read GET /v1/models again."
            )
            raise ApiError(412, "model_changed", message, param="vl2v-revision")

    async def faults(self) -> list[str]:
        """What does not work, e.g. on a full disk; empty if all does. After a fault of the books, a write is tried."""
        found = [] if self.batcher.alive else ["the model has stopped"]
        try:
            if self._books_failed:
                await self._in_books(write_probe, self._engine)
                self._books_failed = False
            else:
                await self._in_books(self.accounts.find, f"vl2v-{'0' * 16}-{'0' * 43}")
        except ApiError:
            found.append("the database cannot be read or written; see the server's log")
        return found

    async def embed(self, account: Account, request: str, body: bytes, idempotency_key: str | None) -> Reply:
        """Answer a request, once per idempotency key, even if it is sent again meanwhile.

        The work goes on if the client hangs up: it is billed when its answer is there, and a repetition with the same
        key is given that answer.

        Raises:
            ApiError: for every reason not to answer; nothing is billed then.
        """
        once = None if idempotency_key is None else Once.of(_checked(idempotency_key), body, self.card.revision)
        if once is None:
            return await asyncio.shield(self._keep(asyncio.create_task(self._embed(account, request, body, None))))
        slot = (account.id, once.key)
        if slot in self._at_work:
            first, task = self._at_work[slot]
            once.same(first.digest)
            reply = await asyncio.shield(task)
            self.metrics.replays.inc()
            return Reply(reply.body, replayed=True)
        task = self._keep(asyncio.create_task(self._embed(account, request, body, once)))
        self._at_work[slot] = once, task
        task.add_done_callback(lambda _: self._at_work.pop(slot))
        return await asyncio.shield(task)

    async def _embed(self, account: Account, request: str, body: bytes, once: Once | None) -> Reply:
        asked = await self._by_hand(parse, body, self.card.identity, self.card.dimension, self.limits)
        admitted = await self._in_books(self.meter.admit, account, request, asked.images, asked.texts, once)
        if isinstance(admitted, Kept):
            self.metrics.replays.inc()
            return Reply(admitted.body, replayed=True)
        try:
            images, vectors = await self._vectors(asked)
            written_answer = await self._by_hand(self._write, asked, images, vectors, admitted)
        except BaseException:
            self._books.submit(self.meter.release, admitted)
            raise
        final = await self._in_books(self.meter.settle, admitted, written_answer)
        self._count(admitted, final is written_answer)
        return Reply(final, replayed=final is not written_answer)

    async def _vectors(self, asked: Asked) -> tuple[Vectors, Vectors]:
        images = await self._pictures(asked)
        texts = [item.text for item in asked.items if isinstance(item, Text)]
        try:
            return await self.batcher.ask([data for data, _ in images], texts)
        except UnansweredError:
            broken = await self._by_hand(first_broken, images)
            if broken is not None:
                raise bad_image(broken[1], broken[0]) from None
            message = "The model cannot embed one of the inputs; nothing was billed."
            raise schema(message, "input", "unanswerable_input") from None
        except ModelFailedError as error:
            raise ApiError(500, "model_failed", "The model failed on this request; nothing was billed.") from error

    async def _pictures(self, asked: Asked) -> list[tuple[bytes, str]]:
        """Every image's bytes, inspected, with its place in the request."""
        found: list[tuple[bytes, str]] = []
        total, deadline = 0, asyncio.get_running_loop().time() + self.limits.link_seconds
        for i, item in enumerate(asked.items):
            if isinstance(item, Link):
                data = await self.links.fetch(item.url, f"input[{i}]", deadline)
                if (total := total + len(data)) > self.limits.body_bytes:
                    raise ApiError(
                        413, "too_large", "The total size of the images at the URLs is too large.", param="input"
                    )
                found.append((data, f"input[{i}]"))
            elif isinstance(item, Picture):
                found.append((item.data, f"input[{i}]"))
        await self._by_hand(self._inspect, found)
        return found

    def _inspect(self, images: list[tuple[bytes, str]]) -> None:
        for data, param in images:
            inspect(data, param, self.limits)

    def _write(self, asked: Asked, images: Vectors, texts: Vectors, held: Reservation) -> bytes:
        """The answer's JSON: vectors in the order of the inputs, and what they cost."""
        rows = {False: iter(images), True: iter(texts)}
        data = []
        for i, item in enumerate(asked.items):
            row = next(rows[isinstance(item, Text)])
            vector = base64.b64encode(row.astype("<f4").tobytes()).decode() if asked.base64 else row.tolist()
            data.append({"object": "embedding", "index": i, "embedding": vector})
        usage = {
            "prompt_tokens": 0,  # nothing is billed by the token
            "total_tokens": 0,
            "images": held.images,
            "text_inputs": held.texts,
            "billed_units": held.images + held.texts,
            "cost": written(held.cost_nano),
            "currency": held.account.currency,
        }
        card = self.card
        origin = {"model": card.identity, "revision": card.revision, "logit_scale": card.logit_scale}
        answer = {"object": "list", "data": data, **origin, "dimension": card.dimension, "usage": usage}
        return json.dumps(answer, separators=(",", ":")).encode()

    def _count(self, held: Reservation, new: bool) -> None:
        if new:
            self.metrics.billed.labels("image").inc(held.images)
            self.metrics.billed.labels("text").inc(held.texts)
            self.metrics.money.labels(held.account.currency).inc(float(from_nano(held.cost_nano)))

    async def _in_books(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._books, lambda: work(*args, **kwargs))
        except SQLAlchemyError as error:
            self._books_failed = True
            cause = getattr(error, "orig", None) or error  # the driver's words; SQLAlchemy's would repeat the statement
            logger.error("the accounts database fails: %s: %s", type(cause).__name__, " ".join(str(cause).split()))
            message = "The vendor's database does not respond; retry after the time in retry-after."
            raise ApiError(503, "database_unavailable", message, retry_after=2) from error

    async def _by_hand(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._hands, lambda: work(*args, **kwargs))

    def _keep(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        """Hold a task until it ends; a fault that nobody waits for any more is not news."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return task

    async def _purge(self) -> None:
        while True:
            with suppress(ApiError):
                await self._in_books(self.meter.purge)
            await asyncio.sleep(PURGE_SECONDS)


def _checked(key: str) -> str:
    if not 1 <= len(key) <= 255 or not key.isascii() or not key.isprintable():
        raise schema("Expected 1 to 255 printable ASCII characters.", "Idempotency-Key")
    return key
