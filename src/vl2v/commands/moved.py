"""The images of a run that were moved: their new location is checked by content, and recorded in the run's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vl2v.commands.new_site import NEW_SITE, at_new_location, ensure_new_images, new_digests
from vl2v.config import DataConfig, RunConfig
from vl2v.data.caches import open_index
from vl2v.data.digest_sample import share_among
from vl2v.data.images import ImageDataset
from vl2v.data.tables.base import is_table
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
from vl2v.student.files import CARD
from vl2v.validation import parse
from vl2v_runtime.names import shown

MOVED = "state their new location: --data DATA, a folder or a table"
ALL, ROOT = ("root", "unlabelled", "drop"), ("root",)  # settings of `data` that name files
TRAINING = (*ALL, "new_site")  # all images that are needed to train


@dataclass(frozen=True)
class NewLocations:
    """Where the files that list the images of a run are now; None for those that have not moved.

    Attributes:
        root: the folder, table or dataset of the images.
        unlabelled: that of the further images without labels.
        drop: the CSV file of the images that are left out.
        new_site: the images of a new site with which `vl2v repair` made the run.
    """

    root: str | Path | Frame | None = None
    unlabelled: str | Path | None = None
    drop: str | Path | None = None
    new_site: str | Path | None = None

    @classmethod
    def of(cls, locations: StatedLocations) -> NewLocations:
        """Return new locations; a single path is that of the images."""
        return locations if isinstance(locations, NewLocations) else cls(locations)

    def __bool__(self) -> bool:
        """Whether any is named."""
        return any(getattr(self, key) is not None for key in TRAINING)


StatedLocations = str | Path | Frame | NewLocations | None


def locate_images(
    folder: RunFolder,
    data: StatedLocations,
    storage: StoragePaths | None = None,
    progress: Progress | None = None,
    step: str = MOVED,
    needed: Sequence[str] = ALL,
) -> RunConfig:
    """Return the settings of a run whose images are there, after recording new locations if any are given.

    Args:
        data: the folder, table or dataset that the images are in now, or several `NewLocations`; None if they have not
            moved.
        storage: paths of cache and store; None uses those of the run.
        progress: receives the progress of the scan.
        step: how the user states the new location of `data.root`, for the message.
        needed: the settings of `data` whose files the command reads, and ``new_site`` if it reads the new images of a
            repair. To record a new location of one of the settings, all are read.

    Raises:
        RunError: if the images are missing, or others than those of the run.
        DataError: if the images in the new location cannot be read.
    """
    config, locations = folder.config(), NewLocations.of(data)
    if locations:
        storage, progress = storage or storage_of(folder.path, uses_store=False), progress or Silent()
        if keys := [key for key in ALL if getattr(locations, key) is not None]:
            _ensure_known(config.data, folder.path, keys)
            config = config.model_copy(update={"data": _at_new_locations(config.data, locations, storage, progress)})
            ensure_images(config.data, folder.path, keys, dict.fromkeys(ALL, "correct it"))
            ensure_images(config.data, folder.path, ALL, {"root": step})
            _check_content(folder, config, storage, progress)
        with alone_in(folder.path, "vl2v"):
            if locations.new_site is not None:
                config = at_new_location(folder, config, locations.new_site, storage, progress)
            folder.write_config(config)
    ensure_images(config.data, folder.path, [key for key in ALL if key in needed], {"root": step})
    if "new_site" in needed:
        ensure_new_images(config, folder.path, NEW_SITE)
    return config


def ensure_images(data: DataConfig, run: Path, needed: Sequence[str], steps: Mapping[str, str]) -> None:
    """Check that the folders and tables that list the images of a run exist.

    Args:
        needed: settings of `data` to check.
        steps: how the user states a new location, by setting, for the message; by default with an option of that name.

    Raises:
        RunError: names the first one that is missing.
    """
    for key in needed:
        path = getattr(data, key)
        if path is not None and not path.exists():
            what = {"unlabelled": "The images without labels", "drop": "The list of dropped images"}
            is_file = key == "drop" or is_table(path)
            raise RunError(
                f"{what.get(key, 'The images')} of {shown(run)} {'has' if key == 'drop' else 'have'} moved.",
                expected=f"the {'file' if is_file else 'folder'} {shown(path)} (data.{key})",
                found=f"no such {'file' if is_file else 'folder'}",
                next_step=steps.get(key, f"state the new location: --{key} PATH"),
            )


def _ensure_known(data: DataConfig, run: Path, keys: Sequence[str]) -> None:
    """Check that a run has the files whose new locations are given."""
    if absent := [key for key in keys if getattr(data, key) is None]:
        raise RunError(
            f"{shown(run)} has no data.{absent[0]}.",
            expected="new locations of the files that the run was trained with",
            found=f"--{absent[0]}",
            next_step=f"omit --{absent[0]}; to train with it, start a new run with vl2v distill",
        )


def _at_new_locations(
    data: DataConfig, locations: NewLocations, storage: StoragePaths, progress: Progress
) -> DataConfig:
    values = data.model_dump(mode="json")
    if locations.unlabelled is not None:
        table = imported(locations.unlabelled, values, storage, progress, labelled=False)
        values["unlabelled"] = str(Path(table or locations.unlabelled).absolute())
    if locations.drop is not None:
        values["drop"] = str(Path(locations.drop).absolute())
    if locations.root is not None:
        values |= known_columns(values, locations.root)  # another table may have other columns
        root = imported(locations.root, values, storage, progress) or Path(str(locations.root))
        values["root"] = str(root.absolute())
    return parse(DataConfig, values, "the settings of the run")


def _check_content(folder: RunFolder, config: RunConfig, storage: StoragePaths, progress: Progress) -> None:
    """Check that images are those of the run, which the student records, or an unfinished run in its work folder."""
    record, data = _recorded(folder), config.data
    if not record:
        warn(progress, f"{shown(folder.path)} has not read its images yet, so the new location cannot be checked")
        return
    with open_index(storage.cache) as index:
        dataset, unlabelled, _ = read_datasets(list_folder(data, layout_known=True), data, index, None, progress)
    if unlabelled is not None:
        _check_unlabelled(folder, data, record, unlabelled)
    if is_dataset_of(dataset, record):
        return
    every = [dataset.digests, new_digests(config), *([] if unlabelled is None else [unlabelled.digests])]
    share = share_among(record.get("training_sample", ()), np.concatenate(every))
    if share == 1 and len(dataset) == record.get("images"):
        warn(progress, "the images are those of the run under other names")
        return
    part = f"{share:.0%} of its training images" if share < 1 else "its training images with other labels or domains"
    raise RunError(
        f"{shown(data.root)} does not contain the images of {shown(folder.path)}.",
        expected=f"the same {record.get('images', 0):,} images",
        found=f"{len(dataset):,} images, with {part}",
        next_step="name the folder or table that the run's own images are in now; "
        "for other images, train a new run with vl2v distill",
    )


def _check_unlabelled(folder: RunFolder, data: DataConfig, record: Mapping[str, Any], unlabelled: ImageDataset) -> None:
    """Check that images without labels are those of a run. Earlier versions did not record them."""
    sample, count = record.get("unlabelled_sample"), record.get("unlabelled_images")
    if sample and (len(unlabelled) != count or share_among(sample, unlabelled.digests) < 1):
        raise RunError(
            f"{shown(str(data.unlabelled))} does not contain the images without labels of {shown(folder.path)}.",
            expected=f"the same {count:,} images",
            found=f"{len(unlabelled):,} images, with {share_among(sample, unlabelled.digests):.0%} of them",
            next_step="name the folder or table that these images are in now: --unlabelled PATH",
        )


def _recorded(folder: RunFolder) -> Mapping[str, Any]:
    """Return what a run records of its images; empty if it has not read them yet."""
    if (folder.student / CARD).is_file():
        return folder.provenance().get("data") or {}
    record = read_json(folder.data_file) if folder.data_file.is_file() else {}
    return record if isinstance(record, dict) else {}
