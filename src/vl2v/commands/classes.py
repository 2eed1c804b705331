"""Add and remove classes of a finished student by their text embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vl2v.commands.moved import ROOT, NewLocations, StatedLocations, locate_images
from vl2v.commands.new_classes import KnownClass, TeacherTexts, known_classes, need_head, new_classes
from vl2v.commands.reject import KnownImages, logits_of
from vl2v.commands.run_images import embed_images, sample_rows
from vl2v.commands.trust import read_answers
from vl2v.data.images import spelling
from vl2v.errors import ConfigError, TeacherError
from vl2v.evaluation.evaluation import IN_DOMAIN
from vl2v.evaluation.offset import SHARE, new_class_offset
from vl2v.faults import explaining
from vl2v.formatting import exact
from vl2v.locations import StoragePaths
from vl2v.locking import file_lock
from vl2v.nested import names_of
from vl2v.onnx_export.exported import change_exports, changeable_exports, mark_trust
from vl2v.origin import origin_of
from vl2v.progress import Progress, Silent, warn
from vl2v.renamed import old_keywords
from vl2v.runs.folder import RunFolder
from vl2v.runs.ownership import alone_in
from vl2v.runs.storage import storage_of
from vl2v.student.files import CARD, CHANGES
from vl2v.student.model import Student
from vl2v.student.provenance import check_provenance
from vl2v.teacher.base import Teacher
from vl2v.teacher.prompts import text_head
from vl2v.teacher.purchase.ledger import Budget, Ledger, Quote, parse_budget
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.teacher.purchase.watch import SAME

PURPOSE = "classes"  # purpose of the queries in the ledger
MAX_SHARE = 0.5  # maximum share of the validation images
MAX_IMAGES = 150  # validation images per domain that determine the offset of new classes


@explaining
def list_classes(run: str | Path) -> tuple[KnownClass, ...]:
    """List the classes of a saved student, in the order of its head.

    Args:
        run: folder of a run or a student.
    """
    return known_classes(Student.load(run))


@old_keywords
@explaining
def quote_classes(
    run: str | Path,
    names: Sequence[str],
    *,
    phrases: Sequence[str] = (),
    templates: Sequence[str] = (),
    teacher: str | Teacher | None = None,
    storage: StoragePaths | None = None,
) -> Quote:
    """Compute what adding classes would cost, without spending anything; see `add_classes`."""
    student = Student.load(run)
    with closing(EmbeddingStore((storage or storage_of(home_of(run))).store)) as store:
        return new_classes(student, names, phrases, templates, teacher, home_of(run)).quote(store)


@old_keywords
@explaining
def add_classes(
    run: str | Path,
    names: Sequence[str],
    *,
    budget: Decimal | str | float | None = None,
    phrases: Sequence[str] = (),
    templates: Sequence[str] = (),
    teacher: str | Teacher | None = None,
    accept_teacher: bool = False,
    share: float = SHARE,
    data: StatedLocations = None,
    storage: StoragePaths | None = None,
    progress: Progress | None = None,
    backbone: nn.Module | None = None,
) -> Student:
    """Add classes to a saved student: their text embeddings become rows of its head.

    The student's folder and its exported files change. Text embeddings that are stored already cost nothing, and the
    ledger records purchases under the name of the run.

    Args:
        run: folder of a run or a student.
        names: name or names of the new classes; underscores are read as spaces, as in training.
        budget: maximum amount to spend; required if the teacher charges.
        phrases: descriptions of the classes in prompts, one for each name; by default the names.
        templates: prompt templates instead of those of the run.
        teacher: the run's teacher by another name, or opened; None opens the one that the run names.
        accept_teacher: add a class even if its text embedding equals that of another class.
        share: share of the run's validation images, from 0 to 0.5, that may be assigned to the new classes. It
            determines the offset of their logits, see `vl2v.evaluation.offset`; with 0, there is none.
        data: the run's images, if they have moved, or `vl2v.commands.moved.NewLocations`; the run records them.
        storage: path of the store; None uses the run's own.
        progress: receives the progress of queries.
        backbone: the architecture, if it is a custom module.

    Returns:
        The student as saved.

    Raises:
        ConfigError: if a name is empty, exists already, is given twice, or has no unique prompt, or `share` is out of
            range.
        StudentError: if the student has a linear classifier, or does not record its teacher.
        TeacherError: if the teacher is not the run's, returns no usable response, or the same embedding for two
            classes.
        BudgetError: before anything is sent that would exceed the budget.
    """
    _check_share(share)
    home = home_of(run)
    storage = storage or storage_of(home)
    if NewLocations.of(data):
        locate_images(RunFolder(home), data, storage, progress, needed=ROOT)
    with _locked(run) as folder, closing(EmbeddingStore(storage.store)) as store:
        student = Student.load(folder, backbone)
        class_texts = new_classes(student, names, phrases, templates, teacher, home)
        changeable_exports(home, origin_of(student.provenance))  # raises before money is spent
        purchase = _buy(class_texts, store, parse_budget(budget), str(home.resolve()), progress)
        rows = _head_rows(class_texts, store)
        if not accept_teacher:
            _check_distinct(student, rows, class_texts.teacher.describe().identity)
        offset = _offset(student, RunFolder(home), torch.stack(list(rows.values())), share, progress or Silent())
        change = purchase | {"before": list(student.classes), "offset": offset}
        for name, row in rows.items():
            student.add_class(name, row.numpy(), offset)
        _save(student, folder, home, change)
    return student


@explaining
def remove_classes(run: str | Path, names: Sequence[str], *, backbone: nn.Module | None = None) -> Student:
    """Remove classes from a saved student. Its folder and its exported files change.

    Args:
        run: folder of a run or a student.
        names: existing class or classes, in any spelling.
        backbone: the architecture, if it is a custom module.

    Returns:
        The student as saved.

    Raises:
        StudentError: if a name is unknown, no class would remain, or the student has a linear classifier.
    """
    with _locked(run) as folder:
        student = Student.load(folder, backbone)
        need_head(student)
        check_provenance(student.provenance, "the student")
        by_spelling = {spelling(name): name for name in student.classes}
        change = {"removed": [], "before": list(student.classes)}
        for name in dict.fromkeys(by_spelling.get(spelling(name), name) for name in names_of(names)):
            student.remove_class(name)
            change["removed"].append(name)
        if not change["removed"]:
            step = "name a class"
            raise ConfigError("No class is given.", expected="one or more names", found="none", next_step=step)
        _save(student, folder, home_of(run), change)
    return student


def _check_share(share: float) -> None:
    if not 0 <= share <= MAX_SHARE:
        raise ConfigError(
            "The share of validation images is not valid.",
            expected=f"a number from 0 to {MAX_SHARE}",
            found=str(share),
            next_step=f"e.g. --share {SHARE}, or --share 0 for no offset",
        )


def _head_rows(class_texts: TeacherTexts, store: EmbeddingStore) -> dict[str, torch.Tensor]:
    """Return the row [D] of the text head for each new class."""
    card = class_texts.teacher.describe()
    embeddings = torch.from_numpy(store.texts(card, class_texts.texts)).reshape(
        len(class_texts.prompts), -1, card.dimension
    )
    return dict(zip(class_texts.prompts, text_head(embeddings), strict=True))


def _buy(
    class_texts: TeacherTexts, store: EmbeddingStore, limit: Decimal | None, run: str, progress: Progress | None
) -> dict[str, Any]:
    """Buy the embeddings that the store lacks; without a limit, only free ones. Return what the student records."""
    currency, ledger = class_texts.teacher.describe().price.currency, Ledger(store)
    budget, before = Budget(limit, currency=currency, less="fewer classes"), ledger.spent(run)
    queries = class_texts.buy(store, budget, run, progress, PURPOSE)
    prompts = {key: list(texts) for key, texts in class_texts.prompts.items()}
    return {"added": prompts, "text_queries": queries, "cost": exact(ledger.spent(run) - before), "currency": currency}


def _offset(student: Student, folder: RunFolder, rows: torch.Tensor, share: float, progress: Progress) -> float:
    """Return the offset of new classes with the head rows [V, D]. Without validation images it is 0, with a warning."""
    consequence = "the new classes have no offset, so hardly any image will be assigned to them"
    if not share:
        return 0.0
    if not folder.predictions_file.is_file():
        warn(progress, f"{consequence}: the validation images of its run are not known here")
        return 0.0
    predictions = read_answers(folder)
    predictions = predictions.of(predictions.role == IN_DOMAIN)
    sample = sample_rows(predictions, MAX_IMAGES)
    paths = [folder.config().data.folder / predictions.path[i] for i in sample]
    embeddings = embed_images(student, paths, progress, consequence) if paths else None
    if embeddings is None:
        return 0.0
    image_embeddings, _ = KnownImages(student, embeddings, predictions.label[sample]).of_current_classes()
    new = student.logit_scale * image_embeddings @ rows.numpy().T
    return new_class_offset(logits_of(student, image_embeddings), new, share) if len(image_embeddings) else 0.0


def _check_distinct(student: Student, new: Mapping[str, torch.Tensor], identity: str) -> None:
    """Reject a class whose text embedding equals that of another class, since images cannot distinguish them."""
    head, rows = need_head(student).cpu().double(), torch.stack(list(new.values())).double()
    equal = (torch.cdist(rows, torch.cat([head, rows])) < SAME).tril(len(head) - 1)  # with the classes before it
    if equal.any():
        i, j = equal.nonzero()[0].tolist()
        raise TeacherError(
            f"{identity} returned the same embedding for different texts.",
            expected=f"different embeddings for {list(new)[i]} and {[*student.classes, *new][j]}",
            found="the same embedding for both",
            next_step="the student is unchanged, and the embeddings are stored; to add the class anyway: "
            "--accept-teacher",
        )


def _save(student: Student, folder: Path, home: Path, change: Mapping[str, Any]) -> None:
    """Write all changes. The student is written last, so an interrupted command can be repeated."""
    record = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **change}
    student.provenance[CHANGES] = [*student.provenance.get(CHANGES, []), record]
    mark_trust(student)
    change_exports(home, student)
    student.save(folder)


@contextmanager
def _locked(run: str | Path) -> Iterator[Path]:
    """Lock and yield the student's folder, so that no other process changes its classes."""
    run = Path(run)
    folder = run / "student" if (run / "student" / CARD).is_file() else run
    if not (folder / CARD).is_file():
        Student.load(folder)  # raises an error that names the fault
    target = folder.resolve()  # "." has no name
    with alone_in(home_of(run), "vl2v classes"), file_lock(target.with_name(f"{target.name}.lock")):
        yield folder


def home_of(run: str | Path) -> Path:
    """Return the run folder of a run or of its student. Its path is the name of the run in the ledger."""
    run = Path(run).absolute()
    return run.parent if run.name == "student" and not (run / "student").exists() else run
