"""Buy from a remote teacher with several requests in flight, each recorded, checked and saved."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from vl2v.errors import BudgetError
from vl2v.interrupts import deferred_interrupts
from vl2v.progress import Advance, Silent, warn
from vl2v.sqlite import keys_of
from vl2v.teacher.http.client import HttpTeacher
from vl2v.teacher.http.packing import image_size, pack, text_size
from vl2v.teacher.http.remote import Answer, Kind, Order, RejectedInputError
from vl2v.teacher.purchase.accounts import BatchAccount
from vl2v.teacher.purchase.image_set import ImageSet, not_embedded
from vl2v.teacher.purchase.ledger import PurchaseContext
from vl2v.teacher.purchase.ledger_table import Pending

if TYPE_CHECKING:
    from vl2v.teacher.purchase.buyer import Buyer


PATIENCE = 0.5  # seconds between two looks at whether the user asked to stop
REJECTED = 10  # rejected images that do not stop a purchase, in addition to a tenth of the answered ones


@dataclass(frozen=True)
class PendingRequest:
    """A request, its inputs, and its account.

    Attributes:
        members: indices of images, or texts.
        again: returns a request for some of the members; None if a rejected request is not divided.
    """

    order: Order
    members: list[Any]
    account: BatchAccount
    again: Callable[[list[Any]], PendingRequest] | None = None


class Purchase:
    """A purchase of embeddings of one kind by single requests.

    Args:
        teacher: the teacher of `buyer`.
    """

    def __init__(self, buyer: Buyer, teacher: HttpTeacher, purpose: str) -> None:
        self._buyer, self._teacher, self._purpose = buyer, teacher, purpose
        self._store, self._card = buyer.store, teacher.describe()
        self._progress = buyer.progress or Silent()
        self._answered, self._rejected = 0, dict[int, RejectedInputError]()

    def images(self, image_set: ImageSet) -> int:
        """See `vl2v.teacher.purchase.buyer.Buyer.images`. Other processes wait until the purchase ends."""
        digests, read, view = image_set.digests, image_set.read, image_set.view
        context = self._buyer.context(self._purpose, view)
        title = f"querying {self._card.identity} ({self._purpose})"

        def save(request: PendingRequest, answer: Answer) -> None:
            rows = digests[request.members]
            save_rows = partial(self._store.keep_images, self._card, rows, answer.embeddings, view)
            request.account.settle(answer.cost, save_rows)
            if self._buyer.watch is not None:
                self._buyer.watch.images(rows, answer.embeddings, lambda i: read(request.members[i]))

        with self._store.alone(self._progress):
            todo = self._store.lacks(self._card, digests, view)
            with self._progress.stage(title, len(digests), len(digests) - len(todo)) as advance:
                try:
                    self._run_all(self._image_requests(context, image_set, todo), save, advance)
                except RejectedInputError:
                    if not self._rejected:
                        raise
        if self._rejected:
            names, first = image_set.named(list(self._rejected)), next(iter(self._rejected.values()))
            for name, error in zip(names, self._rejected.values(), strict=True):
                warn(self._progress, f"{self._card.identity} rejected {name}: {error.found}")
            raise not_embedded(self._card.identity, names, first.found)
        return len(todo)

    def texts(self, texts: Sequence[str]) -> int:
        """See `vl2v.teacher.purchase.buyer.Buyer.texts`. Other processes wait until the purchase ends."""
        context = self._buyer.context(self._purpose)

        def save(request: PendingRequest, answer: Answer) -> None:
            save_rows = partial(self._store.keep_texts, self._card, request.members, answer.embeddings)
            request.account.settle(answer.cost, save_rows)
            if self._buyer.watch is not None:
                self._buyer.watch.texts(request.members, answer.embeddings)

        with self._store.alone(self._progress):
            todo = self._store.lacks_texts(self._card, texts)
            self._run_all(self._text_requests(context, todo), save, lambda _: None)
        return len(todo)

    def _image_requests(
        self, context: PurchaseContext, image_set: ImageSet, todo: list[int]
    ) -> Iterator[PendingRequest]:
        """Yield the requests: first, unchanged, those that an earlier process sent without receiving a response."""
        digests, read, limits = image_set.digests, image_set.read, self._teacher.limits
        missing = {digests[i].tobytes(): i for i in todo}

        def request(batch: Sequence[tuple[int, bytes]], earlier: Pending | None) -> PendingRequest:
            members = [i for i, _ in batch]
            order = self._teacher.order("image", [data for _, data in batch])
            return self._request(context, order, members, digests[members].tobytes(), earlier, of_images)

        def of_images(members: list[int], earlier: Pending | None = None) -> PendingRequest:
            return request([(i, self._teacher.fit(read(i))) for i in members], earlier)

        for pending in self._pending("image", context.view):
            keys = keys_of(pending.images)
            if all(key in missing for key in keys):
                yield of_images([missing.pop(key) for key in keys], pending)
        contents = ((i, self._teacher.fit(read(i))) for i in missing.values())
        for batch in pack(contents, lambda item: image_size(item[1]), limits.images, limits):
            yield request(batch, None)

    def _text_requests(self, context: PurchaseContext, todo: list[str]) -> Iterator[PendingRequest]:
        missing = dict.fromkeys(todo)

        def request(batch: list[str], earlier: Pending | None) -> PendingRequest:
            order = self._teacher.order("text", batch)
            return self._request(context, order, batch, json.dumps(batch).encode(), earlier)

        for pending in self._pending("text", None):
            batch = json.loads(pending.members)
            if all(text in missing for text in batch):
                for text in batch:
                    del missing[text]
                yield request(batch, pending)
        for batch in pack(missing, text_size, self._teacher.limits.texts, self._teacher.limits):
            yield request(batch, None)

    def _pending(self, kind: Kind, view: int | None) -> list[Pending]:
        return self._store.pending(self._card, kind, view) if self._teacher.idempotent else []

    def _request(
        self,
        context: PurchaseContext,
        order: Order,
        members: list[Any],
        names: bytes,
        earlier: Pending | None,
        again: Callable[[list[Any]], PendingRequest] | None = None,
    ) -> PendingRequest:
        same = earlier if earlier is not None and earlier.key == order.key else None
        account = BatchAccount(context, order, self._teacher.idempotent, names, same)
        return PendingRequest(order, members, account, again)

    def _run_all(
        self, requests: Iterator[PendingRequest], save: Callable[[PendingRequest, Answer], None], advance: Advance
    ) -> None:
        """Send as many requests at once as the vendor allows; after a fault, send no more and save what arrives.

        A request whose images the vendor rejects is divided, so that a single unacceptable image stops no other. Ctrl-C
        and SIGTERM stop the purchase when the responses to all requests in flight are saved, since they are paid.
        """
        stop = threading.Event()
        in_flight: dict[Future[Answer], PendingRequest] = {}
        halves: list[PendingRequest] = []
        fault: BaseException | None = None
        width = self._teacher.limits.concurrency
        with ThreadPoolExecutor(width, "vl2v-teacher") as pool, deferred_interrupts(insist=False) as stop_if_asked:
            try:
                more: PendingRequest | None = next(requests, None)
                while more is not None or in_flight:
                    stop_if_asked()
                    while more is not None and len(in_flight) < width and self._reserved(more, bool(in_flight)):
                        in_flight[pool.submit(self._teacher.fulfil, more.order, more.account, stop)] = more
                        more = halves.pop() if halves else next(requests, None)
                    halves += self._collect(in_flight, save, advance)
                    if more is None and halves:
                        more = halves.pop()
            except BaseException as error:
                fault = error
                stop.set()
                if isinstance(error, KeyboardInterrupt) and in_flight:
                    saving = "the answers to requests that were sent are saved first, since they are paid"
                    warn(self._progress, f"stopping: {saving}; this takes at most {self._teacher.timeout:.0f} s")
                while in_flight:
                    with suppress(Exception):  # the first fault is reported
                        self._collect(in_flight, save, advance)
        if fault is not None:
            raise fault

    @staticmethod
    def _reserved(request: PendingRequest, others: bool) -> bool:
        """Reserve the cost of a request; False if the budget is too small until those in flight cost less."""
        try:
            request.account.reserve()
        except BudgetError:
            if others:
                return False
            raise
        return True

    def _collect(
        self,
        in_flight: dict[Future[Answer], PendingRequest],
        save: Callable[[PendingRequest, Answer], None],
        advance: Advance,
    ) -> list[PendingRequest]:
        """Wait a little for responses and save them; return the halves of rejected requests."""
        halves: list[PendingRequest] = []
        for future in wait(in_flight, PATIENCE, FIRST_COMPLETED).done:
            request = in_flight.pop(future)
            try:
                answer = future.result()
            except RejectedInputError as error:
                request.account.give_up()
                halves += self._divided(request, error)
                continue
            except BaseException:
                request.account.give_up()
                raise
            if self._buyer.watch is not None:
                fault = self._buyer.consistency.fault(self._store, self._card, request.order.kind, answer)
                if fault is not None:
                    request.account.wasted(fault.found, answer.cost)
                    raise fault
            excess = request.account.overcharged(answer.cost)
            save(request, answer)
            self._answered += request.order.count
            advance(request.order.count)
            if excess is not None:
                raise excess
        return halves

    def _divided(self, request: PendingRequest, error: RejectedInputError) -> list[PendingRequest]:
        """Return the two halves of a rejected request; record the rejection of a single image.

        Raises:
            RejectedInputError: if the inputs are texts, or too many images were rejected.
        """
        if request.again is None:
            raise error
        members, middle = request.members, len(request.members) // 2
        if middle:
            return [request.again(members[:middle]), request.again(members[middle:])]
        self._rejected[members[0]] = error
        if len(self._rejected) > REJECTED + self._answered // 10:
            raise error
        return []
