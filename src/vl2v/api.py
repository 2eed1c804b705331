"""Public functions: quote, distill, evaluate, export, load, and the classes of a student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from torch import nn

from vl2v.api_quote import classes_of, data_of, opened_or_named, quote
from vl2v.cluster.connection import cluster_of
from vl2v.commands import evaluate as measure
from vl2v.commands.classes import add_classes, list_classes, quote_classes, remove_classes
from vl2v.commands.distill import Run, run
from vl2v.commands.export import Export
from vl2v.commands.export import export as export_student
from vl2v.commands.moved import TRAINING, NewLocations, locate_images
from vl2v.config import DataConfig, RunConfig, merge
from vl2v.data.tables.frame import Frame
from vl2v.errors import ConfigError, StudentError
from vl2v.evaluation.evaluation import Evaluation
from vl2v.faults import explaining
from vl2v.hints import resume_command
from vl2v.locations import StoragePaths
from vl2v.nested import mapping, names_of
from vl2v.planning.models import ensure_known
from vl2v.planning.prepare import known_columns, known_order
from vl2v.progress import Progress
from vl2v.renamed import old_keywords
from vl2v.runs.folder import RunFolder
from vl2v.runs.storage import ensure_storage_writable, storage_of
from vl2v.schema import Metric
from vl2v.settings import make_config
from vl2v.student.backbones import Backbone, from_module
from vl2v.student.model import Student
from vl2v.student.preprocess import Preprocess
from vl2v.student.provenance import data_settings
from vl2v.teacher.base import Teacher
from vl2v.validation import parse
from vl2v.writing import ensure_writable
from vl2v_runtime.fits import SQUASH

__all__ = [
    "add_classes",
    "distill",
    "evaluate",
    "export",
    "list_classes",
    "load",
    "make_config",
    "quote",
    "quote_classes",
    "remove_classes",
]
RESUMED = "state their new location: {} DATA, a folder or a table"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@old_keywords
@explaining
def distill(
    data: str | Path | Frame | None = None,
    teacher: str | Teacher | None = None,
    student: str | nn.Module | Backbone | None = None,
    *,
    out: str | Path,
    held_out: Sequence[str] | None = None,
    budget: str | float | None = None,
    resume: bool = False,
    accept_teacher: bool = False,
    recipe: str | None = None,
    storage: StoragePaths | None = None,
    progress: Progress | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    report: bool = True,
    classes: str | Path | Sequence[str] | None = None,
    ray: str | None = None,
    cpus_per_worker: float = 1.0,
    gpus_per_worker: float = 0.0,
) -> Run | None:
    """Distil a teacher into a student that is accurate on unseen domains, and evaluate it.

    Calls from several threads of one process run one after the other.

    Args:
        data: the images, as one of these: a folder `root/<domain>/<class>/<image>` or `root/<class>/<image>` (with
            `classes`, images at any depth); a table with a row for every image (.csv, .parquet, ...); a
            pandas or polars frame; or a dataset of another tool (``hf:user/name``, a folder saved by the package
            datasets, WebDataset shards, an export of Label Studio or CVAT). Name the columns of a table in `settings`,
            e.g. ``{"data": {"image": "path", "label": "species", "domain": "camera", "split": "fold", "group":
            "clip"}}``. Otherwise, image, label and domain are recognised by common names. Relative paths start from
            the folder of the table; those of a frame start from the current folder.
        teacher: name of the teacher (see `vl2v.open_teacher`), or a `Teacher` object.
        student: ``timm:<name>``, ``timm:<name>@<checkpoint>``, ``offline:``, ``teacher`` for VL2V-SD, a `Backbone`, or
            a module that maps [B, 3, S, S] images to [B, F] features. A module needs
            ``{"student": {"size": ..., "mean": ..., "std": ...}}`` in `settings` unless it uses 224 and ImageNet's.
        out: folder of the run, new or empty.
        held_out: domain or domains that are left out for testing.
        budget: the most to spend, in the teacher's currency.
        resume: continue the run in `out` with its settings. You may raise `budget`, change `tracking`, accept the
            teacher, and, until all images are bought, change `when_short`. The teacher of a run from elsewhere must be
            stated again if it is a file or an address. If its images have moved, state their new path as `data`, and
            those of `data.unlabelled`, `data.drop` and, after a repair, `repair.images` in `settings`.
        accept_teacher: continue if responses look useless: one embedding for different images or texts, a wrong order,
            zero-shot accuracy at chance.
        recipe: set of default settings: ``ood`` (default) or ``paper``; see docs/method.md.
        storage: paths of cache and store; with `resume`, None uses those recorded in the run folder.
        progress: receives the progress of every stage.
        config: a YAML file of settings.
        settings: nested settings that take precedence over `config`, e.g.
            ``{"distill": {"steps": 500}, "seed": 1}``; see docs/configuration.md.
        report: whether to write `report.html` at the end, which takes seconds. `report` can write it later.
        classes: names of the classes of images without labels: a list, ``"cat,dog"``, or a text file with one name per
            line. Results then state the agreement with the teacher. Not needed with `resume`.
        ray: a Ray cluster whose workers query a free teacher on their machine: ``local``, ``auto``, ``host:port`` or
            ``ray://host:port``; see docs/how-to/many-machines.md.
        cpus_per_worker: cores of each worker, above 0.
        gpus_per_worker: GPUs of each worker; with 0.5, two workers share a GPU.

    Returns:
        The finished run. Under torchrun, None in all processes except the first.

    Raises:
        Vl2vError: states what was expected, what was found, and what to do next.
    """
    spec, teacher_instance = opened_or_named(teacher)
    cluster = cluster_of(ray, cpus_per_worker, gpus_per_worker)
    arguments: dict[str, Any] = {
        "data": {"held_out": names_of(held_out) if held_out is not None else None, "classes": classes_of(classes)},
        "teacher": {"spec": spec, "accept": accept_teacher or None},
        "student": {"spec": _student_name(student)},
        "budget": None if budget is None else str(budget),
        "recipe": recipe,
    }
    if resume:
        folder = RunFolder(Path(out))
        folder.config(resuming=True)  # its message is for a new run; that of `locate_images` is for any command
        stated, new_site = _section(settings, "data"), _section(settings, "repair").get("images")
        locations = NewLocations(data, stated.get("unlabelled"), stated.get("drop"), new_site)
        step = RESUMED.format(resume_command(folder.path))
        base = locate_images(folder, locations, storage, progress, step, needed=TRAINING)
        final = _resumed(base, arguments, settings or {})
    else:
        if not Path(out).exists():
            ensure_writable(Path(out))
        ensure_storage_writable(storage or storage_of(Path(out), present=False))
        by_name = student is None or isinstance(student, str)
        ensure_known(config, merge(settings or {}, arguments), teacher=teacher_instance is None, student=by_name)
        arguments["data"] |= data_of(data, config, merge(settings or {}, arguments), storage, progress)
        final = make_config(config, merge(settings or {}, arguments))
    backbone = None if isinstance(student, str) or student is None else _backbone(student, final)
    return run(
        final,
        Path(out),
        resume=resume,
        storage=storage,
        progress=progress,
        teacher=teacher_instance,
        backbone=backbone,
        report=report,
        teacher_spec=spec or _section(settings, "teacher").get("spec"),
        cluster=cluster,
    )


@old_keywords
@explaining
def report(
    folder: str | Path,
    *,
    out: str | Path | None = None,
    storage: StoragePaths | None = None,
    hour_price: str | float | None = None,
) -> Path:
    """Write `report.html` and the values of its figures into the folder of a finished run, or of a benchmark.

    Args:
        folder: folder of a run or a benchmark.
        out: folder to write to, created if missing; None for `folder`.
        storage: paths of cache and store, which contains the ledger; None uses those of the run.
        hour_price: price of an hour of this machine, in the teacher's currency, to compute the student's cost per
            million images.

    Returns:
        Path of the page.

    Raises:
        Vl2vError: if the folder contains neither, or nothing in it is finished.
    """
    from vl2v.api_report import make_report  # slow to import

    store, price = (storage or storage_of(Path(folder))).store, None if hour_price is None else str(hour_price)
    return make_report(Path(folder), store, price, None if out is None else Path(out))


@old_keywords
@explaining
def evaluate(
    student: str | Path | Student,
    data: str | Path | Frame,
    *,
    domains: Sequence[str] = (),
    columns: Mapping[str, str | None] | None = None,
    skip_bad: bool = False,
    class_first: bool | None = None,
    metric: Metric = "accuracy",
    storage: StoragePaths | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a saved student on labelled images: a folder, a table or a frame; see `vl2v.commands.evaluate.evaluate`.

    The `columns` of a table (image, label, domain, split, group) default to those that the student was trained with,
    then to common names. `class_first` (the class folders are above the domains) defaults to the order that the student
    was trained with, if the names of its classes are on that level. The printed table shows the `metric`, accuracy or
    macro; `Evaluation.rows` have both.
    """
    if metric not in get_args(Metric):
        expected, step = " or ".join(get_args(Metric)), "correct metric"
        raise ConfigError("Unknown metric.", expected=expected, found=str(metric), next_step=step)
    named = mapping(columns or {}, "The columns are")
    loaded = student if isinstance(student, Student) else load(student)
    stated_columns = {role: column for role, column in named.items() if column is not None}
    run_data = data_settings(loaded.provenance)
    chosen_columns = known_columns(run_data, data) | stated_columns
    root = data_of(data, None, {"data": chosen_columns}, storage, progress)["root"]
    as_trained = {"layout_as_found": run_data.get("layout_as_found", False), "allow_missing_classes": True}
    if class_first is None:
        class_first = known_order(run_data, str(root), loaded.classes)
    as_trained["class_first"] = class_first
    settings = {"root": root, "skip_bad": skip_bad} | chosen_columns | as_trained
    config = parse(DataConfig, settings, "the settings")
    evaluation = measure.evaluate(loaded, config, domains=names_of(domains), storage=storage, progress=progress)
    return replace(evaluation, metric=metric)


