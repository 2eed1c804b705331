"""Buy the embeddings that a plan requires, and load them as memory-mapped arrays and text heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from vl2v.config import against_choosing
from vl2v.data.pixels import Digests
from vl2v.data.splits import Indices
from vl2v.planning.plan import RunPlan
from vl2v.planning.requirements import EVALUATION, TRAINING, UNSEEN, VALIDATION, check_disk
from vl2v.progress import Progress
from vl2v.student.model import cosine_logits
from vl2v.teacher.base import Embeddings
from vl2v.teacher.prompts import text_head
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.image_set import ImageSet
from vl2v.teacher.purchase.ledger import Budget
from vl2v.teacher.purchase.spending import Spending
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.teacher.purchase.watch import SEEN, TeacherWatch
from vl2v.writing import atomic_write, reserve

TRAINING_FILE, EVALUATION_FILE, UNSEEN_FILE = "vectors.npy", "evaluation.npy", "unseen.npy"
TEXTS_FILE = "texts.npy"
CHUNK = 10_000  # embeddings copied from the store at a time


@dataclass(frozen=True)
class BudgetAccount:
    """The runs that share a budget: a single run, or all jobs of a benchmark.

    Attributes:
        folder: folder of the run or of the benchmark, in which the spending is recorded.
        mine: predicate on the name of a run in the ledger: whether its purchases count against the budget.
    """

    folder: Path
    mine: Callable[[str], bool]

    @classmethod
    def of_run(cls, name: str) -> BudgetAccount:
        """Return the account of a single run, whose name in the ledger is its folder."""
        return cls(Path(name), lambda run: run == name)


def open_budget(plan: RunPlan, account: BudgetAccount, store: EmbeddingStore) -> Budget:
    """Return the budget of a run, less the spending of all its processes from all stores."""
    spending = Spending(account.folder, store, account.mine)
    less = "fewer views, --no-zero-shot"
    if plan.backbone is not None and plan.config.when_short == "refuse" and not against_choosing(plan.config):
        less += ", or a part of the images, --when-short choose"
    return Budget(plan.config.budget, currency=plan.card.price.currency, less=less, spending=spending)


def ensure_affordable(plan: RunPlan, budget: Budget, out: Path) -> None:
    """Raise an error if the budget or the disk does not suffice for a run, before anything is sent.

    Raises:
        BudgetError: if the budget does not cover the quote.
        DiskFullError: if the disk has too little space.
    """
    quote = plan.quote
    budget.check(quote.due, quote.summary)
    check_disk(quote, plan.paths, out)


@dataclass(frozen=True)
class Pilot:
    """Training images that are bought before all others, except by batch jobs, whose answers take hours.

    Attributes:
        then: called when their embeddings are stored, before further images are bought.
    """

    digests: Digests
    then: Callable[[], object]


def purchase(
    plan: RunPlan, budget: Budget, store: EmbeddingStore, run: str, progress: Progress, pilot: Pilot | None = None
) -> None:
    """Buy the required embeddings that the store lacks, texts first.

    Args:
        pilot: images to buy first; None for no such images.

    Raises:
        BudgetError: if the next batch would exceed the budget; it is not sent.
        TeacherError: if a response is not valid, or the embeddings are useless for the dataset.
    """
    watch = None if plan.config.teacher.accept else _watch_of(plan, store)
    if watch is not None:
        _show_stored(watch, plan, store)
    buyer = Buyer(plan.teacher, store, budget, run, progress, watch, plan.config.threads, plan.config.teacher.spec)
    buyer.texts(plan.requirements.texts)
    example_of = {digest.tobytes(): i for i, digest in enumerate(plan.examples.digests)}
    parts = [_image_set(plan, example_of, *kind, digests) for kind, digests in plan.requirements.purposes.items()]
    if pilot is not None and getattr(plan.teacher, "jobs", None) is None:
        buyer.buy(_image_set(plan, example_of, TRAINING, 0, pilot.digests))
        pilot.then()
    buyer.all_images(parts)
    if watch is not None:
        watch.look()


def _image_set(plan: RunPlan, example_of: dict[bytes, int], purpose: str, view: int, digests: Digests) -> ImageSet:
    """Return images to buy for a purpose, and where they are read; `example_of` has examples by SHA-256."""
    if purpose == UNSEEN and plan.unseen is not None:
        return ImageSet.of(digests, plan.unseen.file, purpose, view)
    if purpose in (EVALUATION, VALIDATION):
        rows = plan.split.evaluation_rows
        return ImageSet.of(digests, lambda i: plan.dataset.file(int(rows[i])), purpose, view)
    examples = plan.examples
    return ImageSet.of(digests, lambda i: examples.view(example_of[digests[i].tobytes()]), purpose, view)


def _watch_of(plan: RunPlan, store: EmbeddingStore) -> TeacherWatch:
    """Return a watch that compares embeddings with labels of the source domains; held-out domains are not used."""
    labels = {d.tobytes(): int(n) for d, n in zip(plan.examples.digests, plan.examples.labels, strict=True)}
    for rows in plan.split.validation.values():
        labels |= {plan.dataset.digests[row].tobytes(): int(plan.dataset.labels[row]) for row in rows}
    required = plan.requirements
    return TeacherWatch(
        plan.card.identity,
        labels,
        lambda: text_heads(store.texts(plan.card, required.prompts), required.templates).numpy(),
    )


def _show_stored(watch: TeacherWatch, plan: RunPlan, store: EmbeddingStore) -> None:
    """Pass stored embeddings to the watch, so that a run that it stopped does not buy more when it is resumed."""
    card, texts, examples = plan.card, list(dict.fromkeys(plan.requirements.texts)), plan.examples
    stored_texts = [text for text, k in zip(texts, store.knows_texts(card, texts), strict=True) if k]
    if stored_texts:
        watch.texts(stored_texts, store.texts(card, stored_texts))
    if len(stored_texts) < len(texts):
        return  # without all texts there is no head to compare images with
    rows = np.random.default_rng(0).permutation(np.flatnonzero(examples.views == 0))[:SEEN]
    rows = rows[store.knows_images(card, examples.digests[rows])]
    if len(rows):
        digests = examples.digests[rows]
        watch.images(digests, store.images(card, digests), lambda i: examples.read(int(rows[i])), ordered=False)
        watch.look()


def text_heads(embeddings: Embeddings, templates: int) -> Tensor:
    """Return the text head, [K, D] float32, of [K * T, D] embeddings of T prompts per class, class by class."""
    prompts = torch.from_numpy(embeddings)
    return text_head(prompts.reshape(-1, templates, prompts.shape[-1]))


def zero_shot_logits(embeddings: Embeddings, head: Tensor, logit_scale: float) -> NDArray[np.float32]:
    """Return the logits [N, K] of a teacher's image embeddings [N, D] and its text head [K, D]."""
    logits: NDArray[np.float32] = cosine_logits(torch.from_numpy(np.array(embeddings)), head, logit_scale).numpy()
    return logits


