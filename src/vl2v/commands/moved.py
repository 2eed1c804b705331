"""The images of a run that were moved: their new place is checked by content, and recorded in the run's settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vl2v.config import DataConfig, RunConfig, parse
from vl2v.data.caches import open_index
from vl2v.data.digest_sample import share_among
from vl2v.data.images import ImageDataset
from vl2v.data.tables.base import is_table
from vl2v.data.tables.columns import ROLES
from vl2v.data.tables.frame import Frame
from vl2v.errors import RunError
from vl2v.json_files import read_json
from vl2v.locations import StoragePaths
from vl2v.planning.prepare import known_columns, list_folder, read_datasets
from vl2v.planning.split import is_dataset_of
from vl2v.progress import Progress, Silent, warn
from vl2v.runs.folder import RunFolder
from vl2v.runs.ownership import alone_in
from vl2v.runs.storage import storage_of
from vl2v.sources.named import imported
from vl2v.student.files import CARD, read_described
from vl2v.student.provenance import check_provenance
from vl2v_runtime.names import shown

MOVED = "name their new place: --data DATA, a folder or a table"


def locate_images(
    folder: RunFolder,
    data: str | Path | Frame | None,
    storage: StoragePaths | None = None,
    progress: Progress | None = None,
    step: str = MOVED,
) -> RunConfig:
    """Return the settings of a run whose images are there, after recording their new place if one is named.

    Args:
        data: the folder, table or dataset that the images are in now; None if they have not moved.
        storage: paths of cache and store; None uses those of the run.
        progress: receives the progress of the scan.
        step: how the user names the new place, for the message.

    Raises:
        RunError: if the images are missing, or others than those of the run.
        DataError: if the images in the new place cannot be read.
    """
    config = folder.config()
    if data is not None:
        storage, progress = storage or storage_of(folder.path, uses_store=False), progress or Silent()
        config = config.model_copy(update={"data": _in_new_place(config.data, data, storage, progress)})
        ensure_images(config, folder.path, "correct it")
        _check_content(folder, config.data, storage, progress)
        with alone_in(folder.path, "vl2v"):
            folder.write_config(config)
    ensure_images(config, folder.path, step)
    return config


def ensure_images(config: RunConfig, run: Path, step: str = MOVED) -> None:
    """Check that the folders and tables that list the images of a run exist.

    Args:
        step: how the user names the new place of the images, for the message.

    Raises:
        RunError: names the first one that is missing.
    """
    data = config.data
    edited = f"put it back, or correct data.{{}} in {shown(run / 'config.yaml')}"
    for key, path in (("root", data.root), ("unlabelled", data.unlabelled), ("drop", data.drop)):
        if path is not None and not path.exists():
            what = "The images" if key == "root" else "Further images or a table"
            raise RunError(
                f"{what} of {shown(run)} have moved.",
                expected=f"the {'table' if is_table(path) else 'folder'} {shown(path)} (data.{key})",
                found=f"no such {'file' if is_table(path) else 'folder'}",
                next_step=step if key == "root" else edited.format(key),
            )


def _in_new_place(data: DataConfig, place: str | Path | Frame, storage: StoragePaths, progress: Progress) -> DataConfig:
    made = data.model_dump(mode="json")
    made |= dict.fromkeys(ROLES) | known_columns(made, place)  # another table may have other columns
    root = imported(place, made, storage, progress) or Path(str(place))
    return parse(DataConfig, made | {"root": str(root.absolute())}, "the settings of the run")


def _check_content(folder: RunFolder, data: DataConfig, storage: StoragePaths, progress: Progress) -> None:
    """Check that images are those of the run, which the student records, or an unfinished run in its work folder."""
    made = _recorded(folder)
    if not made:
        warn(progress, f"{shown(folder.path)} has not read its images yet, so the new place cannot be checked")
        return
    with open_index(storage.cache) as index:
        dataset, unlabelled, _ = read_datasets(list_folder(data, begun=True), data, index, None, progress)
    if is_dataset_of(dataset, made):
        return
    every = [dataset.digests, *([] if unlabelled is None else [unlabelled.digests])]
    share = share_among(made.get("training_sample", ()), np.concatenate(every))
    if share == 1 and len(dataset) == made.get("images"):
        warn(progress, "the images are those of the run under other names")
        return
    raise _others(folder, data, made, dataset, share)


def _others(
    folder: RunFolder, data: DataConfig, made: Mapping[str, Any], dataset: ImageDataset, share: float
) -> RunError:
    part = f"{share:.0%} of its training images" if share < 1 else "its training images with other labels or domains"
    return RunError(
        f"{shown(data.root)} does not contain the images of {shown(folder.path)}.",
        expected=f"the same {made.get('images', 0):,} images",
        found=f"{len(dataset):,} images, with {part}",
        next_step="name the folder or table that the run's own images are in now; "
        "for other images, train a new run with vl2v distill",
    )


def _recorded(folder: RunFolder) -> Mapping[str, Any]:
    """Return what a run records of its images; empty if it has not read them yet."""
    if (folder.student / CARD).is_file():
        made = check_provenance(read_described(folder.student)["provenance"], str(folder.student))
        return made.get("data") or {}
    found = read_json(folder.data_file) if folder.data_file.is_file() else {}
    return found if isinstance(found, dict) else {}
