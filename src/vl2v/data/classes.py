"""Hold out whole classes: their images are used neither for training nor for validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vl2v.data.images import ImageDataset, spaced, spelling
from vl2v.errors import ConfigError, DataError
from vl2v.hints import did_you_mean, some_of


def held_out_folders(names: Sequence[str], folders: Sequence[str]) -> tuple[str, ...]:
    """Return the class folders of held-out names, in any spelling, in the order of `folders`.

    Raises:
        ConfigError: if a name is unknown, or fewer than two classes are left to train on.
    """
    by_spelling = {spelling(folder): folder for folder in folders}
    step = "correct data.held_out_classes (--held-out-class)"
    if unknown := [name for name in names if spelling(name) not in by_spelling]:
        classes = [spaced(folder) for folder in by_spelling.values()]
        step += did_you_mean(unknown[0], classes)
        found = ", ".join(unknown)
        raise ConfigError("Unknown class.", expected=f"one of {some_of(classes)}", found=found, next_step=step)
    held_out = {by_spelling[spelling(name)] for name in names}
    if held_out and len(folders) - len(held_out) < 2:
        raise ConfigError(
            "Too few classes are left for training.",
            expected=f"at least two of {', '.join(map(spaced, folders))}",
            found=f"{len(held_out)} of {len(folders)} held out",
            next_step=step,
        )
    return tuple(folder for folder in folders if folder in held_out)


def part_classes(dataset: ImageDataset, names: Sequence[str]) -> tuple[ImageDataset, ImageDataset | None]:
    """Separate a dataset into the classes that are trained on and those that are held out.

    Args:
        names: of the held-out classes. A name that the dataset does not have is ignored. Without names, nothing is
            separated.

    Returns:
        Two datasets over the same domains, each with its own classes and labels from 0. The second is None if no
        class is held out.

    Raises:
        DataError: if a domain has no image of the other classes.
    """
    spellings = {spelling(name) for name in names}
    held_out = [folder for folder in dataset.folders if spelling(folder) in spellings]
    if not held_out:
        return dataset, None
    training = only_classes(dataset, [folder for folder in dataset.folders if folder not in held_out])
    for domain in training.domains:
        if not len(training.rows_of(domain)):
            raise DataError(
                f"The domain {domain} only has images of held-out classes.",
                expected=f"images of {', '.join(training.names)}",
                found=", ".join(map(spaced, held_out)),
                next_step="add images, remove the domain, or hold out other classes",
            )
    return training, only_classes(dataset, held_out)


def only_classes(dataset: ImageDataset, folders: Sequence[str]) -> ImageDataset:
    """Return the images of some classes, in the same order, with labels from 0 in the order of `folders`."""
    indices = [dataset.folders.index(folder) for folder in folders]
    rows = np.flatnonzero(np.isin(dataset.labels, indices))
    renumbered = np.full(len(dataset.folders), -1, np.int64)
    renumbered[indices] = np.arange(len(indices))
    subset = dataset.take(rows)
    return replace(
        subset,
        labels=renumbered[subset.labels],
        folders=tuple(folders),
        phrases=tuple(dataset.phrases[index] for index in indices),
    )
