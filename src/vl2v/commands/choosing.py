"""Choose the training images to query where the budget does not cover all of them."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from vl2v.analysis.frozen import frozen_features
from vl2v.analysis.selection import at_random, diverse
from vl2v.data.pixels import Digests
from vl2v.errors import BudgetError
from vl2v.formatting import exact
from vl2v.planning.choice import Candidates, QuerySelection, affordable, covered, narrowed
from vl2v.planning.plan import RunPlan
from vl2v.progress import Progress
from vl2v.runs.folder import RunFolder
from vl2v.teacher.purchase.ledger import Budget
from vl2v.teacher.purchase.store import EmbeddingStore


def with_choice(
    plan: RunPlan,
    budget: Budget,
    store: EmbeddingStore,
    folder: RunFolder,
    accelerator: Accelerator,
    progress: Progress,
) -> RunPlan:
    """Return the plan with the images to query selected, or the same plan if all of them are queried.

    The images are selected once, and the selection is written to the run folder before any image is bought. A resumed
    run and the other processes read it, so that no other images are bought, whatever the budget is by then. A repair
    uses the selection of the run that it repairs.

    Args:
        budget: budget of the run, with the amount already spent.
        accelerator: device and processes; only the first process selects.
        progress: receives a note on what is queried.

    Raises:
        BudgetError: if the budget does not cover the texts and an image of every source domain; without labels, also an
            evaluation image.
        RunError: if the file of the selection is damaged.
    """
    choice, repair = QuerySelection.read(folder.queries_file), plan.config.repair
    if choice is None and repair is not None and (choice := QuerySelection.read(RunFolder(repair.run).queries_file)):
        choice.write(folder.queries_file)
    if choice is None:
        may_choose = plan.config.when_short == "choose" and budget.limit is not None
        if not may_choose or affordable(plan, budget.left):
            return plan
        choice = _choose(plan, budget, Candidates.of(plan, store), accelerator, progress)
        choice.write(folder.queries_file)
    progress.note(choice.line)
    return narrowed(plan, choice, store)


def with_recorded_choice(plan: RunPlan, folder: RunFolder, store: EmbeddingStore) -> RunPlan:
    """Return the plan with the selection in the run folder, which the first process has written."""
    choice = QuerySelection.read(folder.queries_file)
    return plan if choice is None else narrowed(plan, choice, store)


def _choose(
    plan: RunPlan, budget: Budget, candidates: Candidates, accelerator: Accelerator, progress: Progress
) -> QuerySelection:
    count, training, references = covered(plan, budget.left), candidates.training, candidates.evaluation
    if count < candidates.missing:
        raise _too_little(plan, budget, candidates)
    images, evaluation = candidates.shared(count)
    if images == training.unpaid:
        rows = np.flatnonzero(~training.paid)
    else:
        features = _features(plan, training.digests, accelerator, progress)
        rows = diverse(features, training.groups, images, seed=plan.config.seed, selected=training.paid)
    return candidates.choice(rows, at_random(references.groups, evaluation, plan.config.seed, references.paid))


def _features(plan: RunPlan, digests: Digests, accelerator: Accelerator, progress: Progress) -> NDArray[np.float32]:
    """Return the features of the frozen student, [N, F]. A single process caches them for Align."""
    backbone = plan.student_backbone
    backbone.module.to(accelerator.device).to(memory_format=torch.channels_last)
    title = "features to choose the images to query"
    if accelerator.num_processes > 1:  # the other processes wait for the purchase
        return frozen_features(plan, digests, progress, title, device=accelerator.device)
    return frozen_features(plan, digests, progress, title, keep=accelerator)


def _too_little(plan: RunPlan, budget: Budget, candidates: Candidates) -> BudgetError:
    texts, price, images = plan.quote.text_queries, plan.card.price, candidates.missing
    least: Decimal = price.of(images, texts)
    every = (
        "source domain" if len(plan.examples.groups) == len(plan.split.sources) else "source domain and without a label"
    )
    what = f"an image of every {every}" if plan.labelled else "a training and an evaluation image of every domain"
    return BudgetError(
        f"The budget does not cover {what}.",
        expected=f"at least {exact(least)} {price.currency}, for {images} images and {texts:,} texts",
        found=f"{exact(budget.left)} {price.currency}",
        next_step=f"raise it: --budget {exact(budget.spent + least)} or more",
    )
