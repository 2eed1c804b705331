"""Buy missing embeddings within the budget. Each batch is validated and saved before the next one is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from vl2v.progress import Progress, Silent
from vl2v.teacher.base import Teacher, Vectors, checked
from vl2v.teacher.http.remote import RemoteTeacher
from vl2v.teacher.origin import Consistency
from vl2v.teacher.purchase.job_buyer import JobPurchase, refuse_if_in_jobs
from vl2v.teacher.purchase.ledger import Budget, PurchaseContext
from vl2v.teacher.purchase.pace import with_best_threads
from vl2v.teacher.purchase.remote_buyer import Purchase
from vl2v.teacher.purchase.store import Digests, EmbeddingStore
from vl2v.teacher.purchase.wanted import Wanted


class Watch(Protocol):
    """A check of each response after it has been stored; an exception ends the purchase."""

    def texts(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Check text embeddings, [N, D] float32."""
        ...

    def images(self, digests: Digests, vectors: Vectors, read: Callable[[int], bytes]) -> None:
        """Check image embeddings, [N, D] float32.

        Args:
            read: returns the bytes of image i.
        """
        ...


@dataclass(frozen=True)
class Buyer:
    """Buys the embeddings that a store lacks from a teacher, for one run.

    Attributes:
        watch: check of the responses; None checks only their shape and numbers.
        threads: number of CPU threads for a teacher on this machine; None measures the best number.
    """

    teacher: Teacher
    store: EmbeddingStore
    budget: Budget
    run: str
    progress: Progress | None = None
    watch: Watch | None = None
    threads: int | None = None
    _consistency: Consistency = field(default_factory=Consistency, init=False)
    _shown: dict[str, str] = field(default_factory=dict, init=False, compare=False)

    def images(
        self,
        digests: Digests,
        read: Callable[[int], bytes],
        purpose: str,
        view: int = 0,
        name: Callable[[int], str] | None = None,
    ) -> int:
        """Buy the image embeddings that the store lacks; return their number.

        Images are queried in an order shuffled by content. If a vendor returns embeddings in the wrong order, the
        zero-shot accuracy is then at chance level and not plausible.

        Args:
            digests: [N, 32] uint8, the SHA-256 of each image; duplicates are bought once.
            read: returns the bytes to send for image i.
            view: number of the view that `read` returns.
            name: returns the path of image i, for messages.

        Raises:
            BudgetError: before a batch is sent that would exceed the budget.
            TeacherError: if a response is unusable, or after all others were bought, if the vendor refused images;
                embeddings saved before remain in the store.
        """
        wanted = Wanted(digests, read, purpose, view, name)
        if (jobs := self._jobs()) is not None:
            return jobs.images(wanted)
        if isinstance(self.teacher, RemoteTeacher):
            refuse_if_in_jobs(self.store, self.teacher.describe(), wanted)
            return self._remote(self.teacher, purpose).images(wanted)
        card = self.teacher.describe()
        todo = self.store.lacks(card, digests, view)
        bought = 0
        title = f"querying {card.identity} ({purpose})"
        with (
            with_best_threads(self.teacher, lambda i: read(int(todo[i])), len(todo), self.threads),
            (self.progress or Silent()).stage(title, len(digests), len(digests) - len(todo)) as advance,
        ):
            for start in range(0, len(todo), card.batch_size):
                part = todo[start : start + card.batch_size]
                with self.store.alone(self.progress):
                    known = self.store.knows_images(card, digests[part], view)  # another process may have bought it
                    batch = [i for i, k in zip(part, known, strict=True) if not k]
                    if batch:
                        self._image_batch(digests[batch], [read(i) for i in batch], purpose, view)
                bought += len(batch)
                advance(len(part))
        return bought

    def all_images(self, parts: Sequence[Wanted]) -> None:
        """Buy several parts with `images`. Batch jobs are submitted for all parts before any of them is awaited."""
        self.submit(parts)
        for part in parts:
            self.images(part.digests, part.read, part.purpose, part.view, part.name)

    def submit(self, parts: Sequence[Wanted]) -> None:
        """Submit batch jobs for several parts without waiting; without a batch API, nothing is sent."""
        if (jobs := self._jobs()) is not None:
            for part in parts:
                if not jobs.submit(part):  # the vendor or the budget takes no more
                    return

    def texts(self, texts: Sequence[str], purpose: str = "prompts") -> int:
        """Buy the text embeddings that the store lacks; return their number.

        Raises:
            BudgetError: before a batch is sent that would exceed the budget.
            TeacherError: if a response is unusable; batches saved before remain in the store.
        """
        if isinstance(self.teacher, RemoteTeacher):
            return self._remote(self.teacher, purpose).texts(texts)
        card = self.teacher.describe()
        context = PurchaseContext(self.store, self.budget, card, self.run, purpose)
        with self.store.alone(self.progress):
            known = self.store.knows_texts(card, texts)
            todo = list(dict.fromkeys(t for t, k in zip(texts, known, strict=True) if not k))
            for start in range(0, len(todo), card.batch_size):
                batch = todo[start : start + card.batch_size]
                cost = card.price.of(texts=len(batch))
                entry = context.open_entry("text", len(batch), cost)
                vectors = checked(self.teacher.embed_texts(batch), len(batch), card, "text")
                self.store.keep_texts(card, batch, vectors, entry)
                if self.watch is not None:
                    self.watch.texts(batch, vectors)
        return len(todo)

    def _jobs(self) -> JobPurchase | None:
        """Return the purchase by batch jobs; None if the teacher is queried by single requests."""
        jobs = getattr(self.teacher, "jobs", None)
        if jobs is None or not isinstance(self.teacher, RemoteTeacher):
            return None
        purchase = JobPurchase(self.teacher, jobs, self.store, self.budget, self.run, self.progress)
        purchase.shown = self._shown
        if self.watch is not None:
            purchase.watch, purchase.consistency = self.watch, self._consistency
        return purchase

    def _remote(self, teacher: RemoteTeacher, purpose: str) -> Purchase:
        purchase = Purchase(teacher, self.store, self.budget, self.run, purpose, self.progress)
        if self.watch is not None:
            purchase.watch, purchase.consistency = self.watch, self._consistency
        return purchase

    def _image_batch(self, digests: Digests, data: list[bytes], purpose: str, view: int) -> None:
        card = self.teacher.describe()
        cost = card.price.of(images=len(data))
        context = PurchaseContext(self.store, self.budget, card, self.run, purpose, view)
        entry = context.open_entry("image", len(data), cost)
        vectors = checked(self.teacher.embed_images(data), len(data), card, "image")
        self.store.keep_images(card, digests, vectors, view, entry)
        if self.watch is not None:
            self.watch.images(digests, vectors, data.__getitem__)
