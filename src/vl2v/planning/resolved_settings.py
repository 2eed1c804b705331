"""Settings that depend on the data: the number of steps of Distill, and the composition of a batch."""

from __future__ import annotations

from math import ceil
from typing import Any

from vl2v.config import RunConfig
from vl2v.recipes import LEAST_STEPS, validation_interval

RESOLVED = ("batch", "batch_per_domain", "unlabelled_per_batch", "distill")  # keys of the settings that may change


def resolved(config: RunConfig, sources: int, images: int, unlabelled: bool) -> RunConfig:
    """Return settings with numbers of images and steps in place of `batch` and `distill.passes`.

    Args:
        sources: number of source domains, at least 1.
        images: number of training images, including those without labels; views of an image do not count.
        unlabelled: whether some of them have no label.
    """
    shares = {"batch_per_domain": config.batch_per_domain, "unlabelled_per_batch": config.unlabelled_per_batch}
    if config.batch is not None:
        without = config.batch // 2 if unlabelled else 0
        shares["batch_per_domain"] = max(1, round((config.batch - without) / sources))
        shares["unlabelled_per_batch"] = max(1, without) if unlabelled else shares["unlabelled_per_batch"]
    changes: dict[str, Any] = {"batch": None, **shares}
    if (passes := config.distill.passes) is not None:
        batch = shares["batch_per_domain"] * sources + (shares["unlabelled_per_batch"] if unlabelled else 0)
        steps = min(config.distill.steps, max(LEAST_STEPS, ceil(passes * images / batch)))
        every = validation_interval(steps, config.distill.checkpoint_every)
        update = {"steps": steps, "checkpoint_every": every, "passes": None}
        changes["distill"] = config.distill.model_copy(update=update)
    return config.model_copy(update=changes)
