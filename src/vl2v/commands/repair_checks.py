"""Checks whether a repair is possible, before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vl2v.config import DataConfig, RunConfig
from vl2v.errors import ConfigError, RunError
from vl2v.evaluation.evaluation import IN_DOMAIN, Evaluation
from vl2v.json_files import read_json
from vl2v.method.registry import METHODS
from vl2v.reports.source import evaluation_of_run
from vl2v.runs.folder import CHECKED, REPAIR, TRAINED, RunFolder
from vl2v.student.files import CHANGES
from vl2v.student.model import Student
from vl2v_runtime.names import shown

LATER = ("queries", "settings")  # keys of `REPAIR` that earlier versions did not write


def ensure_repairable(config: RunConfig, run: Path) -> None:
    """Check that the method of a run can use images without labels."""
    if METHODS[config.method].needs_labels or not METHODS[config.method].queries_teacher:
        able = ", ".join(name for name, method in METHODS.items() if not method.needs_labels and method.queries_teacher)
        raise ConfigError(
            f"The student of {shown(run)} cannot be repaired: its method learns from labels alone.",
            expected=f"a run with one of the methods {able}",
            found=config.method,
            next_step="train with vl2v distill --recipe ood",
        )


def compared_evaluation(folder: RunFolder) -> Evaluation:
    """Return the evaluation of a run.

    Raises:
        RunError: if the run has no validation images on which the students can be compared.
    """
    evaluation, _ = evaluation_of_run(folder)
    if evaluation.mean(IN_DOMAIN, "student") is None:
        raise RunError(
            f"{shown(folder.path)} has no validation images, on which the students are compared.",
            expected="an evaluation on images of the source domains",
            found="none in evaluation.json",
            next_step="train with validation images: data.holdout_fraction, or validation in the column of the split",
        )
    return evaluation


def ensure_comparable(config: RunConfig, before: RunConfig) -> None:
    """Check that two students can be compared on the same validation images.

    Raises:
        ConfigError: names the settings that prevent it.
    """
    parts = {"data": ("data", set(DataConfig.model_fields) - {"drop"}), "student": ("student", {"spec", "size", "fit"})}
    changes = [
        f"{name}.{key}"
        for name, (part, keys) in parts.items()
        for key in sorted(keys)
        if getattr(getattr(config, part), key) != getattr(getattr(before, part), key)
    ]
    changes += [key for key in ("method", "seed") if getattr(config, key) != getattr(before, key)]
    if changes:
        raise ConfigError(
            "A repair cannot change the data, the method or the architecture.",
            expected="settings of the training alone, such as distill.steps",
            found=", ".join(changes),
            next_step="drop them, or train a new run with vl2v distill",
        )


def ensure_same_classes(student: Student, run: Path) -> None:
    """Check that the classes of a student are those of its run, since the new run would not have others."""
    changes = student.provenance.get(CHANGES) or []
    if changes and changes[0]["before"] != student.classes:
        raise ConfigError(
            f"The classes of the student of {shown(run)} were changed after training.",
            expected=f"the classes of the run: {', '.join(map(shown, changes[0]['before']))}",
            found=", ".join(map(shown, student.classes)),
            next_step="repair a copy of the run from before the change, and change the classes of the new run",
        )


def is_begun(out: Path, requested: Mapping[str, Any]) -> bool:
    """Whether a folder contains a repair with these options, to be continued.

    Args:
        requested: the options, by their keys in `REPAIR`. Folders of earlier versions do not have all keys.

    Raises:
        RunError: if it contains a repair of another run, with other images, or with other options.
    """
    if not (out / REPAIR).is_file():
        return False
    record = read_repair(out)
    keys = [key for key in requested if key in record or key not in LATER]
    if differing := [key for key in keys if record.get(key) != requested[key]]:
        raise RunError(
            f"{shown(out)} contains another repair.",
            expected=", ".join(f"{key} {shown(str(record.get(key))[:200])}" for key in differing),
            found=", ".join(f"{key} {shown(str(requested[key])[:200])}" for key in differing),
            next_step="choose another folder: --out FOLDER",
        )
    return all((out / name).is_file() for name in (TRAINED, CHECKED))


def read_repair(out: Path) -> dict[str, Any]:
    """Read the record of a repair in the folder of its run.

    Raises:
        RunError: if the file cannot be read or has invalid content.
    """
    content = read_json(out / REPAIR)
    if not isinstance(content, dict):
        raise RunError(
            f"{shown(out / REPAIR)} is damaged.",
            expected="what vl2v repair wrote",
            found=type(content).__name__,
            next_step="choose another folder: --out FOLDER; purchased embeddings are reused for free",
        )
    return content
