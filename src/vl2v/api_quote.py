"""The public function `quote`, without the imports of training: a quote without a student does not import torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vl2v.cluster.connection import cluster_of
from vl2v.commands.quote import quote_run
from vl2v.config import merge
from vl2v.data.classes import class_names
from vl2v.data.folder import read_mapping
from vl2v.data.tables.frame import Frame
from vl2v.errors import TeacherError
from vl2v.faults import explaining
from vl2v.locations import StoragePaths
from vl2v.nested import mapping, names_of
from vl2v.planning.models import ensure_known
from vl2v.progress import Progress
from vl2v.renamed import old_keywords
from vl2v.settings import make_config
from vl2v.sources.named import imported, with_sources
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
    budget: str | float | None = None,
    storage: StoragePaths | None = None,
    progress: Progress | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    classes: str | Path | Sequence[str] | None = None,
    ray: str | None = None,
) -> Quote:
    """Compute what distilling would cost in queries, money and disk space, without spending anything.

    Args:
        data: the images: a folder, a table or a frame, as in `distill`.
        teacher: name of the teacher (see `vl2v.open_teacher`), or a `Teacher` object. None uses that of the settings.
        student: name of the student; optional. With it, the quote includes training time and disk space.
        held_out: domain or domains that are left out for testing.
        budget: the most to spend. With ``{"when_short": "choose"}`` in `settings`, the quote is for the images that
            the budget covers.
        storage: paths of cache and store.
        progress: receives the progress of the scan.
        config: a YAML file of settings.
        settings: see `make_config`.
        classes: see `distill`.
        ray: a Ray cluster whose workers read the images; see `distill`.

    Raises:
        Vl2vError: states what was expected, what was found, and what to do next.
    """
    (spec, teacher_instance), cluster = opened_or_named(teacher), cluster_of(ray)
    arguments: dict[str, Any] = {
        "data": {"held_out": names_of(held_out) if held_out is not None else None, "classes": classes_of(classes)},
        "teacher": {"spec": spec},
        "student": {"spec": student or None},
        "budget": None if budget is None else str(budget),
    }
    ensure_known(config, merge(settings or {}, arguments), teacher=teacher_instance is None)
    arguments["data"] |= data_of(data, config, merge(settings or {}, arguments), storage, progress)
    final = make_config(config, merge({"student": {}}, merge(settings or {}, arguments)))
    return quote_run(final, storage, progress, teacher_instance, cluster)


def data_of(
    data: str | Path | Frame | None,
    config: str | Path | None,
    settings: Mapping[str, Any],
    storage: StoragePaths | None,
    progress: Progress | None,
) -> dict[str, str | None]:
    """What lists the images, with labels and without, as settings name it; see `vl2v.sources.named.imported`."""
    merged = merge(read_mapping(Path(config)) if config else {}, settings)
    data_values = mapping(merged.get("data") or {}, "The setting data is")
    more = with_sources(
        {"data": {"image": data_values.get("image"), "unlabelled": data_values.get("unlabelled")}}, storage, progress
    )
    source = data_values.get("root") if data is None else data
    table = None if source is None else imported(source, data_values, storage, progress)
    root = str(table) if table else None if data is None else str(data)
    return {"root": root, "unlabelled": more["data"]["unlabelled"]}


def opened_or_named(teacher: str | Teacher | None) -> tuple[str | None, Teacher | None]:
    """The name of a teacher, and the teacher if it is an object."""
    if teacher is None or isinstance(teacher, str):
        return teacher, None
    if not isinstance(teacher, Teacher):
        expected, step = "a name, or an object with the methods of vl2v.Teacher", "see docs/reference/teachers.md"
        raise TeacherError("This is not a teacher.", expected=expected, found=type(teacher).__name__, next_step=step)
    return teacher.describe().identity, teacher


def classes_of(classes: str | Path | Sequence[str] | None) -> tuple[str, ...] | None:
    """Names of classes, read from a file if it is one; None if there are none."""
    return None if classes is None else class_names(classes)
