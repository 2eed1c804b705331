"""Temperature of a student on validation images in other styles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vl2v.data.image_changes import CHANGES, PARAMETERS, Change
from vl2v.evaluation.evaluation import IN_DOMAIN, student_answers
from vl2v.evaluation.split import DomainPredictions, EvaluationDomain
from vl2v.student.model import Student
from vl2v.trust.calibration import fit_temperature

MOST_IMAGES = 256  # validation images that are changed to each style
STYLES = tuple(change for change in CHANGES if change.style and not change.partner)


def styled_temperature(
    student: Student,
    pixels: NDArray[np.uint8],
    domains: Sequence[EvaluationDomain],
    parts: Sequence[DomainPredictions],
) -> float | None:
    """Fit the temperature on validation images in each of the `STYLES`, and return the highest.

    It is closer to the best temperature on an unseen domain than that of unchanged images, see docs/results/trust.md.
    At most `MOST_IMAGES` images are used, evenly from the source domains. The result is deterministic.

    Args:
        pixels: [slots, S, S, 3] uint8, the pixel cache.
        domains: the evaluated images. Held-out domains are not used.
        parts: their predictions, in the same order.

    Returns:
        The temperature; None without validation images.
    """
    sources = [pair for pair in zip(domains, parts, strict=True) if pair[0].role == IN_DOMAIN and len(pair[0])]
    if not sources:
        return None
    slots = np.concatenate([domain.slots for domain, _ in sources])
    labels = np.concatenate([part.labels for _, part in sources])
    sample = np.linspace(0, len(slots) - 1, min(len(slots), MOST_IMAGES)).astype(np.int64)
    images = pixels[slots[sample]]
    return max(
        fit_temperature(student_answers(student, _changed(images, style), np.arange(len(images)))[0], labels[sample])
        for style in STYLES
    )


def _changed(images: NDArray[np.uint8], style: Change) -> NDArray[np.uint8]:
    """Change N images [N, S, S, 3] to a style, each with a random strength."""
    draws = torch.rand(len(images), PARAMETERS, generator=torch.Generator().manual_seed(0))
    changed: NDArray[np.uint8] = style.of_pixels(torch.from_numpy(images).permute(0, 3, 1, 2), draws).numpy()
    return changed.transpose(0, 2, 3, 1)
