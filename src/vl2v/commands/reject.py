"""Buy the embeddings of negative texts for a finished student."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vl2v.commands.new_classes import need_head, opened_teacher, own_templates, run_config, text_quote
from vl2v.data.images import spelling
from vl2v.errors import ConfigError
from vl2v.locations import StoragePaths
from vl2v.progress import Progress
from vl2v.student.files import CHANGES
from vl2v.student.model import Student
from vl2v.teacher.base import Teacher, unit_rows
from vl2v.teacher.prompts import render
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.ledger import Budget, Quote
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.trust.negatives import make_negatives, read_nouns, with_negatives
from vl2v_runtime.negatives import Negatives
from vl2v_runtime.trust import Trust

PURPOSE = "negative texts"  # purpose of the queries in the ledger


@dataclass(frozen=True)
class NegativeTexts:
    """Negative texts of a student, and the teacher to query.

    Attributes:
        nouns: M names, none of them the name of a class.
        prompts: [M] texts that are sent to the teacher.
    """

    nouns: tuple[str, ...]
    prompts: tuple[str, ...]
    teacher: Teacher

    def quote(self, storage: StoragePaths) -> Quote:
        """Compute their cost; nothing is spent."""
        with closing(EmbeddingStore(storage.store)) as store:
            return text_quote(self.prompts, 1, self.teacher, store)

    def buy(
        self, storage: StoragePaths, budget: Decimal | None, run: str, progress: Progress | None
    ) -> NDArray[np.float32]:
        """Buy the embeddings that the store lacks, and return all of them, [M, D] with rows of length one.

        Raises:
            BudgetError: before anything is sent that would exceed the budget.
            TeacherError: if a response is not usable.
        """
        card = self.teacher.describe()
        limit = Budget(budget, currency=card.price.currency, less="fewer --reject-texts")
        with closing(EmbeddingStore(storage.store)) as store:
            quote = text_quote(self.prompts, 1, self.teacher, store)
            limit.check(quote.cost, f"{quote.text_queries:,} text quer{'y' if quote.text_queries == 1 else 'ies'}")
            Buyer(self.teacher, store, limit, run, progress).texts(self.prompts, PURPOSE)
            return store.texts(card, self.prompts)


def negative_texts(student: Student, file: Path | None, teacher: str | Teacher | None, run: Path) -> NegativeTexts:
    """Prepare the negative texts of a student.

    Args:
        file: a text file with one noun per line; None uses the list of vl2v.
        teacher: the run's teacher by another name, or opened; None opens the one that the run names.

    Raises:
        StudentError: if the student has no text head, or does not record its teacher.
        ConfigError: if the file is unusable, or all its texts are names of classes.
        TeacherError: if the teacher is not the student's.
    """
    need_head(
        student,
        "This student cannot be given negative texts, because it is not in the teacher's embedding space.",
        "use vl2v predict --score confidence or energy, or train with vl2v distill --method adip",
    )
    config = run_config(student, teacher, run)
    taken = {spelling(name) for name in student.classes}
    nouns = tuple(noun for noun in read_nouns(file) if spelling(noun) not in taken)
    if not nouns:
        step = "pass a file with names of other things to --reject-texts"
        raise ConfigError(
            "There are no negative texts.",
            expected="names of things that are none of the classes",
            found="only names of classes",
            next_step=step,
        )
    template = own_templates(student, config)[0]
    return NegativeTexts(
        nouns, tuple(render(template, noun) for noun in nouns), opened_teacher(student, config, teacher)
    )


@dataclass(frozen=True)
class KnownImages:
    """Validation images of the source domains. The classes of the student may have changed since training.

    Attributes:
        student: the student, with a text head.
        embeddings: [N, D] embeddings of the images, rows of length one.
        labels: [N] int64, class indices at the time of training.
    """

    student: Student
    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]

    def select(self, nouns: Sequence[str], vectors: NDArray[np.float32]) -> Negatives:
        """Select the nouns that do not resemble a class, see `vl2v.trust.negatives.resembling`.

        Args:
            nouns: M names.
            vectors: [M, D] embeddings of their prompts by the teacher.

        Raises:
            ConfigError: if no noun is left.
        """
        rows, labels = self.of_current_classes()
        head, scale = need_head(self.student).cpu().numpy(), self.student.logit_scale
        found = make_negatives(nouns, unit_rows(vectors), scale, head, rows, labels)
        if found is None:
            raise ConfigError(
                "There are no negative texts.",
                expected="names of things that are none of the classes",
                found=f"{len(nouns):,} names that all resemble a class, as the validation images show",
                next_step="pass a file with names of other things to --reject-texts",
            )
        return found

    def with_negatives(self, trust: Trust, negatives: Negatives | None) -> Trust:
        """Return trust data with negative texts and the thresholds of their score; see `select`."""
        rows, _ = self.of_current_classes()
        return with_negatives(trust, negatives, logits_of(self.student, rows), rows)

    def of_current_classes(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return embeddings [N, D] and labels [N] of the images whose class the student still has."""
        changes = self.student.provenance.get(CHANGES, [])
        trained = list(changes[0]["before"]) if changes else self.student.classes
        place = {name: i for i, name in enumerate(self.student.classes)}
        labels = np.array([place.get(name, -1) for name in trained], np.int64)[self.labels]
        return self.embeddings[labels >= 0], labels[labels >= 0]


def logits_of(student: Student, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the logits [N, K] of a student with a text head from its embeddings, [N, D]."""
    return student.logits(torch.from_numpy(embeddings)).cpu().numpy()
