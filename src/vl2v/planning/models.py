"""Open the teacher and the student of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl2v.config import RunConfig, merge
from vl2v.data.folder import read_mapping
from vl2v.errors import ConfigError, StudentError
from vl2v.formatting import exact
from vl2v.teacher.base import Price, Teacher
from vl2v.teacher.file import FileTeacher, ensure_file
from vl2v.teacher.prompts import load_templates
from vl2v.teacher.registry import TEACHERS, is_remote, open_teacher

if TYPE_CHECKING:
    from vl2v.student.backbones import Backbone


def open_configured_teacher(config: RunConfig) -> Teacher:
    """Open the teacher of the settings with its price and device.

    Raises:
        TeacherError: if it is unknown or cannot be opened.
        ConfigError: if the price contradicts the kind of teacher, or its prompts cannot be read.
    """
    load_templates(config.teacher.prompts)  # raises before anything takes time
    teacher = config.teacher
    return open_teacher(
        teacher.spec, price=stated_price(config), device=local_device(config), batch_api=teacher.batch_api
    )


def ready_teacher(config: RunConfig, teacher: Teacher | None = None) -> Teacher:
    """Open the teacher of the settings unless one is given, and read its description, before anything takes time.

    A local model is loaded, and a vendor is queried for its description, which is free.

    Raises:
        TeacherError: if it is unknown, or cannot be opened or reached.
        ConfigError: see `open_configured_teacher` and `ensure_fresh_views_possible`.
    """
    opened = teacher or open_configured_teacher(config)
    ensure_fresh_views_possible(config, opened)
    opened.describe()
    return opened


def ensure_known(
    config: str | Path | None, settings: Mapping[str, Any], *, teacher: bool = True, student: bool = True
) -> None:
    """Check the names of the models in settings and their packages, before data are imported. Nothing is loaded.

    Args:
        config: a YAML file of settings.
        settings: nested settings that take precedence.
        teacher: whether the teacher is named; false for an open one.
        student: whether the student is named; false for a module.

    Raises:
        TeacherError: if the teacher is unknown.
        StudentError: if the student is unknown.
        MissingExtraError: if one of them needs a package that is not installed.
    """
    merged = merge(read_mapping(Path(config)) if config else {}, settings)
    named = {part: merged.get(part) for part in ("teacher", "student")}
    specs = {part: value.get("spec") for part, value in named.items() if isinstance(value, Mapping)}
    spec = specs.get("teacher")
    if teacher and isinstance(spec, str) and spec:
        kind, _, rest = spec.partition(":")
        if kind == "file" and rest:
            ensure_file(Path(rest))
        elif kind not in TEACHERS or kind in TEACHERS.built_in:  # that of another package may load a model
            open_teacher(spec)
    spec = specs.get("student")
    if student and isinstance(spec, str) and spec not in ("", "teacher"):
        from vl2v.student.backbones import ensure_known as ensure_student_known  # imports torch

        ensure_student_known(spec)


def open_student(config: RunConfig) -> Backbone:
    """Load the backbone of the settings. For ``teacher``, it is the teacher's own image encoder (VL2V-SD).

    With `repair`, it is the backbone of the earlier run's student.

    Raises:
        StudentError: if it cannot be loaded.
    """
    from vl2v.student.backbones import from_module, load_backbone  # imports torch, which a quote may not need

    if config.repair is not None:
        from vl2v.student.model import Student

        try:
            first_student = Student.load(config.repair.run)
        except StudentError as error:
            raise StudentError(
                "The student from which this repair starts cannot be loaded.",
                expected=f"the earlier run in {config.repair.run}",
                found=error.problem,
                next_step="put that run back, or state its new folder as repair.run in config.yaml",
            ) from error
        return from_module(first_student.backbone, first_student.preprocess, first_student.recipe)
    student = config.student
    spec = config.teacher.spec if student.spec == "teacher" else student.spec
    return load_backbone(spec, size=student.size, mean=student.mean, std=student.std, fit=student.fit)


def stated_price(config: RunConfig) -> Price | None:
    """Return the price that the user states, for embeddings in a file or a vendor with an unknown price.

    Raises:
        ConfigError: if the teacher is of another kind, or a price is stated together with ``free``.
    """
    price = Price(config.teacher.price_per_1000_images, config.teacher.price_per_1000_texts)
    spec, prices = config.teacher.spec, "--price-per-1000-images and --price-per-1000-texts"
    if config.teacher.free and not price.free:
        step = f"drop {prices}, or --free"
        images, texts = exact(price.per_1000_images), exact(price.per_1000_texts)
        found = f"both: {images} for 1000 images, {texts} for 1000 texts, and free"
        raise ConfigError(
            "A teacher cannot have a price and be free.", expected="one of them", found=found, next_step=step
        )
    if (config.teacher.free or not price.free) and not (spec.startswith("file:") or is_remote(spec)):
        raise ConfigError(
            f"{'--free was' if config.teacher.free else 'A price was'} given for a teacher whose price is known.",
            expected="prices and --free only for a file: teacher, or for a vendor that states none",
            found=spec,
            next_step=f"drop {'--free' if config.teacher.free else prices}",
        )
    return Price() if config.teacher.free else None if price.free else price


def local_device(config: RunConfig) -> str | None:
    """Return the device of a teacher on this machine; None if the teacher chooses it."""
    return None if config.device == "auto" else config.device


def ensure_fresh_views_possible(config: RunConfig, teacher: Teacher) -> None:
    """Check that the teacher embeds any augmented image for free if the settings have ``teacher.views: fresh``.

    Raises:
        ConfigError: if it does not.
    """
    if config.teacher.views != "fresh":
        return
    from vl2v.teacher.http.client import HttpTeacher  # imports httpx

    spec, kind = config.teacher.spec, ""
    if is_remote(spec) or isinstance(teacher, HttpTeacher):  # describe() may query a vendor
        kind = "is behind a network"
    elif isinstance(teacher, FileTeacher):
        kind = "is a file, which contains no augmented images"
    elif not teacher.describe().price.free:
        kind = "charges for queries"
    if kind:
        rows = f"{config.distill.steps:,} steps x {config.batch_per_domain} images of every source domain"
        raise ConfigError(
            f"Fresh views are not possible: they need steps x batch queries ({rows}).",
            expected="a free teacher on this machine, e.g. open_clip: or offline:",
            found=f"{spec}, which {kind}",
            next_step="set teacher.views (--views) to a number",
        )
