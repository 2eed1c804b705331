"""A warning of evaluated images that the teacher's embeddings show to be copies of training images."""

from __future__ import annotations

from contextlib import closing

import numpy as np

from vl2v.data.near_duplicates import EmbeddingRows
from vl2v.data.pixels import PixelCache
from vl2v.evaluation.zero_shot import queried_examples
from vl2v.planning.plan import RunPlan
from vl2v.planning.split_duplicates import split_duplicates_by_embedding
from vl2v.progress import Progress, warn
from vl2v.purchase import BoughtEmbeddings


def warn_of_copies(plan: RunPlan, bought: BoughtEmbeddings, progress: Progress) -> None:
    """Warn of cropped and mirrored copies across the split. Without embeddings of both sides, nothing is compared."""
    if bought.training is None or bought.evaluation is None:
        return
    training = np.concatenate([plan.split.training[domain] for domain in plan.split.sources])
    # Without labels, images that a small budget does not cover are no examples, so positions do not correspond.
    rows = {plan.dataset.digests[row].tobytes(): row for row in training.tolist()}
    examples = queried_examples(plan)
    pixels = plan.pixels
    with closing(PixelCache(pixels.folder, pixels.size, pixels.fit)) as cache:
        duplicates = split_duplicates_by_embedding(
            plan.dataset,
            plan.split,
            cache,
            np.array([rows[plan.examples.digests[i].tobytes()] for i in examples.tolist()], np.int64),
            bought.evaluation,
            EmbeddingRows(bought.training, examples),
            f"{plan.card.identity} {plan.card.revision}",
            progress,
        )
    if text := duplicates.text():
        warn(progress, text)
