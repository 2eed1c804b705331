"""Buy images by batch jobs of a vendor: submit them, wait, and save their embeddings.

A job is recorded in the ledger under a new label before it is created, and under the vendor's name afterwards. A
process that finds a label without a name searches the vendor's jobs for it, so no job is created twice.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vl2v.errors import BudgetError, TeacherError
from vl2v.progress import Advance, Silent, warn
from vl2v.sqlite import keys_of
from vl2v.teacher.base import TeacherCard, checked
from vl2v.teacher.http.client import HttpTeacher
from vl2v.teacher.http.jobs import FULL, Jobs, JobState, Refusal
from vl2v.teacher.http.packing import image_size, pack
from vl2v.teacher.http.remote import Answer
from vl2v.teacher.http.retry import Failure
from vl2v.teacher.purchase.image_set import ImageSet, not_embedded
from vl2v.teacher.purchase.ledger_table import JOB, Pending
from vl2v.teacher.purchase.store import EmbeddingStore

if TYPE_CHECKING:
    from vl2v.teacher.purchase.buyer import Buyer

FIRST, LONGEST, GROWTH = 5.0, 120.0, 1.5  # seconds between two looks at the jobs
ROUNDS = 3  # attempts at an image that the vendor did not process
LABEL = "vl2v-"  # start of every label; the vendor's names start otherwise


def open_jobs(store: EmbeddingStore, card: TeacherCard, image_set: ImageSet | None = None) -> list[Pending]:
    """Return the jobs that have not been collected; with `image_set`, only those with some of these images."""
    jobs = [batch for batch in store.pending(card, "image") if batch.key.startswith(JOB)]
    if image_set is None:
        return jobs
    keys = {row.tobytes() for row in image_set.digests}
    return [job for job in jobs if job.view == image_set.view and not keys.isdisjoint(_members(job))]


def refuse_if_in_jobs(store: EmbeddingStore, card: TeacherCard, image_set: ImageSet) -> None:
    """Refuse to buy images by single requests that are in a job, and would be charged twice.

    Raises:
        TeacherError: if there are such images.
    """
    if jobs := open_jobs(store, card, image_set):
        keys = {row.tobytes() for row in image_set.digests}
        count = sum(key in keys for job in jobs for key in _members(job))
        raise TeacherError(
            f"{count} of these images are in batch jobs at {card.identity}.",
            expected="images that are not being bought already",
            found=f"{len(jobs)} job{'s' * (len(jobs) > 1)} without collected answers",
            next_step="repeat the command that submitted them, which collects them",
        )


class JobPurchase:
    """A purchase of images by batch jobs.

    Args:
        teacher: the teacher of `buyer`.
        jobs: its batch jobs.
    """

    def __init__(self, buyer: Buyer, teacher: HttpTeacher, jobs: Jobs) -> None:
        self._buyer, self._teacher, self._jobs = buyer, teacher, jobs
        self._store, self._card = buyer.store, teacher.describe()
        self._progress = buyer.progress or Silent()
        self._limits = replace(teacher.limits, images=jobs.api.images, request_bytes=jobs.api.request_bytes)

    def images(self, image_set: ImageSet) -> int:
        """Buy the images that the store lacks, and wait for them; see `vl2v.teacher.purchase.buyer.Buyer.images`.

        Other processes can use the store while this one waits.

        Raises:
            KeyboardInterrupt: with a message about the jobs that go on, if the user stops the command.
        """
        title = f"querying {self._card.identity} ({image_set.purpose}) by batch jobs"
        lacking = len(self._store.lacks(self._card, image_set.digests, image_set.view))
        total = len(image_set.digests)
        with self._explained(), self._progress.stage(title, total, total - lacking) as advance:
            for _ in range(ROUNDS):
                refusals = self._round(image_set, advance)
                if not refusals or any(refusal.final for refusal in refusals.values()):
                    break
        if refusals:
            raise self._refused(refusals, image_set)
        return lacking

    def submit(self, image_set: ImageSet, refused: Sequence[bytes] = ()) -> bool:
        """Create jobs for the images that the store lacks and that are in no job.

        Args:
            refused: SHA-256 of images to leave out.

        Returns:
            Whether all are in jobs; at most so many jobs are created as the vendor takes at a time.

        Raises:
            BudgetError: if the budget does not cover a job and no other job is open; it is not created.
            TeacherError: if the vendor rejects a job.
        """
        with self._explained(), self._store.alone(self._progress):
            open_ = [job for job in open_jobs(self._store, self._card) if self._named(job)]
            out = set(refused).union(*(_members(job) for job in open_ if job.view == image_set.view))
            lacks = self._store.lacks(self._card, image_set.digests, image_set.view)
            todo = [i for i in lacks if image_set.digests[i].tobytes() not in out]
            contents = ((i, self._teacher.fit(image_set.read(i))) for i in todo)
            batches = pack(contents, lambda item: image_size(item[1]), self._limits.images, self._limits)
            remaining = len(todo)
            for count in range(len(open_), self._jobs.api.jobs):
                batch = next(batches, None)  # reads images
                if batch is None:
                    break
                if not self._create(batch, image_set, alone=not count):
                    return False
                remaining -= len(batch)
        return not remaining

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Add to an interruption by the user what becomes of the jobs."""
        try:
            yield
        except KeyboardInterrupt as stopped:
            if not stopped.args and (count := len(open_jobs(self._store, self._card))):
                text = f"{count} batch job{'s continue' if count > 1 else ' continues'} at the vendor"
                raise KeyboardInterrupt(f"{text}; repeat the command to collect the answers") from None
            raise

    def _create(self, batch: list[tuple[int, bytes]], image_set: ImageSet, alone: bool) -> bool:
        """Create a job; False if the vendor or the budget takes it only when another job is done."""
        context = self._buyer.context(image_set.purpose, image_set.view)
        label, cost = f"{LABEL}{uuid.uuid4().hex}", self._card.price.of(images=len(batch))
        members = image_set.digests[[i for i, _ in batch]].tobytes()
        try:
            entry = context.open_entry("image", len(batch), cost, JOB + label, members)
        except BudgetError:
            if alone:
                raise
            return False
        job = Pending(entry, JOB + label, members, self._buyer.run, cost, image_set.view)
        try:
            name = self._jobs.submit(label, [image for _, image in batch], patient=alone)
        except Failure as failure:
            if not failure.charged:
                self._release(job, failure.why)
            if failure.why == FULL and not alone:
                return False
            raise failure.error from None
        self._store.set_key(entry, JOB + name)
        self._progress.note(f"batch job {name} of {len(batch)} images was submitted")
        return True

    def _named(self, job: Pending) -> bool:
        """Find the name of a job that was recorded and maybe created; False if the vendor has no such job."""
        label = _label(job)
        if not label:
            return True
        name = self._jobs.find_late(label)
        if name is None:
            self._release(job, "the job was not created")
        else:
            self._store.set_key(job.entry, JOB + name)
        return name is not None

    def _round(self, image_set: ImageSet, advance: Advance) -> dict[bytes, Refusal]:
        """Submit and collect until every image was answered once; return the refusals by SHA-256."""
        refusals: dict[bytes, Refusal] = {}
        wait = FIRST
        while True:
            complete = self.submit(image_set, tuple(refusals))
            jobs = open_jobs(self._store, self._card, image_set)
            if complete and not jobs:
                return refusals
            jobs_to_check = jobs or open_jobs(self._store, self._card)
            created = [job for job in jobs_to_check if not _label(job)]  # others are being created by another process
            ended = [self._look(job, image_set, advance, refusals) for job in created]
            wait = FIRST if any(ended) else min(LONGEST, wait * GROWTH)
            if not ended or not all(ended):
                time.sleep(wait)

    def _look(self, job: Pending, image_set: ImageSet, advance: Advance, refusals: dict[bytes, Refusal]) -> bool:
        """Look at a job, and save its answers if it has ended; return whether it has."""
        name, count = job.key.removeprefix(JOB), len(_members(job))
        state = self._jobs.state(name, count)
        if state is None:
            why = "the vendor no longer knows the job"
            self._store.write_off(job.entry, why, None)
            warn(self._progress, f"batch job {name}: {why}; its {count} images may have been charged")
            return True
        if self._buyer.shown.get(name) != state.state:
            self._buyer.shown[name] = state.state
            self._progress.note(f"batch job {name}: {state.state}, {state.done} of {count} images done")
        if state.ended:
            self._save(job, state, image_set, advance, refusals)
        return state.ended

    def _save(
        self, job: Pending, state: JobState, image_set: ImageSet, advance: Advance, refusals: dict[bytes, Refusal]
    ) -> None:
        members, card = job.images, self._card
        index = {key: i for i, key in enumerate(keys_of(image_set.digests))} if job.view == image_set.view else {}
        if state.answers is None:
            self._release(job, f"job {state.state}", state.billed)
            if index.keys().isdisjoint(_members(job)):  # the command that submitted it submits its images again
                warn(self._progress, f"batch job {state.name} of other images ended without answers: {state.state}")
                return
            raise self._fruitless(job, state)
        answered = zip(_members(job), state.answers, strict=True)
        refusals |= {key: a for key, a in answered if isinstance(a, Refusal) and key in index}
        rows = [i for i, answer in enumerate(state.answers) if not isinstance(answer, Refusal)]
        try:
            embeddings = checked(
                [state.answers[i] for i in rows] or np.zeros((0, card.dimension)), len(rows), card, "image"
            )
            if self._buyer.watch is not None:
                fault = self._buyer.consistency.fault(self._store, card, "image", Answer(embeddings))
                if fault is not None:
                    raise fault
        except TeacherError as error:
            self._release(job, error.found, len(rows))
            raise
        digests, cost = members[rows], card.price.of(images=len(rows))
        before = self._store.knows_images(card, digests, job.view)
        self._store.keep_images(card, digests, embeddings, job.view, job.entry, cost)
        self._correct(job, len(rows))
        indices = [i for i, row in enumerate(digests) if row.tobytes() in index]
        advance(sum(not before[i] for i in indices))
        if self._buyer.watch is not None and indices:
            sent = digests[indices]
            self._buyer.watch.images(sent, embeddings[indices], lambda i: image_set.read(index[sent[i].tobytes()]))

    def _release(self, job: Pending, why: str, charged: int = 0) -> None:
        """End a job without embeddings, at the cost of the images that the vendor charged."""
        if charged:
            self._store.write_off(job.entry, why, self._card.price.of(images=charged))
        else:
            self._store.note(job.entry, why, refused=True)
        self._correct(job, charged)

    def _correct(self, job: Pending, charged: int) -> None:
        if job.run == self._buyer.run:  # another run reads the ledger when it opens its budget
            self._buyer.budget.correct(job.entry, self._card.price.of(images=charged), job.cost)

    def _fruitless(self, job: Pending, state: JobState) -> TeacherError:
        hours = int(self._jobs.api.expires.total_seconds() // 3600)
        reason = f", as it was not done within {hours} hours" if state.state == "expired" else ""
        vendor_reason = f": {state.why}" if state.why else ""
        return TeacherError(
            f"Batch job {state.name} of {self._card.identity} ended without answers.",
            expected=f"embeddings of {len(_members(job))} images",
            found=f"{state.state}{reason}{vendor_reason}",
            next_step="repeat the command to submit these images in a new job, or, once the other jobs are collected,"
            " add --set teacher.batch_api=false to buy them at once at the full price",
        )

    def _refused(self, refusals: dict[bytes, Refusal], image_set: ImageSet) -> TeacherError:
        final = {key: refusal for key, refusal in refusals.items() if refusal.final}
        selection = final or refusals
        index = {key: i for i, key in enumerate(keys_of(image_set.digests))}
        names = image_set.named([index[key] for key in selection])
        return not_embedded(self._card.identity, names, next(iter(selection.values())).why, repeat=not final)


def _label(job: Pending) -> str:
    """Return the label of a job whose name is not known; empty for one with a name."""
    label = job.key.removeprefix(JOB)
    return label if label.startswith(LABEL) else ""


def _members(job: Pending) -> list[bytes]:
    return keys_of(job.images)
