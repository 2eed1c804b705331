"""Offset of the logits of classes that are added by name.

A student is biased towards the classes that it was trained on: it assigns hardly any image to a new class. An offset on
the logits of the new classes corrects this. This is the calibrated stacking of Chao et al. (ECCV 2016, arXiv
1605.04253), which subtracts a constant from the scores of the known classes. The authors choose it on images of new
classes. Here, it is chosen without such images, by the share of validation images of known classes that it may cost.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHARE = 0.05  # default share of the validation images


def new_class_offset(existing: NDArray[np.floating], new: NDArray[np.floating], share: float = SHARE) -> float:
    """Return the offset with which a given share of the images of existing classes is assigned to new classes.

    Args:
        existing: [N, K] logits of the existing classes, for validation images of these classes. N is at least 1.
        new: [N, V] logits of the new classes, for the same images.
        share: share of these images, in [0, 1). With 0, there is no offset.

    Returns:
        The offset, at least 0. It is 0 if this share is assigned to new classes anyway.
    """
    margins = existing.max(axis=1).astype(np.float64) - new.max(axis=1)
    return max(0.0, round(float(np.quantile(margins, share)), 4)) if share else 0.0
