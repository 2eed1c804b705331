"""Quote and buy the queries of a whole grid once, before its jobs run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vl2v.benchmark.protocol import Job
from vl2v.benchmark.results import is_finished
from vl2v.benchmark.sweep import Sweep
from vl2v.errors import TeacherError
from vl2v.locking import file_lock
from vl2v.method.registry import BUILT_IN, METHODS
from vl2v.planning.plan import RunPlan, plan_run
from vl2v.progress import Progress
from vl2v.purchase import BudgetAccount, ensure_affordable, open_budget, purchase
from vl2v.teacher.base import Embeddings, Teacher, TeacherCard
from vl2v.teacher.purchase.ledger import Budget, reserved
from vl2v.teacher.purchase.store import Digests, EmbeddingStore
from vl2v.teacher.registry import open_teacher
from vl2v.writing import atomic_write

NOT_OF_THE_PURCHASE = {  # settings that do not change the queries of a job
    *("recipe", "student", "method", "align", "distill", "measure", "image_weight", "image_weight_end"),
    *("batch", "batch_per_domain", "unlabelled_per_batch", "budget", "when_short", "made_with", "origin"),
    *("device", "precision", "compile", "micro_batch", "workers", "threads"),
}


class PurchasedTeacher:
    """Placeholder for a teacher whose embeddings have all been bought. It has no key and no weights."""

    def __init__(self, card: TeacherCard) -> None:
        self._card = card

    def describe(self) -> TeacherCard:
        """See `Teacher.describe`."""
        return self._card

    def embed_images(self, images: list[bytes]) -> Embeddings:
        """Reject the query.

        Raises:
            TeacherError: always.
        """
        raise self._missing(f"{len(images)} images")

    def embed_texts(self, texts: list[str]) -> Embeddings:
        """Reject the query; see `embed_images`."""
        raise self._missing(f"{len(texts)} prompts")

    def _missing(self, what: str) -> TeacherError:
        return TeacherError(
            f"{self._card.identity} has no stored embeddings for some queries of this job.",
            expected="all embeddings bought before the jobs of the grid started",
            found=f"{what} without an embedding",
            next_step="images or prompts have changed; run the benchmark again to buy what is missing",
        )


def teacher_of(card: TeacherCard, job: Job) -> Teacher:
    """Return the teacher of a job: a placeholder, or the real teacher if the job uses fresh views."""
    config = job.config
    if config.teacher.views != "fresh":
        return PurchasedTeacher(card)
    return open_teacher(config.teacher.spec, device=None if config.device == "auto" else config.device)


@dataclass(frozen=True)
class GridPurchase:
    """The queries that the jobs of a grid require, all of whose embeddings are in the store.

    Attributes:
        images: [N, 32] SHA-256 of distinct image contents by view, sorted.
        covers: `purchase_key` of the jobs that are covered.
    """

    card: TeacherCard
    images: dict[int, Digests]
    texts: tuple[str, ...]
    covers: frozenset[str]

    @property
    def key(self) -> str:
        """16 hexadecimal digits, a hash of the teacher and the queries."""
        digest = hashlib.sha256(json.dumps([self.card.identity, self.card.revision, self.texts]).encode())
        for view, rows in sorted(self.images.items()):
            digest.update(str(view).encode() + rows.tobytes())
        return digest.hexdigest()[:16]

    def write(self, source: Path, file: Path) -> None:
        """Copy these embeddings to a store of their own, which other machines can copy as one file.

        Args:
            source: store that contains the embeddings.
            file: path of the new store, on a local disk. An existing file is not changed.
        """
        if file.exists():
            return
        fresh = file.with_name(f"{file.name}.{os.getpid()}.new")
        with closing(EmbeddingStore(source)) as store, closing(EmbeddingStore(fresh)) as copy:
            for view, rows in self.images.items():
                for start in range(0, len(rows), 10_000):
                    part = rows[start : start + 10_000]
                    copy.keep_images(self.card, part, store.images(self.card, part, view), view)
            copy.keep_texts(self.card, self.texts, store.texts(self.card, self.texts))
        fresh.replace(file)


def buy_ahead(sweep: Sweep, progress: Progress) -> GridPurchase:
    """Buy the embeddings that all unfinished jobs of a grid require, before any of the jobs runs.

    One process buys for one job after the other. If another process calls this function at the same time, it waits and
    then finds everything in the store. The ledger records a query under the first job that requires it. All jobs share
    the budget of the grid.

    If candidates require different queries and later seeds use the selection of the first seed, the jobs of later seeds
    are not known yet. Call this function again when they are.

    Raises:
        BudgetError: if the budget does not cover all queries; nothing has been sent.
        TeacherError: if a response is unusable; embeddings bought before are saved.
    """
    with file_lock(sweep.out / "purchase.lock"):
        bought, lacking = survey(sweep, progress)
        if lacking:
            _check(sweep, bought)
        for job in lacking:
            plan = _plan_of(sweep, sweep.affordable(job))
            if _lacks(plan):  # an earlier job may have bought the same
                name = sweep.run_name(job)
                account = BudgetAccount.of_run(name) if sweep.budget is None else sweep.account
                with closing(EmbeddingStore(sweep.storage.store)) as store:
                    budget = open_budget(plan, account, store)
                    ensure_affordable(plan, budget, sweep.out)
                    purchase(plan, budget, store, name, progress)
    return bought


def purchase_key(job: Job) -> str:
    """Return a key that is equal for jobs with the same queries."""
    config, method = job.config, METHODS[job.config.method]
    settings = config.model_dump(mode="json", exclude=NOT_OF_THE_PURCHASE | {*BUILT_IN, *(config.model_extra or ())})
    texts = list(method.texts(config.method_settings))
    content = json.dumps([settings, method.queries_teacher, texts], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def survey(sweep: Sweep, progress: Progress) -> tuple[GridPurchase, list[Job]]:
    """Return the queries of the unfinished jobs, and the jobs whose embeddings are not all in the store."""
    purchases = _purchases(sweep)
    images: dict[int, set[bytes]] = {}
    texts: set[str] = set()
    lacking: list[Job] = []
    assert sweep.teacher is not None
    card = sweep.teacher.describe()
    with progress.stage("collecting queries of the jobs", len(purchases)) as advance:
        for job in purchases.values():
            plan = _plan_of(sweep, job)
            texts.update(plan.requirements.texts)
            for (_, view), digests in plan.requirements.purposes.items():
                images.setdefault(view, set()).update(row.tobytes() for row in digests)
            if _lacks(plan):
                lacking.append(job)
            advance(1)
    rows = {view: np.frombuffer(b"".join(sorted(keys)), np.uint8).reshape(-1, 32) for view, keys in images.items()}
    return GridPurchase(card, rows, tuple(sorted(texts)), frozenset(purchases)), lacking


def unknown(sweep: Sweep, bought: GridPurchase) -> tuple[int, int]:
    """Return the numbers of images and texts that are not in the store."""
    with closing(EmbeddingStore(sweep.storage.store)) as store:
        images = sum(int((~store.knows_images(bought.card, rows, v)).sum()) for v, rows in bought.images.items())
        return images, store.knows_texts(bought.card, bought.texts).count(False)


def _lacks(plan: RunPlan) -> bool:
    return plan.quote.image_queries + plan.quote.text_queries > 0


def _purchases(sweep: Sweep) -> dict[str, Job]:
    """Return one job for each distinct set of queries, in the order of the jobs."""
    every = sweep.expected()
    keys_of: dict[tuple[object, ...], set[str]] = {}
    for job in every:
        keys_of.setdefault((job.method, job.target, job.seed, job.crossed), set()).add(purchase_key(job))
    if any(len(keys) > 1 for keys in keys_of.values()):  # the queries of later seeds may depend on the selection
        every = sweep.jobs()
    jobs: dict[str, Job] = {}
    for job in every:
        if not is_finished(sweep.out, job):
            jobs.setdefault(purchase_key(job), job)
    return jobs


def _check(sweep: Sweep, bought: GridPurchase) -> None:
    """Check that the budget covers the queries, before anything is sent."""
    card = bought.card
    images, texts = unknown(sweep, bought)
    with closing(EmbeddingStore(sweep.storage.store)) as store:
        reservation = reserved(sweep.teacher, store, bought.images.items(), bought.texts)
        budget = Budget(sweep.budget, sweep.spent(), card.price.currency)
    what = f"{images:,} image and {texts:,} text queries of the whole grid"
    budget.check(card.price.of(images, texts) - reservation, what)


def _plan_of(sweep: Sweep, job: Job) -> RunPlan:
    return plan_run(job.config, sweep.storage, teacher=sweep.teacher, with_student=False)


def copy_once(source: Path, file: Path) -> None:
    """Copy a file unless it exists; several processes may copy it at the same time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(file.parent / "lock"):
        if file.exists():
            return
        with atomic_write(file) as fresh:
            shutil.copyfile(source, fresh)
