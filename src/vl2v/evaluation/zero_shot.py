"""Warnings if the zero-shot predictions of a teacher do not fit the training images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vl2v.data.splits import ExampleRows
from vl2v.evaluation.evaluation import top1
from vl2v.planning.plan import RunPlan
from vl2v.progress import Progress, warn
from vl2v.purchase import BoughtEmbeddings

ENOUGH = 10  # minimum number of images per class to report a class that is never predicted
SHOWN = 12  # classes named in a warning


def warn_of_teacher(plan: RunPlan, bought: BoughtEmbeddings, progress: Progress) -> None:
    """Warn if the accuracy of the zero-shot teacher is at chance or, without labels, if it never predicts a class."""
    if bought.training is None:
        return
    if plan.labelled:
        _compare_with_labels(plan, bought, progress)
    else:
        _find_unpredicted(plan, bought, progress)


def _training_logits(plan: RunPlan, bought: BoughtEmbeddings) -> NDArray[np.float32]:
    """Return the teacher's logits of the examples of `queried_examples`, [N, K] float32."""
    assert bought.training is not None
    return bought.zero_shot(bought.training[queried_examples(plan)])


def queried_examples(plan: RunPlan) -> ExampleRows:
    """Return the examples of source domains that were queried, without their augmented views."""
    examples: ExampleRows = np.concatenate(plan.examples.groups[: len(plan.split.sources)])
    examples = examples[plan.examples.views[examples] == 0]
    return examples if plan.queried is None else examples[plan.queried[examples]]


def _compare_with_labels(plan: RunPlan, bought: BoughtEmbeddings, progress: Progress) -> None:
    accuracy = top1(_training_logits(plan, bought), plan.examples.labels[queried_examples(plan)])
    chance = 1 / len(plan.dataset.folders)
    if accuracy < 1.5 * chance:
        warn(
            progress,
            f"the teacher agrees with your labels on {accuracy:.1%} of the training images, chance is "
            f"{chance:.1%}; check class names (classes.yaml), prompts, and the order of the teacher's responses",
        )


def _find_unpredicted(plan: RunPlan, bought: BoughtEmbeddings, progress: Progress) -> None:
    assert bought.evaluation is not None
    validation = sum(len(rows) for rows in plan.split.validation.values())  # they are the first split positions
    logits = np.concatenate([_training_logits(plan, bought), bought.zero_shot(bought.evaluation[:validation])])
    counts = np.bincount(logits.argmax(axis=1), minlength=len(plan.dataset.names))
    lacking = [name for name, count in zip(plan.dataset.names, counts, strict=True) if not count]
    if lacking and (len(logits) >= ENOUGH * len(counts) or len(lacking) == len(counts) - 1):
        more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
        warn(
            progress,
            f"the teacher assigns none of the {len(logits):,} images to {', '.join(lacking[:SHOWN])}{more}; check the "
            "class names and their descriptions in the prompts (classes.yaml)",
        )
