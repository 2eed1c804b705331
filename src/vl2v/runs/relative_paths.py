"""Relative paths in the settings of a run, which are relative to the folder in which `vl2v distill` was called.

The run folder records that folder, so that other commands can be called from anywhere. If a run was moved or copied
together with its images, the current folder is tried first.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vl2v.config import RunConfig
from vl2v.runs.storage import started_in
from vl2v.teacher.prompts import is_file

FILE_AFTER = {"file": ":", "timm": "@", "open_clip": "/"}  # by kind of teacher or student: where a file begins


def base_of(run: Path, root: Path) -> Path:
    """Return the folder that the relative paths of a run are relative to.

    Returns:
        The recorded folder if `root` is in it, unless the run was moved and `root` is in the current folder as well.
        Otherwise the current folder.
    """
    here, start = Path.cwd(), started_in(run)
    if start is None or not _exists(start.folder / root):
        return here
    if root.is_absolute():
        return start.folder
    moved = start.run != run.resolve()
    return here if moved and _exists(here / root) else start.folder


def located(config: RunConfig, run: Path) -> RunConfig:
    """Return the settings of a run with paths that are valid in the current folder.

    A file that is not in the folder of the images is looked for in the recorded folder as well, since images are moved
    more often than teachers.

    Args:
        config: settings as read from `config.yaml` or the provenance of the student.
    """
    repair = config.repair
    if repair is not None and not _exists(repair.images) and _exists(own := run.absolute() / repair.images.name):
        config = config.model_copy(update={"repair": repair.model_copy(update={"images": own})})  # the run was moved
    here, start = Path.cwd(), started_in(run)
    bases = [base_of(run, config.data.root), *([] if start is None else [start.folder])]
    if all(base == here for base in bases):
        return config

    def locate(path: Path, only_files: bool = False) -> Path:
        base = next((b for b in bases if _exists(b / path) and not (only_files and (b / path).is_dir())), here)
        return path if base == here else base / path

    data = {key: getattr(config.data, key) for key in ("root", "unlabelled", "drop")}
    data = {key: locate(path) for key, path in data.items() if path is not None}
    prompts = config.teacher.prompts
    if is_file(prompts):
        prompts = str(locate(Path(prompts), only_files=True))
    teacher = {"spec": _located_spec(config.teacher.spec, locate), "prompts": prompts}
    return config.model_copy(
        update={
            "data": config.data.model_copy(update=data),
            "teacher": config.teacher.model_copy(update=teacher),
            "student": config.student.model_copy(update={"spec": _located_spec(config.student.spec, locate)}),
        }
    )


def _located_spec(spec: str, locate: Callable[[Path, bool], Path]) -> str:
    """The name of a teacher or a student with the path of the file that it may contain."""
    kind, _, location = spec.partition(":")
    before, sign, file = spec.partition(FILE_AFTER.get(kind, "\0"))
    return f"{before}{sign}{locate(Path(file), True)}" if file and not location.startswith("hf-hub:") else spec


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # the name is too long or not valid
        return False
