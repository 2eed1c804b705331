"""Drop images from a dataset that a CSV file lists, such as the one of `vl2v data suspects`."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from vl2v.data.images import ImageDataset
from vl2v.data.splits import DatasetRows
from vl2v.errors import ConfigError
from vl2v.progress import Progress, warn
from vl2v_runtime.names import shown
from vl2v_runtime.regular import read_regular

PATH, DROP = "path", "drop"
MOST_BYTES = 2**30
YES, NO = ("yes", "true", "1"), ("no", "false", "0", "")


def read_dropped(file: Path) -> set[str]:
    """Return the paths to drop: those with yes in the column ``drop``, or all if there is no such column.

    Raises:
        ConfigError: if the file cannot be read, or is not such a list.
    """
    step = "use the CSV file that vl2v data suspects writes, or drop data.drop (--drop)"
    expected = f"a CSV file in UTF-8 with a column {PATH} and, if not all are dropped, a column {DROP} of yes and no"
    problem = f"data.drop (--drop) {shown(file)} cannot be used."
    try:
        text = read_regular(file, MOST_BYTES).decode("utf-8-sig", "surrogateescape")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        rows, columns = list(reader), list(reader.fieldnames or ())
    except (OSError, csv.Error, UnicodeError) as error:
        found = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ConfigError(problem, expected=expected, found=found, next_step=step) from error
    if PATH not in columns:
        found = f"the columns {', '.join(map(shown, columns[:12]))}" if columns else "an empty file"
        raise ConfigError(problem, expected=expected, found=found, next_step=step)
    dropped = set()
    for line, row in enumerate(rows, 2):
        value = (row.get(DROP) or "").strip().lower() if DROP in columns else YES[0]
        if value not in YES + NO:
            found = f"{shown(value[:40])} in row {line}"
            raise ConfigError(problem, expected="yes or no in the column drop", found=found, next_step=step)
        if value in YES and row[PATH]:
            dropped.add(row[PATH])
    return dropped


def without_dropped(
    dataset: ImageDataset, file: Path, progress: Progress, *, allow_missing_classes: bool = False
) -> ImageDataset:
    """Return the dataset without the images that a file lists by path or name. Unknown images cause a warning.

    Raises:
        ConfigError: if the file cannot be used, none of its images is in the dataset, or a class loses its last image.
    """
    dropped = read_dropped(file)
    names = dataset.known_as(range(len(dataset))) if dataset.imported and dropped else dataset.paths
    listed = np.array([path in dropped or name in dropped for path, name in zip(dataset.paths, names, strict=True)])
    rows, gone = np.flatnonzero(~listed), int(listed.sum())
    if dropped and not gone:
        raise ConfigError(
            f"None of the images of data.drop (--drop) {shown(file)} is in the data.",
            expected="paths relative to the folder of the data, or names of images, as vl2v data suspects writes them",
            found=shown(min(dropped)),
            next_step="pass the folder or table that the file was made for",
        )
    if unknown := len(dropped.difference(dataset.paths, names)):
        warn(progress, f"{unknown:,} of the images to drop are not in the data ({shown(file)})")
    if not allow_missing_classes:
        _ensure_classes_stay(dataset, rows, file)
    progress.note(f"dropped {gone:,} images ({shown(file)})")
    return dataset.take(rows)


def _ensure_classes_stay(dataset: ImageDataset, rows: DatasetRows, file: Path) -> None:
    """Check that every class keeps an image in every domain."""
    every = np.stack([dataset.domain_of, dataset.labels], axis=1)
    emptied = sorted({*map(tuple, every.tolist())} - {*map(tuple, every[rows].tolist())})
    if emptied:
        cells = [f"{dataset.domains[domain]}/{dataset.names[label]}" for domain, label in emptied if label >= 0]
        cells = cells or [dataset.domains[domain] for domain, _ in emptied]
        raise ConfigError(
            f"data.drop (--drop) {shown(file)} drops every image of a class.",
            expected="a remaining image of every class in every domain",
            found=f"none of {', '.join(map(shown, cells[:5]))}{', ...' * (len(cells) > 5)}",
            next_step="correct its column drop, or allow it: --allow-missing-classes",
        )
