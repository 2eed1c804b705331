"""Buy missing embeddings within the budget; each batch is checked and saved before the next is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from vl2v.progress import Progress, Silent
from vl2v.teacher.base import Teacher, Vectors, checked
from vl2v.teacher.http.remote import RemoteTeacher
from vl2v.teacher.origin import Consistency
from vl2v.teacher.purchase.ledger import Budget, PurchaseContext
from vl2v.teacher.purchase.pace import asking
from vl2v.teacher.purchase.remote_buyer import Purchase
from vl2v.teacher.purchase.store import Digests, EmbeddingStore


class Watch(Protocol):
    """Looks at answers once they are stored, request by request; what it raises ends the purchase."""

    def texts(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Look at [N, D] embeddings of texts."""
        ...

    def images(self, digests: Digests, vectors: Vectors, read: Callable[[int], bytes]) -> None:
        """Look at [N, D] embeddings of [N, 32] contents; `read` gives the bytes of the n-th of them."""
        ...


@dataclass(frozen=True)
class Buyer:
    """Buys from a teacher what the store lacks, for one run.

    Attributes:
        teacher: the one that is asked.
        store: where embeddings and ledger are.
        budget: the most to spend.
        run: the run's name in the ledger.
        progress: told of every batch.
        watch: looks at the answers; None takes whatever comes, as long as its shape is right.
        threads: CPU threads of a teacher on this machine; None measures.
    """

    teacher: Teacher
    store: EmbeddingStore
    budget: Budget
    run: str
    progress: Progress | None = None
    watch: Watch | None = None
    threads: int | None = None
    _consistency: Consistency = field(default_factory=Consistency, init=False)

    def images(self, digests: Digests, read: Callable[[int], bytes], purpose: str, view: int = 0) -> int:
        """Buy the image vectors that the store lacks.

        They are asked for in an order shuffled by content, so that a vendor that mixes up the order of its answers
        shows as a zero-shot accuracy at chance level and not as a plausible one.

        Args:
            digests: [N, 32], SHA-256 of each image's bytes; repeated contents are bought once.
            read: gives the bytes to send for position i.
            purpose: what for, in the ledger.
            view: which view the bytes are.

        Returns:
            How many were bought.

        Raises:
            BudgetError: before a batch that would exceed the budget is sent.
            TeacherError: if an answer cannot be used; what was kept before stays.
        """
        if isinstance(self.teacher, RemoteTeacher):
            return self._remote(self.teacher, purpose).images(digests, read, view)
        card = self.teacher.describe()
        todo = self.store.lacks(card, digests, view)
        bought = 0
        title = f"querying {card.identity} ({purpose})"
        with (
            asking(self.teacher, lambda i: read(int(todo[i])), len(todo), self.threads),
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

    def texts(self, texts: Sequence[str], purpose: str = "prompts") -> int:
        """Buy the text vectors that the store lacks; returns how many. Raises as `images` does."""
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
