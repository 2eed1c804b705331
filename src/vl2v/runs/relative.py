"""Relative paths in the settings of a run, which are relative to the folder in which `vl2v distill` was called.

The run folder records that folder, so that other commands can be called from anywhere. If a run was moved or copied
together with its images, the current folder is tried first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vl2v.config import RunConfig
from vl2v.runs.storage import started_in
from vl2v.teacher.prompts import CLIP_80, NAMED


def base_of(run: Path, root: Path) -> Path:
    """Return the folder that the relative paths of a run are relative to.

    Args:
        run: folder of the run.
        root: `data.root` of its settings.

    Returns:
        The recorded folder if `root` is in it, unless the run was moved and `root` is in the current folder as well.
        Otherwise the current folder.
    """
    here, recorded = Path.cwd(), started_in(run)
    if recorded is None or not _exists(recorded.folder / root):
        return here
    if root.is_absolute():
        return recorded.folder
    moved = recorded.run != run.resolve()
    return here if moved and _exists(here / root) else recorded.folder


def located(config: RunConfig, run: Path) -> RunConfig:
    """Return the settings of a run with paths that are valid in the current folder.

    Args:
        config: settings as read from `config.yaml`.
        run: folder of the run.
    """
    base = base_of(run, config.data.root)
    if base == Path.cwd():
        return config
    data: dict[str, Any] = {key: getattr(config.data, key) for key in ("root", "unlabelled", "drop")}
    data = {key: base / path for key, path in data.items() if path is not None and _exists(base / path)}
    teacher, student = config.teacher, config.student
    kind, _, file = teacher.spec.partition(":")
    if kind == "file" and _exists(base / file):
        teacher = teacher.model_copy(update={"spec": f"{kind}:{base / file}"})
    prompts = teacher.prompts
    is_file = isinstance(prompts, str) and prompts not in (*NAMED, CLIP_80) and "{" not in prompts
    if is_file and _exists(base / str(prompts)):
        teacher = teacher.model_copy(update={"prompts": str(base / str(prompts))})
    name, at, file = student.spec.partition("@")
    if at and _exists(base / file):
        student = student.model_copy(update={"spec": f"{name}@{base / file}"})
    parts = {"data": config.data.model_copy(update=data), "teacher": teacher, "student": student}
    return config.model_copy(update=parts)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # the name is too long or not valid
        return False
