"""Repair a deployed student: query a few images of its new site, and train a new student with them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from vl2v.commands.distill import run as train_run
from vl2v.commands.new_site import write_images
from vl2v.commands.repair_checks import read_repair
from vl2v.commands.repair_plan import PURPOSE, RepairPlan
from vl2v.data.pixels import CachedPixels
from vl2v.data.splits import Indices
from vl2v.evaluation.evaluation import IN_DOMAIN, DomainScore, Evaluation, student_answers
from vl2v.faults import explaining
from vl2v.formatting import exact
from vl2v.json_files import write_json
from vl2v.progress import Progress, Silent
from vl2v.purchase import BudgetAccount, text_heads, zero_shot_logits
from vl2v.reports.source import evaluation_of_run
from vl2v.runs.folder import CHECKED, REPAIR, TRAINED, RunFolder
from vl2v.runs.start_checks import ledger_name
from vl2v.student.model import Student
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.image_set import ImageSet
from vl2v.teacher.purchase.ledger import Budget, Ledger
from vl2v.teacher.purchase.spending import Spending
from vl2v.teacher.purchase.store import EmbeddingStore

TOLERANCE = 0.005  # loss of mean accuracy on the validation images from which the new student counts as worse


@dataclass(frozen=True)
class Repair:
    """A repaired student, compared with the earlier one, which is unchanged.

    Attributes:
        old: evaluation of the earlier student.
        new: evaluation of the new student on the same images.
        trained: number of new images that were used for training.
        checked: number of new images that were queried but not used for training.
        agreement: number of checked images on which the earlier and the new student agree with the teacher.
        queries: number of image queries that were paid for.
        tolerance: loss of mean accuracy on the validation images from which the new student counts as worse.
    """

    folder: Path
    student: Student
    old: Evaluation
    new: Evaluation
    trained: int
    checked: int
    agreement: tuple[int, int]
    queries: int
    spent: Decimal
    currency: str
    tolerance: float

    @property
    def change(self) -> float:
        """Mean accuracy of the new student on the validation images minus that of the earlier one, in [-1, 1]."""
        old, new = (evaluation.mean(IN_DOMAIN, "student") for evaluation in (self.old, self.new))
        assert old is not None
        assert new is not None
        return new - old

    @property
    def worse(self) -> bool:
        """Whether the new student loses more than the tolerance on the validation images."""
        return self.change < -self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        rows = zip(_validation(self.old), _validation(self.new), strict=True)
        return {
            "run": str(self.folder),
            "student": str(self.folder / "student"),
            "trained": self.trained,
            "checked": self.checked,
            "agreement": {"old": self.agreement[0], "new": self.agreement[1]},
            "validation": {
                "domains": {old.domain: {"old": old.student, "new": new.student} for old, new in rows},
                "change": self.change,
                "tolerance": self.tolerance,
                "worse": self.worse,
            },
            "measure": self.new.reference.measure,
            "image_queries": self.queries,
            "spent": exact(self.spent),
            "currency": self.currency,
        }


@explaining
def repair(
    plan: RepairPlan, *, tolerance: float = TOLERANCE, progress: Progress | None = None, report: bool = True
) -> Repair:
    """Query the images of a plan, train a new student from the earlier one, and compare the two.

    The new run is like the first one with three differences. Training starts from the first run's student. The selected
    images are part of every batch, without labels. Align is solved in closed form on the features of that student, and
    Distill takes few steps. The first run does not change. To continue an interrupted repair, plan and
    call it again.

    Args:
        plan: see `plan_repair`.
        tolerance: loss of mean accuracy on the validation images from which the new student counts as worse, in [0, 1].
        progress: receives the progress of every stage.
        report: whether to write ``report.html`` of the new run.

    Raises:
        BudgetError: before anything is sent that would exceed the budget.
        TeacherError: if a response cannot be used.
        TrainingError: if a loss is not finite.
    """
    progress, folder = progress or Silent(), RunFolder(plan.out)
    account = BudgetAccount.of_run(ledger_name(folder))
    with closing(EmbeddingStore(plan.storage.store)) as store:
        spending = Spending(account.folder, store, account.mine)
        currency = plan.quote.price.currency
        budget = Budget(plan.config.budget, currency=currency, less="fewer images (--queries)", spending=spending)
        budget.check(plan.quote.due, plan.quote.summary)
        if not plan.begun:
            _write_selection(plan)
        buyer = Buyer(plan.teacher, store, budget, ledger_name(folder), progress, threads=plan.config.threads)
        buyer.texts(plan.prompts)
        buyer.all_images([ImageSet.of(part.digests, part.file, PURPOSE) for part in (plan.checked, plan.trained)])
        reference = _zero_shot(plan, store)
    if not folder.evaluation_file.exists():
        resume = folder.config_file.exists()
        config = folder.config().model_copy(update={"budget": plan.config.budget}) if resume else plan.config
        train_run(
            config, plan.out, resume=resume, storage=plan.storage, progress=progress, teacher=plan.teacher,
            report=report,
        )  # fmt: skip
    return _compared(plan, folder, reference, tolerance)


def _write_selection(plan: RepairPlan) -> None:
    """Record the images to query, so that an interrupted repair continues with the same images."""
    plan.out.mkdir(parents=True, exist_ok=True)
    for name, part in ((TRAINED, plan.trained), (CHECKED, plan.checked)):
        write_images(plan.out, name, part)
    write_json(plan.out / REPAIR, plan.record)


def _zero_shot(plan: RepairPlan, store: EmbeddingStore) -> Indices:
    """Return the classes that the teacher predicts for the M checked images, [M]."""
    card, classes = plan.teacher.describe(), len(plan.student.classes)
    head = text_heads(store.texts(card, plan.prompts), len(plan.prompts) // classes)
    logits = zero_shot_logits(store.images(card, plan.checked.digests), head, card.logit_scale)
    return np.asarray(logits.argmax(axis=1), np.int64)


def _validation(evaluation: Evaluation) -> list[DomainScore]:
    return [row for row in evaluation.rows if row.role == IN_DOMAIN]


def _compared(plan: RepairPlan, folder: RunFolder, reference: Indices, tolerance: float) -> Repair:
    """Compare both students on the validation images and on the checked images, and record the result."""
    new, _ = evaluation_of_run(folder)
    student, fit = Student.load(plan.out), plan.student.preprocess
    pixels = CachedPixels(plan.storage.cache, fit.size, fit.fit)
    slots = pixels.slots(plan.checked.digests)
    predictions = [student_answers(s, pixels.map(), slots)[0].argmax(axis=1) for s in (plan.student, student)]
    agreement = tuple(int((result == reference).sum()) for result in predictions)
    with closing(EmbeddingStore(plan.storage.store)) as store:
        ledger, name = Ledger(store), ledger_name(folder)
        queries, spent = ledger.queries(name), ledger.spent(name)
    result = Repair(
        plan.out, student, plan.evaluation, new, len(plan.trained), len(plan.checked), (agreement[0], agreement[1]),
        queries, spent, plan.quote.price.currency, tolerance,
    )  # fmt: skip
    write_json(plan.out / REPAIR, read_repair(plan.out) | {"result": result.to_dict()})
    return result
