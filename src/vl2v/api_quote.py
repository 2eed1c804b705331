"""The public function `quote`, without the imports of training: a quote without a student does not import torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vl2v.commands.quote import quote_run
from vl2v.config import merge
from vl2v.data.class_names import class_names
from vl2v.data.folder import read_yaml
from vl2v.data.tables.base import is_table
from vl2v.data.tables.frame import FOLDER, Frame, write_frame
from vl2v.faults import explaining
from vl2v.locations import StoragePaths
from vl2v.progress import Progress
from vl2v.renamed import old_keywords
from vl2v.settings import make_config
from vl2v.sources.importing import import_source, import_table
from vl2v.sources.registry import find_source
from vl2v.teacher.base import Teacher
from vl2v.teacher.purchase.quote import Quote


@old_keywords
@explaining
def quote(
    data: str | Path | Frame,
    teacher: str | Teacher | None = None,
    student: str = "",
    *,
    held_out: Sequence[str] | None = None,
    storage: StoragePaths | None = None,
    progress: Progress | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    classes: str | Path | Sequence[str] | None = None,
) -> Quote:
    """Compute what distilling would cost in queries, money and disk space, without spending anything.

    Args:
        data: the images: a folder, a table or a frame, as in `distill`.
        teacher: its name (see `vl2v.open_teacher`), or an object that is a `Teacher`. None leaves it to the settings.
        student: its name, to compute the disk space of its state; optional.
        held_out: domains that are left out for testing.
        storage: paths of cache and store.
        progress: receives the progress of the scan.
        config: a YAML file of settings.
        settings: see `make_config`.
        classes: see `distill`.

    Raises:
        Vl2vError: states what was expected, what was found, and what to do next.
    """
    spec, opened = opened_or_named(teacher)
    given: dict[str, Any] = {
        "data": {"held_out": tuple(held_out) if held_out is not None else None, "classes": classes_of(classes)},
        "teacher": {"spec": spec},
        "student": {"spec": student or None},
    }
    given["data"]["root"] = root_of(data, config, merge(settings or {}, given), storage, progress)
    return quote_run(
        make_config(config, merge({"student": {}}, merge(settings or {}, given))), storage, progress, opened
    )


def root_of(
    data: str | Path | Frame | None,
    config: str | Path | None,
    settings: Mapping[str, Any],
    storage: StoragePaths | None,
    progress: Progress | None,
) -> str | None:
    """What lists the images, as settings name it.

    A frame, a data set of another tool, and a table of images at addresses are written as a table of files to the
    folder of the embedding store.
    """
    base = read_yaml(Path(config)) if config else {}
    settings_of_data = merge(base if isinstance(base, Mapping) else {}, settings).get("data") or {}
    named = settings_of_data.get("root") if data is None else data
    folder = (storage or StoragePaths()).store.absolute().parent / FOLDER
    if named is None:
        return None
    if isinstance(named, str | os.PathLike):
        source = find_source(str(named)) if str(named) else None
        if source is not None:
            return str(import_source(source, str(named), folder, settings_of_data, progress))
        table = Path(named)
        title = None if data is None else str(data)
    else:
        table = write_frame(named, folder, settings_of_data)
        title = str(table)
    fetched = import_table(table, str(table), folder, settings_of_data, progress) if is_table(table) else None
    return title if fetched is None else str(fetched)


def opened_or_named(teacher: str | Teacher | None) -> tuple[str | None, Teacher | None]:
    """The name of a teacher, and the teacher if it is an object."""
    if teacher is None or isinstance(teacher, str):
        return teacher, None
    return teacher.describe().identity, teacher


def classes_of(classes: str | Path | Sequence[str] | None) -> tuple[str, ...] | None:
    """Names of classes, read from a file if it is one; None if there are none."""
    return None if classes is None else class_names(classes)
