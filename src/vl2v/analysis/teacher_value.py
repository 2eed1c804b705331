"""The advice of `vl2v.analysis.advice` for a plan, from stored embeddings; nothing is bought."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vl2v.analysis.advice import (
    FEWEST_ANSWERS,
    FEWEST_IMAGES,
    FEWEST_PER_CLASS,
    LABELS_ALONE,
    OTHER_TEACHER,
    Advice,
    advise,
)
from vl2v.analysis.frozen import frozen_features
from vl2v.analysis.probe import cross_validated, domain_folds, stratified_folds
from vl2v.data.pixels import Digests
from vl2v.data.splits import DatasetRows
from vl2v.json_files import read_json, write_json
from vl2v.planning.plan import RunPlan
from vl2v.planning.requirements import TRAINING
from vl2v.progress import Progress, warn
from vl2v.purchase import text_heads, zero_shot_logits
from vl2v.teacher.purchase.store import EmbeddingStore

SAMPLE = 500  # maximum number of images for the probe
PILOT = 100  # number of images that are bought first
CLASSES = 50  # maximum number of classes, so that each has enough images in the sample
FILE = "advice.json"  # temporary file of a run


def advice_for(
    plan: RunPlan,
    store: EmbeddingStore,
    progress: Progress,
    device: torch.device | None = None,
    *,
    bought: bool = False,
) -> Advice | None:
    """Compare the teacher with a linear probe on a sample of the labelled source images.

    Images of held-out domains and stated test images are not used.

    Args:
        store: store of the embeddings; images without an embedding are omitted.
        device: device of the backbone; None is the CPU.
        bought: whether a run has bought the sample, or its first part. Otherwise, images with a stored embedding are
            preferred.

    Returns:
        None without labels, without a student, with a method that does not query the teacher, with too few images or
        embeddings, or for a repair, whose student was trained on the labels.
    """
    if not plan.labelled or not plan.method.queries_teacher or plan.backbone is None or plan.config.repair is not None:
        return None
    if not all(store.knows_texts(plan.card, plan.requirements.prompts)):
        return None
    dataset = plan.dataset
    candidates = source_rows(plan)
    if len(candidates) < FEWEST_IMAGES:
        return None
    stored = None if bought else store.knows_images(plan.card, dataset.digests[candidates])
    rows, classes = sample_of(dataset.labels, dataset.domain_of, candidates, stored)
    answered = rows[store.knows_images(plan.card, dataset.digests[rows])]
    if len(answered) < FEWEST_ANSWERS or len(rows) < FEWEST_PER_CLASS * len(classes):
        return None
    embeddings = store.images(plan.card, dataset.digests[answered])
    head = text_heads(store.texts(plan.card, plan.requirements.prompts), plan.requirements.templates)[classes]
    logits = zero_shot_logits(embeddings, head, plan.card.logit_scale)
    right = classes[logits.argmax(axis=1)] == dataset.labels[answered]
    labels = np.searchsorted(classes, dataset.labels[rows]).astype(np.int64)
    domains = domain_folds(dataset.domain_of[rows])
    by_domain = len(np.unique(domains)) > 1
    folds = domains if by_domain else stratified_folds(labels, copies_of(dataset.digests[rows]))
    title = "features of a sample of labelled images"
    features = frozen_features(plan, dataset.digests[rows], progress, title, device=device)
    scores = cross_validated(features, labels, folds, len(classes))
    return advise(right, scores.argmax(axis=1) == labels, by_domain, len(classes), len(dataset.phrases))


def show_advice(advice: Advice, progress: Progress) -> None:
    """Show the advice: as a warning if it is not to distil from the teacher, otherwise as a note."""
    if advice.action in (LABELS_ALONE, OTHER_TEACHER):
        warn(progress, advice.line)
    else:
        progress.note(advice.line)


def pilot_of(plan: RunPlan, store: EmbeddingStore) -> Digests | None:
    """Return the SHA-256 of the training images that a run buys first, [N, 32]; None if the order is not important.

    It is not if the teacher is free, if there will be no advice, if few images are bought at all, or if requests of an
    earlier process are in flight, which are completed as they were sent. A plan that selects its images does not buy
    others.
    """
    if plan.card.price.free or not plan.labelled or not plan.method.queries_teacher or plan.queried is not None:
        return None
    if plan.quote.image_queries < 4 * PILOT or plan.quote.images_known.get(TRAINING) or store.pending(plan.card):
        return None
    dataset = plan.dataset
    rows, _ = sample_of(dataset.labels, dataset.domain_of, source_rows(plan))
    mask = np.isin(rows, np.concatenate(list(plan.split.training.values())))
    return dataset.digests[rows[mask][:PILOT]]


def sample_of(
    labels: NDArray[np.int64],
    domains: NDArray[np.int64],
    candidates: DatasetRows,
    stored: NDArray[np.bool_] | None = None,
) -> tuple[DatasetRows, NDArray[np.int64]]:
    """Return a seeded sample of images, divided evenly by domain and class.

    Args:
        candidates: [N] rows to sample from.
        stored: [N], whether the teacher's embedding is stored; such images are preferred within a domain and class.
            None prefers no image.

    Returns:
        (at most `SAMPLE` rows, with domains and classes in turn, so that any prefix is divided as evenly; at most
        `CLASSES` classes, ascending).
    """
    generator = np.random.default_rng(0)
    present = np.unique(labels[candidates])
    classes = np.sort(generator.permutation(present)[:CLASSES])
    inside = np.isin(labels[candidates], classes)
    order = generator.permutation(np.flatnonzero(inside))
    if stored is not None:
        order = order[np.argsort(~stored[order], kind="stable")]
    rows = candidates[order]
    turn = np.zeros(len(rows), np.int64)
    stratum = labels[rows] * (int(domains.max()) + 1) + domains[rows]
    for value in np.unique(stratum):
        of_stratum = np.flatnonzero(stratum == value)
        turn[of_stratum] = np.arange(len(of_stratum))
    return rows[np.argsort(turn, kind="stable")][:SAMPLE], classes


def source_rows(plan: RunPlan) -> DatasetRows:
    """Return the labelled images of the source domains that the plan uses for training or validation."""
    return np.concatenate([*plan.split.training.values(), *plan.split.validation.values()])


def copies_of(digests: Digests) -> NDArray[np.int64]:
    """Return numbers that are equal for copies of one file, [N] int64."""
    return np.unique(digests, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def save_advice(advice: Advice | None, work: Path) -> None:
    """Save the advice of a run until its evaluation is written."""
    work.mkdir(parents=True, exist_ok=True)
    write_json(work / FILE, {} if advice is None else advice.to_dict())


def saved_advice(work: Path) -> dict[str, Any] | None:
    """Return the advice that `save_advice` wrote; empty if there was none, None if it was not called yet."""
    return read_json(work / FILE) if (work / FILE).exists() else None
