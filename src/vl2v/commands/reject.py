"""The negative texts of a finished student, and the validation images that select them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vl2v.commands.new_classes import TeacherTexts, need_head, opened_teacher, own_templates, run_config
from vl2v.data.images import spelling
from vl2v.errors import ConfigError
from vl2v.student.files import CHANGES
from vl2v.student.model import Student
from vl2v.teacher.base import Teacher, unit_rows
from vl2v.teacher.prompts import render
from vl2v.trust.negatives import make_negatives, read_nouns, with_negatives
from vl2v_runtime.negatives import Negatives
from vl2v_runtime.trust import Trust


def negative_texts(student: Student, file: Path | None, teacher: str | Teacher | None, run: Path) -> TeacherTexts:
    """Prepare the negative texts of a student: one prompt for each noun.

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
        "use vl2v predict --score confidence or energy, or train with the default method of vl2v distill",
    )
    config = run_config(student, teacher, run)
    class_spellings = {spelling(name) for name in student.classes}
    nouns = tuple(noun for noun in read_nouns(file) if spelling(noun) not in class_spellings)
    if not nouns:
        raise _none("only names of classes")
    template = own_templates(student, config)[0]
    prompts: dict[str, tuple[str, ...]] = {noun: (render(template, noun),) for noun in nouns}
    return TeacherTexts(prompts, opened_teacher(student, config, teacher))


def _none(found: str) -> ConfigError:
    return ConfigError(
        "There are no negative texts.",
        expected="names of things that are none of the classes",
        found=found,
        next_step="pass a file with names of other things to --reject-texts",
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

    def select(self, nouns: Sequence[str], embeddings: NDArray[np.float32]) -> Negatives:
        """Select the nouns that do not resemble a class, see `vl2v.trust.negatives.resembling`.

        Args:
            nouns: M names.
            embeddings: [M, D] embeddings of their prompts by the teacher.

        Raises:
            ConfigError: if no noun is left.
        """
        rows, labels = self.of_current_classes()
        head, scale = need_head(self.student).cpu().numpy(), self.student.logit_scale
        negatives = make_negatives(nouns, unit_rows(embeddings), scale, head, rows, labels)
        if negatives is None:
            raise _none(f"{len(nouns):,} names that all resemble a class, as the validation images show")
        return negatives

    def with_negatives(self, trust: Trust, negatives: Negatives | None) -> Trust:
        """Return trust data with negative texts and the thresholds of their score; see `select`."""
        rows, _ = self.of_current_classes()
        return with_negatives(trust, negatives, logits_of(self.student, rows), rows)

    def of_current_classes(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return embeddings [N, D] and labels [N] of the images whose class the student still has."""
        changes = self.student.provenance.get(CHANGES, [])
        training_classes = list(changes[0]["before"]) if changes else self.student.classes
        place = {name: i for i, name in enumerate(self.student.classes)}
        labels = np.array([place.get(name, -1) for name in training_classes], np.int64)[self.labels]
        return self.embeddings[labels >= 0], labels[labels >= 0]


def logits_of(student: Student, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the logits [N, K] of a student with a text head from its embeddings, [N, D]."""
    return student.logits(torch.from_numpy(embeddings)).cpu().numpy()
