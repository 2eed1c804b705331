"""Resolve the data that a command names: datasets of other tools and tables of addresses are imported as tables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vl2v.data.tables.base import is_table, open_table
from vl2v.data.tables.columns import IMAGE_ONLY
from vl2v.data.tables.frame import Frame, write_frame
from vl2v.data.tables.imported import FOLDER
from vl2v.locations import StoragePaths
from vl2v.nested import merge
from vl2v.progress import Progress
from vl2v.sources.importing import import_records, import_table
from vl2v.sources.registry import find_source


def imported(
    data: str | Path | Frame,
    settings: Mapping[str, Any],
    storage: StoragePaths | None,
    progress: Progress | None,
    *,
    labelled: bool = True,
) -> Path | None:
    """Import a frame, a dataset of another tool, or a table of addresses, next to the embedding store.

    Args:
        data: a path, an address or a frame.
        settings: settings of `data`: image, label, domain, split, group and classes, all optional.

    Returns:
        Path of the imported table; None for a folder or a table that is read directly.

    Raises:
        Vl2vError: if the data cannot be read, or columns are missing.
    """
    folder = (storage or StoragePaths()).store.absolute().parent / FOLDER
    if not isinstance(data, str | os.PathLike):
        table = write_frame(data, folder, settings, progress)
        return import_table(table, str(table), folder, settings, progress) or table
    text = str(data)
    if text and (source := find_source(text)):
        records = source.open(text)
        return import_records(
            records, text, folder, settings if labelled else image_only(records.columns, settings), progress
        )
    if not is_table(Path(data)) or not Path(data).is_file():
        return None
    settings = settings if labelled else image_only(open_table(Path(data)).columns, settings)
    return import_table(Path(data), text, folder, settings, progress)


def image_only(columns: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings to read only the images of a table, whose image column may have another name."""
    image = settings.get("image")
    return {**IMAGE_ONLY, "image": image if image in columns else None}


def with_sources(
    settings: Mapping[str, Any], storage: StoragePaths | None, progress: Progress | None
) -> dict[str, Any]:
    """Import `data.root` and `data.unlabelled` where needed, and return settings with the paths of the tables."""
    data = settings.get("data")
    changes: dict[str, str] = {}
    for key in ("root", "unlabelled"):
        source = data.get(key) if isinstance(data, Mapping) else None
        if isinstance(source, str | Path):
            table = imported(source, data or {}, storage, progress, labelled=key == "root")
            changes |= {key: str(table)} if table else {}
    return merge(settings, {"data": changes}) if changes else dict(settings)
