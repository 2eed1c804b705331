"""The implementation of `POST /v1/embeddings`: authenticate, check the quota, embed, bill, respond."""

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

from vl2v.teacher.base import Embeddings, Teacher
from vl2v.vendor_server.accounts import Account, Accounts
from vl2v.vendor_server.batching import Batcher, ModelFailedError, UnansweredError
from vl2v.vendor_server.database import write_probe
from vl2v.vendor_server.inputs import Link, ParsedRequest, Picture, Text, parse
from vl2v.vendor_server.keys import KeyFault
from vl2v.vendor_server.links import Links
from vl2v.vendor_server.meter import IdempotencyKey, Meter, Reservation
from vl2v.vendor_server.metrics import Metrics
from vl2v.vendor_server.money import from_nano, written
from vl2v.vendor_server.rates import Rates
from vl2v.vendor_server.settings import VendorSettings
from vl2v.web.body import BodyMemory
from vl2v.web.faults import ApiError, bad_image, schema
from vl2v.web.images import first_broken, inspect

P = ParamSpec("P")
T = TypeVar("T")
PURGE_SECONDS = 600
logger = logging.getLogger("vl2v.vendor_server")


@dataclass(frozen=True)
class Reply:
    """A complete response.

    Attributes:
        replayed: whether it was sent and billed before.
    """

    body: bytes
    replayed: bool


