"""Buy from a remote teacher with several requests in flight, each recorded, checked and saved."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from vl2v.errors import BudgetError
from vl2v.progress import Advance, Progress, Silent
from vl2v.teacher.http.packing import image_size, pack, text_size
from vl2v.teacher.http.remote import AbandonedError, Answer, Kind, Order, RemoteTeacher
from vl2v.teacher.origin import Consistency
from vl2v.teacher.purchase.accounts import BatchAccount
from vl2v.teacher.purchase.ledger import Budget, PurchaseContext
from vl2v.teacher.purchase.store import Digests, EmbeddingStore, Pending

if TYPE_CHECKING:
    from vl2v.teacher.purchase.buyer import Watch


@dataclass(frozen=True)
class Parcel:
    """An order, what its rows belong to, and where it is booked."""

    order: Order
    members: Any  # positions of images, or texts
    account: BatchAccount


class Purchase:
    """One purchase of one kind of vectors.

    Args:
        teacher: who is asked.
        store: where vectors and ledger are.
        budget: out of which purse.
        run: for which run.
        purpose: what for, in the ledger.
        progress: told of every batch.

    Attributes:
        watch: looks at the answers once they are stored; None looks at nothing.
        consistency: compares the answers with one another before they are stored; None compares nothing.
    """

    def __init__(
        self,
        teacher: RemoteTeacher,
        store: EmbeddingStore,
        budget: Budget,
        run: str,
        purpose: str,
        progress: Progress | None = None,
    ) -> None:
        self.watch: Watch | None = None
        self.consistency: Consistency | None = None
        self._teacher, self._store, self._card = teacher, store, teacher.describe()
        self._budget, self._run, self._purpose = budget, run, purpose
        self._progress = progress or Silent()

    def images(self, digests: Digests, read: Callable[[int], bytes], view: int = 0) -> int:
        """See `vl2v.teacher.purchase.buyer.Buyer.images`. No other process buys meanwhile."""
        context = PurchaseContext(self._store, self._budget, self._card, self._run, self._purpose, view)
        title = f"querying {self._card.identity} ({self._purpose})"

        def keep(parcel: Parcel, answer: Answer) -> None:
            rows = digests[parcel.members]
            kept = partial(self._store.keep_images, self._card, rows, answer.vectors, view)
            parcel.account.settle(answer.cost, kept)
            if self.watch is not None:
                self.watch.images(rows, answer.vectors, lambda i: read(parcel.members[i]))

        with self._store.alone(self._progress):
            todo = self._store.lacks(self._card, digests, view)
            with self._progress.stage(title, len(digests), len(digests) - len(todo)) as advance:
                self._run_all(self._image_parcels(context, digests, todo, read), keep, advance)
        return len(todo)

    def texts(self, texts: Sequence[str]) -> int:
        """See `vl2v.teacher.purchase.buyer.Buyer.texts`. No other process buys meanwhile."""
        context = PurchaseContext(self._store, self._budget, self._card, self._run, self._purpose)

        def keep(parcel: Parcel, answer: Answer) -> None:
            kept = partial(self._store.keep_texts, self._card, parcel.members, answer.vectors)
            parcel.account.settle(answer.cost, kept)
            if self.watch is not None:
                self.watch.texts(parcel.members, answer.vectors)

        with self._store.alone(self._progress):
            known = self._store.knows_texts(self._card, texts)
            todo = list(dict.fromkeys(t for t, k in zip(texts, known, strict=True) if not k))
            self._run_all(self._text_parcels(context, todo), keep, lambda _: None)
        return len(todo)

    def _image_parcels(
        self, context: PurchaseContext, digests: Digests, todo: list[int], read: Callable[[int], bytes]
    ) -> Iterator[Parcel]:
        """The batches to send: first those that an earlier process sent and got no answer to, just as they were."""
        left = {digests[i].tobytes(): i for i in todo}

        def parcel(batch: Sequence[tuple[int, bytes]], earlier: Pending | None) -> Parcel:
            members = [i for i, _ in batch]
            order = self._teacher.order("image", [data for _, data in batch])
            return self._parcel(context, order, members, digests[members].tobytes(), earlier)

        for pending in self._pending("image", context.view):
            keys = [pending.members[i : i + 32] for i in range(0, len(pending.members), 32)]
            if all(key in left for key in keys):
                positions = [left.pop(key) for key in keys]
                yield parcel([(i, self._teacher.fit(read(i))) for i in positions], pending)
        limits = self._teacher.limits
        fitted = ((i, self._teacher.fit(read(i))) for i in left.values())
        for batch in pack(fitted, lambda item: image_size(item[1]), limits.images, limits):
            yield parcel(batch, None)

    def _text_parcels(self, context: PurchaseContext, todo: list[str]) -> Iterator[Parcel]:
        left = dict.fromkeys(todo)

        def parcel(batch: list[str], earlier: Pending | None) -> Parcel:
            order = self._teacher.order("text", batch)
            return self._parcel(context, order, batch, json.dumps(batch).encode(), earlier)

        for pending in self._pending("text", None):
            batch = json.loads(pending.members)
            if all(text in left for text in batch):
                for text in batch:
                    del left[text]
                yield parcel(batch, pending)
        for batch in pack(left, text_size, self._teacher.limits.texts, self._teacher.limits):
            yield parcel(batch, None)

    def _pending(self, kind: Kind, view: int | None) -> list[Pending]:
        return self._store.pending(self._card, kind, view) if self._teacher.idempotent else []

    def _parcel(
        self, context: PurchaseContext, order: Order, members: Any, names: bytes, earlier: Pending | None
    ) -> Parcel:
        same = earlier if earlier is not None and earlier.key == order.key else None
        return Parcel(order, members, BatchAccount(context, order, self._teacher.idempotent, names, same))

    def _run_all(self, parcels: Iterator[Parcel], keep: Callable[[Parcel, Answer], None], advance: Advance) -> None:
        """Keep as many requests under way as the vendor takes; after a fault send no more, keep what comes."""
        stop = threading.Event()
        underway: dict[Future[Answer], Parcel] = {}
        fault: BaseException | None = None
        width = self._teacher.limits.concurrency
        with ThreadPoolExecutor(width, "vl2v-teacher") as pool:
            try:
                more: Parcel | None = next(parcels, None)
                while more is not None or underway:
                    while more is not None and len(underway) < width and self._reserved(more, bool(underway)):
                        underway[pool.submit(self._teacher.fulfil, more.order, more.account, stop)] = more
                        more = next(parcels, None)
                    self._collect(underway, keep, advance)
            except BaseException as error:
                fault = error
                stop.set()
                while underway:
                    fault = self._collect_quietly(underway, keep, advance, fault)
        if fault is not None:
            raise fault

    @staticmethod
    def _reserved(parcel: Parcel, others: bool) -> bool:
        """Reserve the money; false if there is not enough now, but others under way may cost less than reserved."""
        try:
            parcel.account.reserve()
        except BudgetError:
            if others:
                return False
            raise
        return True

    def _collect(
        self, underway: dict[Future[Answer], Parcel], keep: Callable[[Parcel, Answer], None], advance: Advance
    ) -> None:
        for future in wait(underway, return_when=FIRST_COMPLETED).done:
            parcel = underway.pop(future)
            try:
                answer = future.result()
            except BaseException:
                parcel.account.give_up()
                raise
            if self.consistency is not None:
                fault = self.consistency.fault(self._store, self._card, parcel.order.kind, answer)
                if fault is not None:
                    parcel.account.wasted(fault.found, answer.cost)
                    raise fault
            excess = parcel.account.overcharged(answer.cost)
            keep(parcel, answer)
            advance(parcel.order.count)
            if excess is not None:
                raise excess

    def _collect_quietly(
        self,
        underway: dict[Future[Answer], Parcel],
        keep: Callable[[Parcel, Answer], None],
        advance: Advance,
        fault: BaseException,
    ) -> BaseException:
        """Collect after a fault; the first fault is the one that is told."""
        try:
            self._collect(underway, keep, advance)
        except AbandonedError:
            pass
        except KeyboardInterrupt as again:
            return again
        except Exception:
            pass
        return fault