@old_keywords
@explaining
def export(
    folder: str | Path,
    *,
    onnx: bool = False,
    int8: bool = False,
    out: str | Path | None = None,
    data: str | Path | None = None,
    tolerance: float = 0.5,
    backbone: nn.Module | None = None,
    storage: StoragePaths | None = None,
    progress: Progress | None = None,
) -> Export:
    """Export a student to ONNX files that `vl2v_runtime` runs without torch; see `vl2v.commands.export.export`."""
    return export_student(
        Path(folder),
        onnx=onnx,
        int8=int8,
        out=Path(out) if out is not None else None,
        data=Path(str(data_of(data, None, {}, storage, progress)["root"])) if data is not None else None,
        tolerance=tolerance,
        backbone=backbone,
        storage=storage,
        progress=progress,
    )


@explaining
def load(folder: str | Path, backbone: nn.Module | None = None, device: str = "cpu") -> Student:
    """Load a student from its folder, its run folder, or the hub (``hf:user/name``); see `Student.load`."""
    if str(folder).startswith("hf:"):
        from vl2v.hub.pull import fetch

        folder = fetch(str(folder))
    return Student.load(folder, backbone, device)


def _section(settings: Mapping[str, Any] | None, key: str) -> dict[str, Any]:
    """Return the settings below a key; empty if there are none."""
    return mapping(mapping(settings or {}, "The settings are").get(key) or {}, f"The setting {key} is")


