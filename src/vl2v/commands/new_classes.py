"""The texts of new classes: checks of names, prompts and teacher before they are bought, and the purchase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from vl2v.config import RunConfig
from vl2v.data.classes import checked_name
from vl2v.data.images import spelling
from vl2v.errors import ConfigError, StudentError, TeacherError
from vl2v.nested import names_of
from vl2v.planning.models import local_device, stated_price
from vl2v.planning.requirements import ROW_OVERHEAD, Requirements, make_quote
from vl2v.progress import Progress
from vl2v.runs.relative_paths import located
from vl2v.runs.signatures import MARK, check_prompts, check_teacher
from vl2v.student.files import CHANGES
from vl2v.student.model import Student
from vl2v.student.provenance import check_provenance
from vl2v.teacher.base import Teacher, unit_rows
from vl2v.teacher.file import FileTeacher
from vl2v.teacher.prompts import load_templates, render
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.ledger import Budget, Quote
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.teacher.registry import open_teacher
from vl2v.validation import parse
from vl2v_runtime.metadata import MAX_NAME

SAME = 1 - 1e-4  # minimum cosine of two embeddings of the same class


@dataclass(frozen=True)
class KnownClass:
    """A class of a student.

    Attributes:
        prompts: the texts whose embeddings are averaged in its row of the head; empty if they are not recorded.
        added: time at which it was added, ISO 8601 in UTC; None for a class of the training.
    """

    name: str
    prompts: tuple[str, ...] = ()
    added: str | None = None


@dataclass(frozen=True)
class TeacherTexts:
    """Texts of new classes, or negative texts, that have been checked, and the teacher that embeds them.

    Attributes:
        prompts: the texts of each class or noun, by its name; the same number for each.
    """

    prompts: dict[str, tuple[str, ...]]
    teacher: Teacher

    @property
    def texts(self) -> tuple[str, ...]:
        """All prompts, name by name."""
        return tuple(text for texts in self.prompts.values() for text in texts)

    def quote(self, store: EmbeddingStore) -> Quote:
        """Return the queries for texts that the store lacks, their cost, and their disk usage."""
        required = Requirements({}, self.texts, len(self.texts) // len(self.prompts))
        text_quote = make_quote(required, self.teacher, store, 0, 0, None)
        row = 4 * self.teacher.describe().dimension + ROW_OVERHEAD
        return replace(text_quote, disk_bytes={"purchased embeddings": text_quote.text_queries * row})

    def buy(self, store: EmbeddingStore, budget: Budget, run: str, progress: Progress | None, purpose: str) -> int:
        """Buy the embeddings that the store lacks, and return their number.

        Raises:
            BudgetError: before anything is sent that would exceed the budget.
            TeacherError: if a response is not usable.
        """
        quote = self.quote(store)
        budget.check(quote.cost, f"{quote.text_queries:,} text quer{'y' if quote.text_queries == 1 else 'ies'}")
        return Buyer(self.teacher, store, budget, run, progress).texts(self.texts, purpose)


def known_classes(student: Student) -> tuple[KnownClass, ...]:
    """Return the classes of a student with their recorded prompts, in the order of its head."""
    changes = check_provenance(student.provenance, "the student").get(CHANGES, [])
    training_classes = list(changes[0]["before"]) if changes else student.classes
    prompt_list = student.provenance.get("prompts", [])
    each = len(prompt_list) // len(training_classes) if len(prompt_list) % len(training_classes) == 0 else 0
    classes = {
        name: KnownClass(name, tuple(prompt_list[i * each : (i + 1) * each])) for i, name in enumerate(training_classes)
    }
    for change in changes:
        for name, prompts in change.get("added", {}).items():
            classes[name] = KnownClass(name, tuple(prompts), change["at"])
    return tuple(classes.get(name, KnownClass(name)) for name in student.classes)


def new_classes(
    student: Student,
    names: Sequence[str],
    phrases: Sequence[str],
    templates: Sequence[str],
    teacher: str | Teacher | None,
    run: Path,
) -> TeacherTexts:
    """Check names, prompts and teacher of new classes; see `vl2v.commands.classes.add_classes`.

    `run` is the folder of the student's run, from which relative paths of its settings are resolved.
    """
    need_head(student)
    names, phrases, templates = names_of(names), names_of(phrases), names_of(templates)
    config = run_config(student, teacher, run)
    new = _new_names(student, names)
    if phrases and len(phrases) != len(names):
        found = f"{len(names)} names and {len(phrases)} phrases"
        step = "pass --phrase once per name, in the order of the names"
        raise ConfigError(
            "The numbers of names and phrases differ.", expected="a phrase for each name", found=found, next_step=step
        )
    prompt_templates = load_templates(templates) if templates else own_templates(student, config)
    phrased = [checked_phrase(phrase, name) for phrase, name in zip(phrases or new, new, strict=True)]
    prompts = {
        name: tuple(render(t, phrase) for t in prompt_templates) for name, phrase in zip(new, phrased, strict=True)
    }
    _check_prompts(student, prompts)
    return TeacherTexts(prompts, opened_teacher(student, config, teacher))


def checked_phrase(phrase: str, name: str) -> str:
    """Return the phrase of a class with single spaces; the name itself is one.

    Raises:
        ConfigError: if it is empty, too long, or cannot be displayed.
    """
    words = " ".join(phrase.split())
    if phrase != name and (not words or not words.isprintable() or len(words) > MAX_NAME):
        raise ConfigError(
            f"The phrase of {name} cannot be used.",
            expected=f"printable text of at most {MAX_NAME:,} characters, such as a grey zebra",
            found=f"{len(phrase):,} characters: {phrase[:60]!r}",
            next_step="correct --phrase, or leave it out",
        )
    return words or name


def run_config(student: Student, teacher: str | Teacher | None, run: Path) -> RunConfig:
    """Return the settings of the run of a student. Call it before opening a file or an address that they name.

    Args:
        teacher: the teacher that the user names; None if that of the settings will be opened.
        run: folder of the run, or of a student without a run.

    Raises:
        StudentError: if the student does not record its settings or its teacher.
        TeacherError: if no teacher is given, and that of a student made elsewhere is a file or an address.
    """
    provenance = check_provenance(student.provenance, "the student")
    if provenance.get("config") is None or provenance.get("teacher") is None:
        raise StudentError(
            "This student does not record its teacher.",
            expected="a student made by vl2v distill",
            found="no teacher in its provenance",
            next_step="query its teacher yourself, and pass the embedding to Student.add_class",
        )
    config = parse(RunConfig, provenance["config"], "the student's provenance")
    if teacher is None:
        check_teacher(config, provenance.get(MARK))
    return located(config, run)


def own_templates(student: Student, config: RunConfig) -> tuple[str, ...]:
    """Return the prompt templates that a student was trained with, without reading a file that a stranger names.

    Args:
        student: the student, whose provenance is checked.
        config: settings of its run, see `run_config`.
    """
    provenance = student.provenance
    if templates := provenance.get("templates"):
        return load_templates(tuple(templates))
    check_prompts(parse(RunConfig, provenance["config"], "the student's provenance"), provenance.get(MARK))
    return load_templates(config.teacher.prompts)


def _new_names(student: Student, names: Sequence[str]) -> list[str]:
    """Return the names as in training."""
    reasons = {spelling(name): f"the student has a class '{name}'" for name in student.classes}
    new = []
    for raw_name in names:
        name = checked_name(raw_name)
        if why := reasons.get(spelling(name)):
            step = "list all classes with vl2v classes list; omit it, or choose another name"
            raise ConfigError(
                f"The class '{raw_name}' exists already.", expected="a new name", found=why, next_step=step
            )
        reasons[spelling(name)] = f"'{name}' is given twice"
        new.append(name)
    if not new:
        step = "name a class"
        raise ConfigError("No class is given.", expected="one or more names", found="none", next_step=step)
    return new


def _check_prompts(student: Student, prompts: Mapping[str, tuple[str, ...]]) -> None:
    """Reject classes with the same prompts, since images cannot distinguish them."""
    class_of = {one.prompts: one.name for one in known_classes(student) if one.prompts}
    for name, texts in prompts.items():
        if texts in class_of:
            step = "use another description in its prompt: --phrase"
            found = f"'{texts[0]}', as of the class '{class_of[texts]}'"
            raise ConfigError(
                f"The prompt of '{name}' is not unique.", expected="another prompt", found=found, next_step=step
            )
        class_of[texts] = name


def opened_teacher(student: Student, config: RunConfig, teacher: str | Teacher | None) -> Teacher:
    """Open the teacher of a student, and check its identity.

    Args:
        teacher: the teacher by another name, or opened; None opens the one that the run names, see `run_config`.

    Raises:
        TeacherError: if it is another teacher.
    """
    if teacher is None or isinstance(teacher, str):
        teacher_config = config.teacher.model_copy(update={"spec": teacher or config.teacher.spec})
        priced = config.model_copy(update={"teacher": teacher_config})
        teacher = open_teacher(teacher_config.spec, price=stated_price(priced), device=local_device(config))
    card, record = teacher.describe(), student.provenance["teacher"]
    actual = {"identity": card.identity, "revision": card.revision, "dimension": card.dimension}
    differences = [key for key in actual if actual[key] != record[key]]
    if differences and not (
        differences == ["revision"] and isinstance(teacher, FileTeacher) and _same_embeddings(teacher, student)
    ):
        raise TeacherError(
            "This is not the student's teacher; its embeddings are in another space.",
            expected=", ".join(f"{key} {record[key]}" for key in differences),
            found=", ".join(f"{key} {actual[key]}" for key in differences),
            next_step="pass the run's teacher with --teacher, or distil again from this one",
        )
    return teacher


def _same_embeddings(teacher: FileTeacher, student: Student) -> bool:
    """Whether a file with another revision has the same embeddings of the known classes, e.g. if texts were added."""
    head = {name: row.cpu().numpy() for name, row in zip(student.classes, need_head(student), strict=True)}
    classes = [one for one in known_classes(student) if one.prompts]
    for one in classes:
        row = unit_rows(unit_rows(teacher.embed_texts(list(one.prompts))).mean(axis=0))
        if float(np.dot(row, head[one.name])) < SAME:
            return False
    return bool(classes)


def need_head(
    student: Student,
    problem: str = "Classes of a student with a linear head cannot be added or removed.",
    step: str = "train with the default method of vl2v distill, or again with a folder of images of the class",
) -> Tensor:
    """Return the text head, [K, D] float32.

    Raises:
        StudentError: with this problem and next step, if the classifier is linear.
    """
    if student.head is None:
        config = check_provenance(student.provenance, "the student").get("config") or {}
        found = f"a linear classifier ({config.get('method', 'a baseline')})"
        expected = "a student with a text head, which the default method trains"
        raise StudentError(problem, expected=expected, found=found, next_step=step)
    return student.head
