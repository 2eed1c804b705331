"""Features of the frozen backbone for the images of a plan."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from vl2v.data.pixels import Digests
from vl2v.evaluation.features import pass_through
from vl2v.planning.plan import RunPlan
from vl2v.progress import Progress
from vl2v.training.feature_cache import FeatureCache


def frozen_features(
    plan: RunPlan,
    digests: Digests,
    progress: Progress,
    title: str,
    *,
    keep: Accelerator | None = None,
    device: torch.device | None = None,
) -> NDArray[np.float32]:
    """Return the frozen backbone's features [N, F] of images in the pixel cache. Cached features are reused.

    Args:
        digests: [N, 32], SHA-256 of the images.
        keep: computes missing features in blocks of the feature cache and saves them, for many images. None computes
            only those of the given images and saves nothing, for a sample.
        device: device of the backbone without `keep`; None is the CPU.
    """
    backbone, pixels, slots = plan.student_backbone, plan.pixels.map(), plan.pixels.slots(digests)
    module = backbone.module if keep is None else backbone.module.to(keep.device)
    cache = FeatureCache(plan.pixels.features_folder(), backbone, pixels)
    if keep is not None:
        return np.array(cache.of(slots, keep, progress, title)[slots])
    cached = cache.cached(slots)
    if cached is not None:
        return cached
    device, rows = device or torch.device("cpu"), []
    with progress.stage(title, len(slots)) as advance:
        for batch in pass_through(module.to(device), backbone.preprocess, pixels, slots, device):
            rows.append(batch.cpu())
            advance(len(batch))
    features: NDArray[np.float32] = torch.cat(rows).numpy()
    return features
