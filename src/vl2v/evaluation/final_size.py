"""The image size that a trained student is used with: the largest that costs no accuracy on the validation images.

A convolutional network is often more accurate with images that are somewhat larger than those of its training (Touvron
et al., "Fixing the train-test resolution discrepancy", arXiv 1906.06423). The gain is largest on unseen domains, where
the validation images do not show it; see docs/results/recipe.md. Nothing is trained for this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from vl2v.data.caches import open_caches
from vl2v.data.pixels import CachedPixels
from vl2v.data.scan import read_all
from vl2v.data.splits import DatasetRows
from vl2v.evaluation.evaluation import IN_DOMAIN
from vl2v.evaluation.split import EvaluationDomain, evaluation_domains, evaluation_of, predict_domains
from vl2v.planning.plan import RunPlan
from vl2v.progress import Progress, warn
from vl2v.purchase import BoughtEmbeddings
from vl2v.student.backbones import Backbone
from vl2v.student.model import Student

RATIOS = (1.25, 1.5)  # of the tried sizes to that of training
STEP = 8  # pixels; sizes are multiples of it
TOLERANCE = 0.005  # of the accuracy on validation images, which a larger size may cost


def larger_sizes(backbone: Backbone) -> list[int]:
    """Return the sizes above that of training that are tried, at most that of the pretrained weights, ascending."""
    size = backbone.preprocess.size
    sizes = {min(backbone.pretrained_size or size, round(ratio * size / STEP) * STEP) for ratio in RATIOS}
    return sorted(larger for larger in sizes if larger > size and backbone.accepts(larger))


def at_final_size(
    plan: RunPlan, bought: BoughtEmbeddings, build: Callable[[RunPlan], Student], progress: Progress
) -> RunPlan:
    """Choose the image size of a trained student on the validation images of the source domains.

    Returns:
        The plan with the chosen size in its backbone, and with the pixels of that size of all evaluated images.
    """
    sizes = larger_sizes(plan.student_backbone) if plan.config.student.final_size == "auto" else []
    rows, student_size = plan.split.evaluation_rows, plan.student_backbone.preprocess.size
    validation = rows[: sum(map(len, plan.split.evaluation_parts[0].values()))]
    if not sizes or not len(validation):
        return plan
    accuracy, best = {student_size: _accuracy(plan, bought, build(plan))}, student_size
    for size in sizes:
        if (larger := _with_pixels(plan, size, validation, progress)) is None:
            break
        accuracy[size] = _accuracy(larger, bought, build(larger))
        if accuracy[size] < accuracy[student_size] - TOLERANCE:
            break
        best = size
    accuracies = ", ".join(f"{size} pixels {100 * share:.1f}%" for size, share in accuracy.items())
    if best != student_size and (larger := _with_pixels(plan, best, rows, progress, unseen=True)) is not None:
        plan, student_size = larger, best
    progress.note(f"the student is used with images of {student_size} pixels; on the validation images: {accuracies}")
    return plan


def _with_pixels(
    plan: RunPlan, size: int, rows: DatasetRows, progress: Progress, *, unseen: bool = False
) -> RunPlan | None:
    """The plan with another image size, after the pixels of dataset rows were cached; None if a file has changed."""
    backbone, folder = plan.student_backbone, plan.paths.cache
    backbone = replace(backbone, preprocess=replace(backbone.preprocess, size=size))
    sets = [(plan.dataset, rows)]
    if unseen and plan.unseen is not None:
        sets.append((plan.unseen, np.arange(len(plan.unseen))))
    with open_caches(folder, size, plan.pixels.fit) as (index, cache):
        for images, some in sets:
            paths, title = [images.paths[row] for row in some], f"reading images at {size} pixels"
            read_all(images.root, paths, index=index, cache=cache, progress=progress, title=title)
            if missing := int((cache.slots(images.digests[some]) < 0).sum()):
                warn(progress, f"{missing} images have changed since they were read, so {size} pixels are not possible")
                return None
    return replace(plan, backbone=backbone, pixels=CachedPixels(folder, size, plan.pixels.fit))


def _accuracy(plan: RunPlan, bought: BoughtEmbeddings, student: Student) -> float:
    return validation_accuracy(plan, bought, evaluation_domains(plan, bought), student)


def validation_accuracy(
    plan: RunPlan, bought: BoughtEmbeddings, domains: Sequence[EvaluationDomain], student: Student
) -> float:
    """Return the mean accuracy on the validation images of the source domains, in [0, 1].

    It is the macro accuracy if the run selects by it. There is at least one validation image.
    """
    metric = plan.config.distill.metric
    parts = predict_domains(plan, bought, [part for part in domains if part.role == IN_DOMAIN], student)
    accuracy = evaluation_of(parts, None, metric).mean(IN_DOMAIN, "student_macro" if metric == "macro" else "student")
    assert accuracy is not None
    return accuracy