@dataclass(frozen=True)
class BoughtEmbeddings:
    """The teacher's embeddings of a run. Arrays of images are read-only memory maps.

    Attributes:
        training: [R, D] float32, by training example, zero if it was not queried; None if the method uses none.
        evaluation: [E, D] float32, by split position; None if they were not bought.
        unseen: [U, D] float32, of the held-out classes' images; None if they were not bought.
        head: [K, D] float32, the text head.
        unseen_head: [V, D] float32, the text head of the held-out classes; None if there are none.
        method_texts: [K, A, D] float32, of the method's own texts; None if it has none.
        logit_scale: s of the teacher.
    """

    training: Embeddings | None
    evaluation: Embeddings | None
    unseen: Embeddings | None
    head: Tensor
    unseen_head: Tensor | None
    method_texts: Tensor | None
    logit_scale: float

    @classmethod
    def load(cls, plan: RunPlan, folder: Path) -> BoughtEmbeddings:
        """Open the files that `export_embeddings` wrote to a folder."""
        required = plan.requirements
        arrays = {name: np.load(folder / name, mmap_mode="r") for name in _image_files(plan)}
        ends = np.cumsum([len(required.prompts), len(required.method_texts)])
        prompts, further, unseen = np.split(np.load(folder / TEXTS_FILE), ends)
        classes = len(plan.dataset.phrases)
        return cls(
            arrays.get(TRAINING_FILE),
            arrays.get(EVALUATION_FILE),
            arrays.get(UNSEEN_FILE),
            text_heads(prompts, required.templates),
            text_heads(unseen, required.templates) if len(unseen) else None,
            torch.from_numpy(further).reshape(classes, -1, further.shape[-1]) if len(further) else None,
            plan.card.logit_scale,
        )

    def zero_shot(self, embeddings: Embeddings, head: Tensor | None = None) -> NDArray[np.float32]:
        """Return zero-shot logits, [N, K] float32, of [N, D] embeddings with `head` or else the text head."""
        return zero_shot_logits(embeddings, self.head if head is None else head, self.logit_scale)


def export_embeddings(plan: RunPlan, store: EmbeddingStore, folder: Path) -> None:
    """Copy the required embeddings from the store to memory-mapped files, in the order in which they are used.

    Args:
        store: store that contains all required embeddings.
        folder: receives the files; created if necessary.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, (digests, views) in _image_files(plan).items():
        with atomic_write(folder / name) as fresh:
            _copy_images(plan, store, digests, views, fresh, plan.queried if name == TRAINING_FILE else None)
    with atomic_write(folder / TEXTS_FILE) as fresh, fresh.open("wb") as handle:
        np.save(handle, store.texts(plan.card, plan.requirements.texts))


def _image_files(plan: RunPlan) -> dict[str, tuple[Digests, Indices]]:
    """Return the files of a run's image embeddings: SHA-256 [N, 32] and view [N] of every row."""
    files: dict[str, tuple[Digests, Indices]] = {}
    purposes = {purpose for purpose, _ in plan.requirements.purposes}
    if plan.method.queries_teacher:
        files[TRAINING_FILE] = plan.examples.digests, plan.examples.views
    if purposes & {EVALUATION, VALIDATION}:
        rows = plan.split.evaluation_rows
        files[EVALUATION_FILE] = plan.dataset.digests[rows], np.zeros(len(rows), np.int64)
    if UNSEEN in purposes and plan.unseen is not None:
        files[UNSEEN_FILE] = plan.unseen.digests, np.zeros(len(plan.unseen), np.int64)
    return files


def _copy_images(
    plan: RunPlan,
    store: EmbeddingStore,
    digests: Digests,
    views: Indices,
    file: Path,
    queried: NDArray[np.bool_] | None = None,
) -> None:
    out = open_memmap(file, "w+", np.float32, (len(digests), plan.card.dimension))
    reserve(file, file.stat().st_size)
    for view in np.unique(views):
        rows = np.flatnonzero(views == view if queried is None else (views == view) & queried)
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            out[part] = store.images(plan.card, digests[part], int(view))
    out.flush()
