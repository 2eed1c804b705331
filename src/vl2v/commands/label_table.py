"""The table of `vl2v label`: whether a run accepts its classes, and how it is written."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v.data.images import ImageDataset, spaced
from vl2v.data.layout import doubtful
from vl2v.data.phrases import read_phrases
from vl2v.data.table import TableListing
from vl2v.errors import ConfigError, DataError
from vl2v.progress import Progress, warn
from vl2v.writing import atomic_write
from vl2v_runtime.names import cell, shown


def ensure_trainable(names: Sequence[str], table: Path) -> None:
    """Check that `vl2v distill` accepts the names of the classes in a table.

    Raises:
        ConfigError: if they are numbers, missing values or several classes, and `classes.yaml` does not describe them.
    """
    phrases = read_phrases(table.absolute().parent, names)
    described = [name for name in names if phrases[name] != spaced(name)]
    if problems := [problem for problem, _ in doubtful(names, described)]:
        raise ConfigError(
            "vl2v distill does not accept these class names in a table.",
            expected="names that a teacher can interpret",
            found="; ".join(problems),
            next_step="correct --classes, or describe each of them in classes.yaml in the folder of the table, or "
            "accept them here and in vl2v distill: --layout-as-found",
        )


def warn_of_faults(table: Path, several: bool, as_found: bool, progress: Progress) -> None:
    """Warn if `vl2v distill` does not accept a table, such as one without an image of some class.

    Args:
        several: whether the table has a column of domains.
        as_found: whether names that are probably not classes are accepted.
    """
    columns = {"image": "image", "label": "label", "domain": "domain" if several else "none"}
    try:
        faults = TableListing(table, columns=columns, as_found=as_found).faults
        lines = [f"{fault.where}: {fault.problem}" for fault in faults]
    except DataError as error:
        lines = [error.found or error.problem]
    if lines:
        more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
        warn(progress, f"vl2v distill does not accept {shown(table)} without changes: {'; '.join(lines[:3])}{more}")


def write_labels(
    file: Path,
    dataset: ImageDataset,
    labels: Sequence[str],
    confidence: NDArray[np.float64],
    trusted: NDArray[np.bool_] | None,
    trusted_only: bool,
    progress: Progress,
) -> int:
    """Write the table, and return the number of its rows. Paths inside its folder are relative to it.

    For an imported dataset, the column ``name`` has the name of the image there.

    Args:
        labels: the class of each image, [N].
        confidence: [N] its probability, in [0, 1].
        trusted: [N] bool; None without checked images.
        trusted_only: whether other images are omitted.
    """
    folder, several, skipped, row_count = file.absolute().parent, len(dataset.domains) > 1, [], 0
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as part, part.open("w", encoding="utf-8", newline="") as text_file:
        writer = csv.writer(text_file)
        origins = [[cell(name)] for name in dataset.known_as(range(len(dataset)))] if dataset.imported else []
        columns = ["image", "label", *(["domain"] if several else []), "confidence", "trusted"]
        writer.writerow([*columns, *(["name"] if origins else [])])
        for row, path in enumerate(dataset.paths):
            if trusted_only and trusted is not None and not trusted[row]:
                continue
            image = (dataset.root / path).absolute()
            text = str(image.relative_to(folder) if image.is_relative_to(folder) else image)
            try:
                text.encode()
            except UnicodeEncodeError:
                skipped.append(shown(path))
                continue
            mark = "" if trusted is None else "yes" if trusted[row] else "no"
            domain = [dataset.domains[dataset.domain_of[row]]] if several else []
            origin = origins[row] if origins else []
            writer.writerow([text, labels[row], *domain, f"{confidence[row]:.4f}", mark, *origin])
            row_count += 1
    if skipped:
        warn(progress, f"{len(skipped)} images were omitted; their names are not UTF-8: {', '.join(skipped[:3])}")
    return row_count
