"""Validation and test images that resemble training images, computed once for a split and an image size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v.data.alignment import CORRELATION as ALIGNED
from vl2v.data.images import ImageDataset
from vl2v.data.near_duplicates import (
    CORRELATION,
    COSINE,
    DISTANCE,
    EmbeddingRows,
    NearDuplicates,
    near_duplicates,
    near_duplicates_of_embeddings,
)
from vl2v.data.pixels import Digests, PixelCache
from vl2v.data.splits import DatasetRows, Slots
from vl2v.digests import among
from vl2v.errors import RunError
from vl2v.json_files import read_json
from vl2v.planning.split import Split
from vl2v.progress import Progress
from vl2v.sqlite import keys_of
from vl2v.writing import atomic_shared_write
from vl2v_runtime.names import shown

EXAMPLES = 3
METHOD = f"1 {DISTANCE} {CORRELATION}"  # results of another version are not used
OF_EMBEDDINGS = f"embeddings 1 {COSINE} {ALIGNED}"


@dataclass(frozen=True)
class SplitDuplicates:
    """Images of a split that resemble training images without being the same files.

    Attributes:
        validation: number of validation images.
        test: number of test images, stated or of held-out domains.
        examples: names of such an image and of the training image that it resembles.
        complete: whether all images were compared. If not, there may be more.
        aligned: whether the images were cropped, moved and mirrored to fit each other.
    """

    validation: int
    test: int
    examples: tuple[tuple[str, str], ...]
    complete: bool
    aligned: bool = False

    def text(self) -> str:
        """Return a warning of one line, empty if there are no such images."""
        if not self.examples:
            return ""
        images = _counted(self.validation, self.test)
        verb = "resembles" if self.validation + self.test == 1 else "resemble"
        pairs = "; ".join(f"{shown(one)} and {shown(other)}" for one, other in self.examples)
        how = " once cropped or mirrored (found by the teacher's embeddings)" if self.aligned else ""
        return (
            f"{'' if self.complete else 'at least '}{images} {verb} a training image{how}, such as {pairs}; if they "
            "are copies or frames of one clip, the accuracy is too high: remove them, or list the images in a table "
            "and keep them together with --group"
        )


def copies_of_training(dataset: ImageDataset, split: Split, unseen: ImageDataset | None, training: Digests) -> str:
    """Return a warning about validation and test images that are the same files as training images; empty if none are.

    Args:
        unseen: images of held-out classes, which are test images; None if there are none.
        training: [N, 32] uint8, SHA-256 of all training images, with and without labels.
    """
    validation, *test = (
        int(among(dataset.digests[_joined(part.values())], training).sum()) for part in split.evaluation_parts
    )
    tested = sum(test) + (0 if unseen is None else int(among(unseen.digests, training).sum()))
    if not (listed := _counted(validation, tested)):
        return ""
    verb = "is" if validation + tested == 1 else "are"
    return f"{listed} {verb} also among the training images, so the accuracy is too high: remove the copies"


def _counted(validation: int, test: int) -> str:
    counts = ((validation, "validation"), (test, "test"))
    return " and ".join(f"{n:,} {name} image{'' if n == 1 else 's'}" for n, name in counts if n)


def split_duplicates(dataset: ImageDataset, split: Split, cache: PixelCache) -> SplitDuplicates:
    """Compare the images of a split by a perceptual hash of their cached pixels.

    The result is saved next to the pixel cache, and read by the next call with the same images and the same split.
    """
    tested, training = split.evaluation_rows, _joined(split.training.values())
    return _of(dataset, split, training, _of_hashes(dataset, tested, training, cache), aligned=False)


def split_duplicates_by_embedding(
    dataset: ImageDataset,
    split: Split,
    cache: PixelCache,
    training: DatasetRows,
    evaluation: NDArray[np.float32],
    examples: EmbeddingRows,
    teacher: str,
    progress: Progress | None = None,
) -> SplitDuplicates:
    """Compare the images of a split by embeddings and aligned pixels. Those that `split_duplicates` finds are omitted.

    The result is saved in the same way.

    Args:
        training: [N] rows of the training images that have an embedding.
        evaluation: embeddings of the evaluated images, [E, D] float32 in the order of `Split.evaluation_rows`.
        teacher: identity and revision of the teacher.
    """
    tested = split.evaluation_rows
    hashed = _of_hashes(dataset, tested, _joined(split.training.values()), cache)
    fresh = ~among(dataset.digests[tested], dataset.digests[training])  # the same files are counted elsewhere
    fresh[hashed.pairs[:, 0]] = False
    candidates = np.flatnonzero(fresh)

    def compare(ours: Slots, theirs: Slots) -> NearDuplicates:
        rows = EmbeddingRows(evaluation, candidates)
        return near_duplicates_of_embeddings(cache.map(), ours, theirs, rows, examples, progress)

    method = f"{OF_EMBEDDINGS} {teacher}"
    duplicates = _saved_or_computed(dataset, tested[candidates], training, cache, method, compare)
    pairs = np.stack([candidates[duplicates.pairs[:, 0]], duplicates.pairs[:, 1]], 1)
    return _of(dataset, split, training, NearDuplicates(pairs, duplicates.complete), aligned=True)


def _of_hashes(dataset: ImageDataset, tested: DatasetRows, training: DatasetRows, cache: PixelCache) -> NearDuplicates:
    return _saved_or_computed(
        dataset, tested, training, cache, METHOD, lambda *slots: near_duplicates(cache.map(), *slots)
    )


def _of(
    dataset: ImageDataset, split: Split, training: DatasetRows, duplicates: NearDuplicates, *, aligned: bool
) -> SplitDuplicates:
    tested = split.evaluation_rows
    pairs = duplicates.pairs[
        (dataset.digests[tested[duplicates.pairs[:, 0]]] != dataset.digests[training[duplicates.pairs[:, 1]]]).any(1)
    ]
    shown_pairs = pairs[:EXAMPLES]
    names = dataset.known_as([*tested[shown_pairs[:, 0]].tolist(), *training[shown_pairs[:, 1]].tolist()])
    examples = list(zip(names[: len(shown_pairs)], names[len(shown_pairs) :], strict=True))
    validation = sum(len(rows) for rows in split.validation.values())  # they are the first split positions
    of_validation = int((pairs[:, 0] < validation).sum())
    return SplitDuplicates(of_validation, len(pairs) - of_validation, tuple(examples), duplicates.complete, aligned)


def _saved_or_computed(
    dataset: ImageDataset,
    tested: DatasetRows,
    training: DatasetRows,
    cache: PixelCache,
    method: str,
    compare: Callable[[Slots, Slots], NearDuplicates],
) -> NearDuplicates:
    digest = hashlib.sha256(f"{method} {len(tested)}".encode())
    for rows in (tested, training):
        digest.update(dataset.digests[rows].tobytes())
    file = cache.features_folder / f"resemblance-{digest.hexdigest()[:16]}.json"
    if (result := _read(file)) is not None:
        return result
    slots = cache.all_slots()
    slot_parts = [
        np.array([slots[key] for key in keys_of(dataset.digests[rows])], np.int64) for rows in (tested, training)
    ]
    duplicates = compare(*slot_parts)
    file.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"pairs": duplicates.pairs.tolist(), "complete": duplicates.complete})
    # Runs of a benchmark plan the same split at the same time.
    with atomic_shared_write(file.parent, lambda: file) as part:
        part.write(content.encode())
    return duplicates


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
