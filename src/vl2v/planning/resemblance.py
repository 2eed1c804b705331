"""Validation and test images that resemble training images, computed once for a split and an image size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vl2v.data.images import ImageDataset
from vl2v.data.near_duplicates import CORRELATION, DISTANCE, NearDuplicates, near_duplicates
from vl2v.data.pixels import PixelCache
from vl2v.data.splits import DatasetRows
from vl2v.errors import RunError
from vl2v.json_files import read_json
from vl2v.planning.split import Split
from vl2v.writing import written_at_once
from vl2v_runtime.names import shown

EXAMPLES = 3
METHOD = f"1 {DISTANCE} {CORRELATION}"  # results of another version are not used


@dataclass(frozen=True)
class Resemblance:
    """Images of a split that resemble training images without being the same files.

    Attributes:
        validation: number of validation images.
        test: number of test images, stated or of held-out domains.
        examples: paths of such an image and of the training image that it resembles.
        complete: whether all images were compared. If not, there may be more.
    """

    validation: int
    test: int
    examples: tuple[tuple[str, str], ...]
    complete: bool

    def text(self) -> str:
        """Return a warning of one line, empty if there are no such images."""
        if not self.examples:
            return ""
        counts = ((self.validation, "validation"), (self.test, "test"))
        listed = " and ".join(f"{n:,} {name} image{'' if n == 1 else 's'}" for n, name in counts if n)
        verb = "resembles" if self.validation + self.test == 1 else "resemble"
        pairs = "; ".join(f"{shown(one)} and {shown(other)}" for one, other in self.examples)
        return (
            f"{'' if self.complete else 'at least '}{listed} {verb} a training image, such as {pairs}; if they are "
            "copies or frames of one clip, the accuracy is too high: remove them, or list the images in a table and "
            "keep them together with --group"
        )


def resemblance(dataset: ImageDataset, split: Split, cache: PixelCache) -> Resemblance:
    """Compare the images of a split by a perceptual hash of their cached pixels.

    The result is saved next to the pixel cache, and read by the next call with the same images and the same split.
    """
    validation, test = _joined(split.validation.values()), _joined([*split.own_test.values(), *split.test.values()])
    training = _joined(split.training.values())
    tested = np.concatenate([validation, test])
    found = _saved_or_computed(dataset, tested, training, cache)
    pairs = found.pairs[
        (dataset.digests[tested[found.pairs[:, 0]]] != dataset.digests[training[found.pairs[:, 1]]]).any(1)
    ]
    examples = [(dataset.paths[tested[a]], dataset.paths[training[b]]) for a, b in pairs[:EXAMPLES].tolist()]
    of_validation = int((pairs[:, 0] < len(validation)).sum())
    return Resemblance(of_validation, len(pairs) - of_validation, tuple(examples), found.complete)


def _saved_or_computed(
    dataset: ImageDataset, tested: DatasetRows, training: DatasetRows, cache: PixelCache
) -> NearDuplicates:
    digest = hashlib.sha256(f"{METHOD} {len(tested)}".encode())
    for rows in (tested, training):
        digest.update(dataset.digests[rows].tobytes())
    file = cache.features_folder / f"resemblance-{digest.hexdigest()[:16]}.json"
    if (saved := _read(file)) is not None:
        return saved
    slots = cache.all_slots()
    known = [np.array([slots[dataset.digests[row].tobytes()] for row in rows], np.int64) for rows in (tested, training)]
    found = near_duplicates(cache.map(), *known)
    file.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"pairs": found.pairs.tolist(), "complete": found.complete})
    with written_at_once(file.parent, lambda: file) as part:  # runs of a benchmark plan the same split at the same time
        part.write(content.encode())
    return found


def _read(file: Path) -> NearDuplicates | None:
    """Read a saved result; None if there is none, or it is damaged."""
    if not file.exists():
        return None
    try:
        content = read_json(file)
        return NearDuplicates(np.array(content["pairs"], np.int64).reshape(-1, 2), bool(content["complete"]))
    except (RunError, KeyError, TypeError, ValueError):
        return None


def _joined(parts: Iterable[DatasetRows]) -> DatasetRows:
    return np.concatenate([np.zeros(0, np.int64), *parts])