class Service:
    """A service that sells the embeddings of one teacher.

    Args:
        teacher: the model, which embeds one batch at a time.
        links: fetches images from URLs; None creates it from `settings`.
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
        self.body_memory = BodyMemory()
        self.metrics.queue.set_function(lambda: self.batcher.depth)
        self.metrics.held.set_function(lambda: self.body_memory.bytes)
        self.links = links or Links(settings.image_hosts, self.limits.image_bytes, self.limits.link_seconds)
        self._engine = engine
        self._database = ThreadPoolExecutor(1, "database")  # one thread; see `vl2v.vendor_server.meter`
        self._executor = ThreadPoolExecutor(2, "requests")  # parses, inspects and encodes outside the event loop
        self._database_failed = False  # until a write succeeds again
        self._in_flight: dict[tuple[str, str], tuple[IdempotencyKey, asyncio.Task[Reply]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Start in the running event loop."""
        self.batcher.start()
        self._keep(asyncio.create_task(self._purge()))

    async def stop(self) -> None:
        """Stop; requests in flight are cancelled and not billed."""
        await self.batcher.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._database.shutdown()
        self._executor.shutdown()
        self._engine.dispose()

    async def authenticate(self, key: str) -> Account:
        """Return the account of a key.

        Raises:
            ApiError: 401 if the key is invalid.
        """
        account = await self._in_database(self.accounts.find, key)
        if isinstance(account, KeyFault):
            step = "send 'Authorization: Bearer <key>' with a key of this vendor"
            step = step if account is KeyFault.UNKNOWN else "ask the vendor for a new one"
            step = "use the new one" if account is KeyFault.REPLACED else step
            code = "expired_api_key" if account is KeyFault.EXPIRED else "invalid_api_key"
            raise ApiError(401, code, f"The API key is {account}; {step}.")
        return account

    def expect_revision(self, quoted: str | None) -> None:
        """Check that a client was quoted the current revision, before anything is billed.

        Args:
            quoted: the quoted revision, percent-encoded; None if the client does not state it.

        Raises:
            ApiError: 412 if it was quoted another one.
        """
        if quoted is not None and quoted != quote(self.card.revision):
            message = (
                f"The model has changed: this service has revision {self.card.revision}, and the request expects "
                "another one. Nothing was billed. Read GET /v1/models again."
            )
            raise ApiError(412, "model_changed", message, param="vl2v-revision")

    async def faults(self) -> list[str]:
        """Return the current faults, e.g. a full disk. After a fault of the database, a write is tried."""
        faults = [] if self.batcher.alive else ["the model has stopped"]
        try:
            if self._database_failed:
                await self._in_database(write_probe, self._engine)
                self._database_failed = False
            else:
                await self._in_database(self.accounts.find, f"vl2v-{'0' * 16}-{'0' * 43}")
        except ApiError:
            faults.append("the database cannot be read or written; see the server's log")
        return faults

    async def embed(self, account: Account, request: str, body: bytes, idempotency_key: str | None) -> Reply:
        """Process a request, once per idempotency key, also if it is repeated while it is in flight.

        Processing continues if the client disconnects. The request is billed when its response is complete, and a
        repetition with the same key gets this response.

        Raises:
            ApiError: if the request cannot be processed; nothing is billed then.
        """
        idempotency = (
            None if idempotency_key is None else IdempotencyKey.of(_checked(idempotency_key), body, self.card.revision)
        )
        if idempotency is None:
            return await asyncio.shield(self._keep(asyncio.create_task(self._embed(account, request, body, None))))
        slot = (account.id, idempotency.key)
        if slot in self._in_flight:
            first, task = self._in_flight[slot]
            idempotency.check_body(first.digest)
            reply = await asyncio.shield(task)
            self.metrics.replays.inc()
            return Reply(reply.body, replayed=True)
        task = self._keep(asyncio.create_task(self._embed(account, request, body, idempotency)))
        self._in_flight[slot] = idempotency, task
        task.add_done_callback(lambda _: self._in_flight.pop(slot))
        return await asyncio.shield(task)

    async def _embed(self, account: Account, request: str, body: bytes, idempotency: IdempotencyKey | None) -> Reply:
        parsed = await self._in_executor(parse, body, self.card.identity, self.card.dimension, self.limits)
        admitted = await self._in_database(self.meter.admit, account, request, parsed.images, parsed.texts, idempotency)
        if isinstance(admitted, bytes):
            self.metrics.replays.inc()
            return Reply(admitted, replayed=True)
        try:
            images, embeddings = await self._embeddings(parsed)
            written_answer = await self._in_executor(self._write, parsed, images, embeddings, admitted)
        except BaseException:
            self._database.submit(self.meter.release, admitted)
            raise
        final = await self._in_database(self.meter.settle, admitted, written_answer)
        if final is not written_answer:
            return Reply(final, replayed=True)
        self.metrics.billed.labels("image").inc(admitted.images)
        self.metrics.billed.labels("text").inc(admitted.texts)
        self.metrics.money.labels(account.currency).inc(float(from_nano(admitted.cost_nano)))
        return Reply(final, replayed=False)

    async def _embeddings(self, parsed: ParsedRequest) -> tuple[Embeddings, Embeddings]:
        images = await self._pictures(parsed)
        texts = [item.text for item in parsed.items if isinstance(item, Text)]
        try:
            return await self.batcher.ask([data for data, _ in images], texts)
        except UnansweredError:
            broken = await self._in_executor(first_broken, images)
            if broken is not None:
                raise bad_image(broken[1], broken[0]) from None
            message = "The model cannot embed one of the inputs; nothing was billed."
            raise schema(message, "input", "unanswerable_input") from None
        except ModelFailedError as error:
            raise ApiError(500, "model_failed", "The model failed on this request; nothing was billed.") from error

    async def _pictures(self, parsed: ParsedRequest) -> list[tuple[bytes, str]]:
        """Return the validated bytes of every image, with its position in the request."""
        images: list[tuple[bytes, str]] = []
        total, deadline = 0, asyncio.get_running_loop().time() + self.limits.link_seconds
        for i, item in enumerate(parsed.items):
            if isinstance(item, Link):
                data = await self.links.fetch(item.url, f"input[{i}]", deadline)
                if (total := total + len(data)) > self.limits.body_bytes:
                    raise ApiError(
                        413, "too_large", "The total size of the images at the URLs is too large.", param="input"
                    )
                images.append((data, f"input[{i}]"))
            elif isinstance(item, Picture):
                images.append((item.data, f"input[{i}]"))
        for data, param in images:
            await self._in_executor(inspect, data, param, self.limits)
        return images

    def _write(self, parsed: ParsedRequest, images: Embeddings, texts: Embeddings, reservation: Reservation) -> bytes:
        """Encode the response as JSON: embeddings in the order of the inputs, and their cost."""
        rows = {False: iter(images), True: iter(texts)}
        data = []
        for i, item in enumerate(parsed.items):
            row = next(rows[isinstance(item, Text)])
            vector = base64.b64encode(row.astype("<f4").tobytes()).decode() if parsed.base64 else row.tolist()
            data.append({"object": "embedding", "index": i, "embedding": vector})
        usage = {
            "prompt_tokens": 0,  # nothing is billed per token
            "total_tokens": 0,
            "images": reservation.images,
            "text_inputs": reservation.texts,
            "billed_units": reservation.images + reservation.texts,
            "cost": written(reservation.cost_nano),
            "currency": reservation.account.currency,
        }
        card = self.card
        origin = {"model": card.identity, "revision": card.revision, "logit_scale": card.logit_scale}
        answer = {"object": "list", "data": data, **origin, "dimension": card.dimension, "usage": usage}
        return json.dumps(answer, separators=(",", ":")).encode()

    async def _in_database(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._database, lambda: work(*args, **kwargs))
        except SQLAlchemyError as error:
            self._database_failed = True
            cause = getattr(error, "orig", None) or error  # SQLAlchemy's message would repeat the statement
            logger.error("the accounts database fails: %s: %s", type(cause).__name__, " ".join(str(cause).split()))
            message = "The vendor's database does not respond; retry after the time in retry-after."
            raise ApiError(503, "database_unavailable", message, retry_after=2) from error

    async def _in_executor(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: work(*args, **kwargs))

    def _keep(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        """Keep a reference to a task until it ends, and retrieve its exception, so that asyncio does not log it."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return task

    async def _purge(self) -> None:
        while True:
            with suppress(ApiError):
                await self._in_database(self.meter.purge)
            await asyncio.sleep(PURGE_SECONDS)


def _checked(key: str) -> str:
    if not 1 <= len(key) <= 255 or not key.isascii() or not key.isprintable():
        raise schema("Expected 1 to 255 printable ASCII characters.", "Idempotency-Key")
    return key
