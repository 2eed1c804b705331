"""The student's embeddings of images of a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v.commands.moved import MOVED
from vl2v.data.splits import Indices
from vl2v.evaluation.predictions import Predictions
from vl2v.progress import Progress, warn
from vl2v.student.model import Student
from vl2v_runtime.imaging import UnreadableImageError

CHUNK = 64  # images per call of the student


def sample_rows(predictions: Predictions, most: int) -> Indices:
    """Return a fixed sample of at most `most` images per domain, as ascending indices."""
    rng = np.random.default_rng(0)
    parts = [np.flatnonzero(predictions.domain == name) for name in predictions.domains]
    return np.sort(np.concatenate([rng.permutation(part)[:most] for part in parts]))


def embed_images(
    student: Student, paths: Sequence[Path], progress: Progress, consequence: str
) -> NDArray[np.float32] | None:
    """Return the student's embeddings of N images, [N, D]; None if one cannot be read, usually because it was moved.

    Args:
        student: a student with a text head.
        paths: paths of the images, at least one.
        progress: receives the progress, and a warning if an image cannot be read.
        consequence: what is missing without the images; it begins the warning.
    """
    rows = []
    try:
        with progress.stage("embedding", len(paths)) as advance:
            for start in range(0, len(paths), CHUNK):
                rows.append(student.embed(paths[start : start + CHUNK], CHUNK))
                advance(len(rows[-1]))
    except (OSError, UnreadableImageError) as error:
        warn(progress, f"{consequence}, because the run's images have moved ({error}); {MOVED}")
        return None
    return np.concatenate(rows)
