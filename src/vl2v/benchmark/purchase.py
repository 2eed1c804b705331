"""Quote and buy the queries of a whole grid once, before its jobs run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
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
from vl2v.teacher.base import Teacher, TeacherCard, Vectors
from vl2v.teacher.http.remote import RemoteTeacher
from vl2v.teacher.purchase.ledger import Budget, Ledger
from vl2v.teacher.purchase.store import Digests, EmbeddingStore
from vl2v.teacher.registry import open_teacher
from vl2v.writing import replacing

NOT_OF_THE_PURCHASE = {  # settings that change nothing in what a job asks
    *("recipe", "student", "method", "align", "distill", "measure", "image_weight", "image_weight_end"),
    *("batch", "batch_per_domain", "unlabelled_per_batch", "budget", "made_with"),
    *("device", "precision", "micro_batch", "workers", "threads"),
}


class AnsweredTeacher:
    """Stands in for a teacher that was asked everything already: has its card, and neither key, price list nor weights.

    Args:
        card: the teacher's description.
    """

    def __init__(self, card: TeacherCard) -> None:
        self._card = card

    def describe(self) -> TeacherCard:
        """See `Teacher.describe`."""
        return self._card

    def embed_images(self, images: list[bytes]) -> Vectors:
        """Refuse.

        Raises:
            TeacherError: always.
        """
        raise self._unasked(f"{len(images)} images")

    def embed_texts(self, texts: list[str]) -> Vectors:
        """Refuse; see `embed_images`."""
        raise self._unasked(f"{len(texts)} prompts")

    def _unasked(self, what: str) -> TeacherError:
        return TeacherError(
            f"{self._card.identity} has no stored embeddings for some queries of this job.",
            expected="all embeddings bought before the jobs of the grid started",
            found=f"{what} without an embedding",
            next_step="images or prompts have changed; run the benchmark again to buy what is missing",
        )


def teacher_of(card: TeacherCard, job: Job) -> Teacher:
    """What a job of a grid asks: a teacher that was asked everything, or a real one where fresh views are taken."""
    config = job.config
    if config.teacher.views != "fresh":
        return AnsweredTeacher(card)
    return open_teacher(config.teacher.spec, device=None if config.device == "auto" else config.device)


@dataclass(frozen=True)
class Bought:
    """What the jobs of a grid need to know, all of it in the store.

    Attributes:
        card: the teacher's description.
        images: by view, [N, 32] SHA-256 of distinct contents, sorted.
        texts: distinct prompts, sorted.
        covers: of which jobs, by `purchase_key`.
    """

    card: TeacherCard
    images: dict[int, Digests]
    texts: tuple[str, ...]
    covers: frozenset[str]

    @property
    def key(self) -> str:
        """16 hexadecimal digits, a hash of what is known and of who said it."""
        digest = hashlib.sha256(json.dumps([self.card.identity, self.card.revision, self.texts]).encode())
        for view, rows in sorted(self.images.items()):
            digest.update(str(view).encode() + rows.tobytes())
        return digest.hexdigest()[:16]

    def write(self, source: Path, file: Path) -> None:
        """Copy these vectors into a store of their own that other machines can copy as one file; once is enough.

        Args:
            source: the store in which they are.
            file: the new one, on a disk of this machine.
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


def buy_ahead(sweep: Sweep, progress: Progress) -> Bought:
    """Buy what all jobs of a grid that are not done need, within the one budget, before any of them runs.

    One process buys, job after job; another that calls this meanwhile waits, and finds everything known. The ledger
    books what a job is the first to need under that job, and all jobs share the grid's budget.

    Where candidates differ in what they ask and only the first seed's choice is run with the others, the later seeds'
    jobs are not known yet; call this again when they are.

    Args:
        sweep: the grid, opened.
        progress: told of what is asked.

    Raises:
        BudgetError: before anything is sent, if the budget does not cover the whole.
        TeacherError: if an answer cannot be used; what was kept before stays.
    """
    with file_lock(sweep.out / "purchase.lock"):
        bought, lacking = survey(sweep, progress)
        if lacking:
            _check(sweep, bought)
        for job in lacking:
            plan = _plan_of(sweep, sweep.affordable(job))
            if _lacks(plan):  # an earlier job may have needed the same
                name = sweep.run_name(job)
                account = BudgetAccount.of_run(name) if sweep.budget is None else sweep.account
                with closing(EmbeddingStore(sweep.storage.store)) as store:
                    budget = open_budget(plan, account, store)
                    ensure_affordable(plan, budget, store, sweep.out)
                    purchase(plan, budget, store, name, progress)
    return bought


def purchase_key(job: Job) -> str:
    """Equal for jobs that ask the same."""
    config, method = job.config, METHODS[job.config.method]
    settings = config.model_dump(mode="json", exclude=NOT_OF_THE_PURCHASE | {*BUILT_IN, *(config.model_extra or ())})
    texts = list(method.texts(config.method_settings))
    content = json.dumps([settings, method.queries_teacher, texts], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def survey(sweep: Sweep, progress: Progress) -> tuple[Bought, list[Job]]:
    """What the jobs that are not done need to know, and those of them whose needs are not all in the store."""
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
    return Bought(card, rows, tuple(sorted(texts)), frozenset(purchases)), lacking


def unknown(sweep: Sweep, bought: Bought) -> tuple[int, int]:
    """How many images and texts of these are not in the store yet."""
    with closing(EmbeddingStore(sweep.storage.store)) as store:
        images = sum(int((~store.knows_images(bought.card, rows, v)).sum()) for v, rows in bought.images.items())
        return images, store.knows_texts(bought.card, bought.texts).count(False)


def _lacks(plan: RunPlan) -> bool:
    return plan.quote.image_queries + plan.quote.text_queries > 0


def _purchases(sweep: Sweep) -> dict[str, Job]:
    """One job for each distinct purchase, in the order of the jobs."""
    every = sweep.expected()
    asked: dict[tuple[object, ...], set[str]] = {}
    for job in every:
        asked.setdefault((job.method, job.target, job.seed, job.crossed), set()).add(purchase_key(job))
    if any(len(keys) > 1 for keys in asked.values()):  # what later seeds ask may depend on the choice
        every = sweep.jobs()
    found: dict[str, Job] = {}
    for job in every:
        if not is_finished(sweep.out, job):
            found.setdefault(purchase_key(job), job)
    return found


def _check(sweep: Sweep, bought: Bought) -> None:
    """Refuse what the budget does not cover, before anything is sent."""
    card, teacher = bought.card, sweep.teacher
    images, texts = unknown(sweep, bought)
    with closing(EmbeddingStore(sweep.storage.store)) as store:
        idempotent = isinstance(teacher, RemoteTeacher) and teacher.idempotent
        known = Ledger(store).in_flight(card) if idempotent else Decimal(0)
        budget = Budget(sweep.budget, sweep.spent(), card.price.currency)
    what = f"{images:,} image and {texts:,} text queries of the whole grid"
    budget.check(card.price.of(images, texts) - known, what)


def _plan_of(sweep: Sweep, job: Job) -> RunPlan:
    return plan_run(job.config, sweep.storage, teacher=sweep.teacher, with_student=False)


def copy_once(source: Path, file: Path) -> None:
    """Copy a file to where other processes may be about to copy it as well, unless it is there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(file.parent / "lock"):
        if file.exists():
            return
        with replacing(file) as fresh:
            shutil.copyfile(source, fresh)
