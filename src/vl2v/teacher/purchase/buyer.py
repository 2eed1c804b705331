"""Buy missing embeddings within the budget. Each batch is validated and saved before the next one is sent.

Ctrl-C and SIGTERM take effect when the answers to what was sent are saved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vl2v.cluster.pool import WorkerPool, current_pool
from vl2v.interrupts import deferred_interrupts
from vl2v.progress import Advance, Progress, Silent
from vl2v.teacher.base import Embeddings, Teacher, checked
from vl2v.teacher.file import FileTeacher
from vl2v.teacher.http.client import HttpTeacher
from vl2v.teacher.origin import Consistency
from vl2v.teacher.purchase.image_set import ImageSet, Source
from vl2v.teacher.purchase.job_buyer import JobPurchase, refuse_if_in_jobs
from vl2v.teacher.purchase.ledger import Budget, PurchaseContext
from vl2v.teacher.purchase.on_workers import Embedder, embedded
from vl2v.teacher.purchase.remote_buyer import Purchase
from vl2v.teacher.purchase.store import Digests, EmbeddingStore
from vl2v.teacher.purchase.thread_count import with_best_threads
from vl2v.teacher.purchase.watch import TeacherWatch


@dataclass(frozen=True)
class Buyer:
    """Buys the embeddings that a store lacks from a teacher, for one run.

    Attributes:
        watch: check of each response after it is stored; None checks only their shape and numbers.
        threads: number of CPU threads for a teacher on this machine; None measures the best number.
        spec: name with which workers of a cluster can open the teacher; None queries it in this process.
        consistency: comparison of the responses before they are stored; only used with `watch`.
        shown: state of each batch job that the user was told last.
    """

    teacher: Teacher
    store: EmbeddingStore
    budget: Budget
    run: str
    progress: Progress | None = None
    watch: TeacherWatch | None = None
    threads: int | None = None
    spec: str | None = None
    consistency: Consistency = field(default_factory=Consistency, init=False)
    shown: dict[str, str] = field(default_factory=dict, init=False, compare=False)

    def images(self, digests: Digests, read: Callable[[int], bytes], purpose: str, view: int = 0) -> int:
        """Buy the image embeddings that the store lacks; return their number.

        Images are queried in an order shuffled by content. If a vendor returns embeddings in the wrong order, the
        zero-shot accuracy is then at chance level and not plausible.

        Args:
            digests: [N, 32] uint8, the SHA-256 of each image; duplicates are bought once.
            read: returns the bytes to send for image i.
            view: number of the view that `read` returns.

        Raises:
            BudgetError: before a batch is sent that would exceed the budget.
            TeacherError: if a response is unusable, or after all others were bought, if the vendor refused images;
                embeddings saved before remain in the store.
        """
        return self.buy(ImageSet(digests, read, purpose, view))

    def buy(self, image_set: ImageSet) -> int:
        """Buy images as `images` does. With `cluster_workers`, a free local teacher is queried by the workers."""
        digests, read, purpose, view = image_set.digests, image_set.read, image_set.purpose, image_set.view
        if (jobs := self._jobs()) is not None:
            return jobs.images(image_set)
        if isinstance(self.teacher, HttpTeacher):
            refuse_if_in_jobs(self.store, self.teacher.describe(), image_set)
            return Purchase(self, self.teacher, purpose).images(image_set)
        card = self.teacher.describe()
        todo = self.store.lacks(card, digests, view)
        bought = 0
        title = f"querying {card.identity} ({purpose})"
        stage = (self.progress or Silent()).stage(title, len(digests), len(digests) - len(todo))
        pool = current_pool() if self.distributable else None
        if pool is not None and image_set.source is not None:
            with stage as advance:
                return self._on_workers(pool, image_set, image_set.source, todo, advance)
        best = with_best_threads(self.teacher, lambda i: read(int(todo[i])), len(todo), self.threads)
        with best, stage as advance, deferred_interrupts() as stop_if_asked:
            for start in range(0, len(todo), card.batch_size):
                stop_if_asked()
                part = todo[start : start + card.batch_size]
                with self.store.alone(self.progress):
                    stored = self.store.knows_images(card, digests[part], view)  # another process may have bought it
                    batch = [i for i, k in zip(part, stored, strict=True) if not k]
                    if batch:
                        data = [read(i) for i in batch]
                        entry = self._entry(purpose, view, len(batch))
                        embeddings = checked(self.teacher.embed_images(data), len(batch), card, "image")
                        self._save(image_set, batch, embeddings, entry)
                bought += len(batch)
                advance(len(part))
        return bought

    def all_images(self, parts: Sequence[ImageSet]) -> None:
        """Buy several parts. Batch jobs are submitted for all parts before any of them is awaited."""
        if self.progress is not None and current_pool() is not None and not self.distributable:
            name = self.teacher.describe().identity
            self.progress.note(f"{name} is queried by this process; the workers of --ray only read the images")
        self.submit(parts)
        for part in parts:
            self.buy(part)

    def submit(self, parts: Sequence[ImageSet]) -> None:
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
        if isinstance(self.teacher, HttpTeacher):
            return Purchase(self, self.teacher, purpose).texts(texts)
        card = self.teacher.describe()
        context = self.context(purpose)
        with self.store.alone(self.progress), deferred_interrupts() as stop_if_asked:
            todo = self.store.lacks_texts(card, texts)
            for start in range(0, len(todo), card.batch_size):
                stop_if_asked()
                batch = todo[start : start + card.batch_size]
                cost = card.price.of(texts=len(batch))
                entry = context.open_entry("text", len(batch), cost)
                embeddings = checked(self.teacher.embed_texts(batch), len(batch), card, "text")
                self.store.keep_texts(card, batch, embeddings, entry)
                if self.watch is not None:
                    self.watch.texts(batch, embeddings)
        return len(todo)

    @property
    def distributable(self) -> bool:
        """Whether workers of a cluster can query the teacher: a free model that runs on their machine."""
        if self.spec is None or isinstance(self.teacher, HttpTeacher | FileTeacher):
            return False
        return self.teacher.describe().price.free

    def _on_workers(
        self, pool: WorkerPool, image_set: ImageSet, source: Callable[[int], Source], todo: list[int], advance: Advance
    ) -> int:
        """Save what workers embed, batch by batch, except what another process has saved by then."""
        card, bought = self.teacher.describe(), 0
        embedder = Embedder.of(str(self.spec), card, pool.use.share, self.threads)
        with deferred_interrupts() as stop_if_asked:
            for part, answer in embedded(pool, embedder, todo, source):
                embeddings = checked(answer, len(part), card, "image")
                with self.store.alone(self.progress):
                    fresh = ~self.store.knows_images(card, image_set.digests[part], image_set.view)
                    rows = [i for i, new in zip(part, fresh, strict=True) if new]
                    if rows:
                        self._save(
                            image_set,
                            rows,
                            embeddings[fresh],
                            self._entry(image_set.purpose, image_set.view, len(rows)),
                        )
                bought += len(rows)
                advance(len(part))
                stop_if_asked()
        return bought

    def _jobs(self) -> JobPurchase | None:
        """Return the purchase by batch jobs; None if the teacher is queried by single requests."""
        if not isinstance(self.teacher, HttpTeacher) or self.teacher.jobs is None:
            return None
        return JobPurchase(self, self.teacher, self.teacher.jobs)

    def context(self, purpose: str, view: int = 0) -> PurchaseContext:
        """Return what the ledger entries of a purchase have in common."""
        return PurchaseContext(self.store, self.budget, self.teacher.describe(), self.run, purpose, view)

    def _entry(self, purpose: str, view: int, images: int) -> int:
        """Reserve the cost of a number of images, and return the entry in the ledger."""
        cost = self.teacher.describe().price.of(images=images)
        return self.context(purpose, view).open_entry("image", images, cost)

    def _save(self, image_set: ImageSet, rows: list[int], embeddings: Embeddings, entry: int) -> None:
        """Save the embeddings of some of the images, and check them."""
        digests = image_set.digests[rows]
        self.store.keep_images(self.teacher.describe(), digests, embeddings, image_set.view, entry)
        if self.watch is not None:
            self.watch.images(digests, embeddings, lambda i: image_set.read(rows[i]))