def _resumed(base: RunConfig, arguments: Mapping[str, Any], settings: Mapping[str, Any]) -> RunConfig:
    """The settings `base` of a run to be resumed, with those changes that affect no trained weights."""
    teacher = _section(settings, "teacher")
    accept = arguments["teacher"]["accept"] or teacher.get("accept") or None
    changes = {key: settings.get(key) for key in ("tracking", "when_short")}
    stated = {key: teacher.get(key) for key in ("free", "batch_api")}
    changes |= {"budget": arguments["budget"], "teacher": stated | {"accept": accept}}
    return make_config(None, merge(base.model_dump(mode="json"), changes))


def _student_name(student: str | nn.Module | Backbone | None) -> str | None:
    if student is None or isinstance(student, str):
        return student
    return student.recipe.name if isinstance(student, Backbone) else type(student).__qualname__


def _backbone(student: nn.Module | Backbone, config: RunConfig) -> Backbone:
    s = config.student
    if isinstance(student, Backbone):
        differs = s.fit not in (SQUASH, student.preprocess.fit)
        return replace(student, preprocess=replace(student.preprocess, fit=s.fit)) if differs else student
    if not isinstance(student, nn.Module):
        expected, step = "a name, a Backbone or an nn.Module", "see the help of vl2v.distill"
        raise StudentError("This is not a student.", expected=expected, found=type(student).__name__, next_step=step)
    return from_module(student, Preprocess(s.size or 224, s.mean or IMAGENET_MEAN, s.std or IMAGENET_STD, s.fit))
