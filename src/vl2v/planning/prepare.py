"""From settings to datasets and training examples: list, scan, and hash images. Nothing is spent."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v.config import DataConfig, RunConfig
from vl2v.data.classes import held_out_folders, part_classes
from vl2v.data.drop import without_dropped
from vl2v.data.folder import DomainFolder, search, unlabelled_images
from vl2v.data.images import ImageDataset, spelling
from vl2v.data.layout import are_parts
from vl2v.data.listing import Listing
from vl2v.data.pixels import Digests, PixelCache
from vl2v.data.scan import FileIndex
from vl2v.data.splits import ExampleRows
from vl2v.data.table import TableListing
from vl2v.data.tables.base import SUFFIXES, is_table, open_table
from vl2v.data.tables.columns import ROLES, find_columns
from vl2v.data.tables.frame import frame_columns
from vl2v.data.tables.imported import columns_asked
from vl2v.data.unlabelled_folder import UnlabelledFolder
from vl2v.data.views import View, make_views
from vl2v.errors import ConfigError
from vl2v.planning.split import Split, check_domains
from vl2v.progress import Progress, warn
from vl2v.sources.registry import find_source
from vl2v_runtime.names import shown


def open_folder(config: DataConfig, *, layout_known: bool = False) -> Listing:
    """Return a reader of images with or without labels, for a folder or a table; see `list_folder`."""
    as_found = config.layout_as_found or layout_known
    if is_table(config.root):
        return _open_table(config, as_found, one_class=layout_known)
    if stated := [role for role in ROLES if getattr(config, role) is not None]:
        step = "pass the table instead of the folder, or drop the columns: the folders are classes and domains"
        step = "save the table as CSV in UTF-8" if config.root.is_file() else step
        raise ConfigError(
            f"{', '.join(f'data.{name}' for name in stated)}: only a table has columns.",
            expected=f"a table that lists images ({', '.join(SUFFIXES)})",
            found=f"{shown(config.root)}, a folder" if config.root.is_dir() else shown(config.root),
            next_step=step,
        )
    if config.classes:
        return UnlabelledFolder(config.root, config.classes, domain_folders=config.domain_folders, as_found=as_found)
    return DomainFolder(
        config.root,
        allow_missing_classes=config.allow_missing_classes,
        as_found=as_found,
        splits=not config.layout_as_found,
        class_first=config.class_first,
        one_class=layout_known,
    )


def _open_table(config: DataConfig, as_found: bool, one_class: bool) -> Listing:
    for key in ("domain_folders", "class_first"):
        if getattr(config, key):
            raise ConfigError(
                f"data.{key} (--{key.replace('_', '-')}) applies to folders only.",
                expected="a column of domains",
                found=f"the table {shown(config.root)}",
                next_step="name the column instead: --domain-column COLUMN",
            )
    return TableListing(
        config.root,
        columns=columns_of(config),
        classes=config.classes,
        allow_missing_classes=config.allow_missing_classes,
        as_found=as_found,
        one_class=one_class,
    )


def with_columns(config: DataConfig) -> DataConfig:
    """Return the settings with the columns that are used, if the images are listed by a table.

    Raises:
        DataError: if the table cannot be read.
        ConfigError: if columns are missing or unknown.
    """
    if not is_table(config.root):
        return config
    names = open_table(config.root).columns
    settings = columns_asked(config.root, columns_of(config))
    columns = find_columns(names, settings, source=config.root, labelled=not config.classes)
    return config.model_copy(update=dict.fromkeys(ROLES) | {"domain": ""} | dict(columns))  # "": a single domain


def columns_of(config: DataConfig) -> dict[str, str | None]:
    """Return the columns that the settings name, by role."""
    return {role: getattr(config, role) for role in ROLES}


def known_columns(run_data: Mapping[str, Any], data: object) -> dict[str, str | None]:
    """Return by role the columns of a run that another table or frame has as well; None for the others and a folder.

    Args:
        data: path of a folder or a table, a dataset of another tool, or a frame.
    """
    columns: Sequence[str] = ()
    if not isinstance(data, str | os.PathLike):
        columns = frame_columns(data)
    elif source := find_source(str(data)):
        columns = source.open(str(data)).columns
    elif is_table(Path(data)) and Path(data).is_file():
        columns = open_table(Path(data)).columns
    return {role: run_data[role] if run_data.get(role) and run_data[role] in columns else None for role in ROLES}


def known_order(run_data: Mapping[str, Any], data: str | Path, classes: Collection[str]) -> bool:
    """Return whether a folder has the class folders above the domains, as the folder of a run had.

    Args:
        classes: names of the student's classes. The level of the folder that has more of them is the classes.
    """
    if not run_data.get("class_first") or not Path(data).is_dir():
        return False
    tops = [top for top in search(Path(data)).subs.values() if top.has_images()]
    if are_parts([top.name for top in tops]):
        tops = [sub for top in tops for sub in top.subs.values() if sub.has_images()]
    spellings = {spelling(name) for name in classes}
    lower = {spelling(sub.name) for top in tops for sub in top.subs.values() if sub.has_images()}
    return bool(lower) and len({spelling(top.name) for top in tops} & spellings) >= len(lower & spellings)


def list_folder(config: DataConfig, *, layout_known: bool = False) -> Listing:
    """List the images of a folder or a table without reading them, which finds wrong paths and domains quickly.

    Args:
        config: the folder or table, and the accepted layouts.
        layout_known: whether a run on it was started before, or a student is evaluated on it. Its layout is then not
            checked again, and one class suffices.

    Raises:
        DataError: if it contains no images in a valid layout.
        ConfigError: if a held-out domain or class is unknown.
    """
    folder = open_folder(config, layout_known=layout_known)
    classes = () if is_table(config.root) else folder.folders
    check_domains(config.held_out, folder.domains, classes=classes, class_first=config.class_first)
    held_out_folders(config.held_out_classes, folder.folders)
    return folder


def read_datasets(
    folder: Listing, config: DataConfig, index: FileIndex, cache: PixelCache | None, progress: Progress
) -> tuple[ImageDataset, ImageDataset | None, ImageDataset | None]:
    """Scan the labelled images, the unlabelled images if there are any, and those of held-out classes if there are any.

    Raises:
        DataError: lists all faults.
    """
    dataset = folder.scan(index=index, cache=cache, skip_bad=config.skip_bad, progress=progress)
    if config.drop is not None:
        allow = config.allow_missing_classes or folder.as_found  # also for a run that was started before
        dataset = without_dropped(dataset, config.drop, progress, allow_missing_classes=allow)
    unlabelled = None
    if config.unlabelled is not None:
        unlabelled = unlabelled_images(
            config.unlabelled,
            image=config.image,
            index=index,
            cache=cache,
            skip_bad=config.skip_bad,
            progress=progress,
        )
    scanned = (dataset,) if unlabelled is None else (dataset, unlabelled)
    if skipped := sum(fault.count for part in scanned for fault in part.skipped):
        warn(progress, f"skipped {skipped:,} bad image{'' if skipped == 1 else 's'} (--skip-bad)")
    for warning in dict.fromkeys(warning for part in scanned for warning in part.warnings):
        warn(progress, warning)
    training, unseen = part_classes(dataset, config.held_out_classes)
    return training, unlabelled, unseen


def read_unlabelled(
    root: Path,
    column: str | None,
    names: Sequence[str],
    index: FileIndex,
    cache: PixelCache | None,
    progress: Progress,
    *,
    skip_bad: bool = False,
) -> ImageDataset:
    """Scan images without labels of known classes; folders with the names of classes are accepted.

    Args:
        root: a folder of any depth, or a table.
        column: column of the paths in a table; None recognises it by its name.
        skip_bad: whether unreadable files are skipped.
    """
    domain = "none" if is_table(root) else None
    config = DataConfig(
        root=root, classes=tuple(names), image=column, domain=domain, skip_bad=skip_bad, layout_as_found=True
    )
    return read_datasets(list_folder(config), config, index, cache, progress)[0]


@dataclass(frozen=True)
class Examples:
    """R training examples, one per image and view.

    Attributes:
        digests: [R, 32] uint8, SHA-256 of the bytes of each view.
        labels: [R] int64, -1 without a label.
        views: [R] int64, number of the view.
        groups: examples of each source domain, then those of all images without labels, if there are any, then those of
            the new images of a repair.
        view: returns the view of an example, which reads the bytes that are sent to the teacher.
    """

    digests: Digests
    labels: NDArray[np.int64]
    views: NDArray[np.int64]
    groups: tuple[ExampleRows, ...]
    view: Callable[[int], View]

    def read(self, i: int) -> bytes:
        """Return the bytes of an example, as they are sent to the teacher."""
        return self.view(i).read()

    @property
    def images(self) -> int:
        """Number of images; further views of an image do not count."""
        return int((self.views == 0).sum())

    @property
    def further_views(self) -> int:
        """Number of examples that are not the image itself."""
        return len(self.views) - self.images


def examples_of(
    config: RunConfig,
    dataset: ImageDataset,
    unlabelled: ImageDataset | None,
    split: Split,
    index: FileIndex,
    cache: PixelCache,
    progress: Progress,
    new: ImageDataset | None = None,
) -> Examples:
    """Return the training examples, and create the views of the settings. `new` contains the images of a repair."""
    parts = [(dataset, split.training[domain], dataset.labels[split.training[domain]]) for domain in split.sources]
    label_parts = len(parts)
    for t, rows in ((dataset, split.rest), (unlabelled, np.arange(len(unlabelled or ()), dtype=np.int64))):
        if t is not None and len(rows):
            parts.append((t, rows, np.full(len(rows), -1, np.int64)))
    ordinary = len(parts)
    if new is not None:
        parts.append((new, np.arange(len(new), dtype=np.int64), new.labels))
    k = config.teacher.kept_views
    digests = [make_views(t, rows, k, config.seed, index, cache, progress) for t, rows, _ in parts]
    ends = np.cumsum([len(rows) * k for _, rows, _ in parts])
    groups = np.split(np.arange(ends[-1], dtype=np.int64), ends[:-1])
    without_labels = groups[label_parts:ordinary]

    def view_of(i: int) -> View:
        part = int(np.searchsorted(ends, i, side="right"))
        source, rows, _ = parts[part]
        row, view = divmod(i - int(ends[part]), k)  # `row` counts from the end
        return View(source.file(int(rows[row])), view, config.seed)

    return Examples(
        digests=np.concatenate([d.reshape(-1, 32) for d in digests]),
        labels=np.concatenate([np.repeat(labels, k) for _, _, labels in parts]),
        views=np.tile(np.arange(k, dtype=np.int64), ends[-1] // k),
        groups=(
            *groups[:label_parts],
            *([np.concatenate(without_labels)] if without_labels else []),
            *groups[ordinary:],
        ),
        view=view_of,
    )
