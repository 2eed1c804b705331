"""What stands beside a student and depends on its classes: exported files, and what was fitted for trust."""

from __future__ import annotations

from pathlib import Path

from vl2v.student.files import CHANGES, read_json, write_json
from vl2v.student.model import Student

EXPORT, NOTE, TRUST = "export", "export.json", "trust.json"
REMARK = "accuracy and parity were measured with the classes before the change"


def exported(run: Path) -> list[Path]:
    """The ONNX files of a run's student.

    Raises:
        MissingExtraError: if there are some and they cannot be changed here.
    """
    files = sorted((run / EXPORT).glob("*.onnx"))
    if files:
        from vl2v.student.export import need_onnx

        need_onnx()
    return files


def change_exports(run: Path, student: Student) -> None:
    """Give a run's exported files the student's classes, without exporting again."""
    for file in exported(run):
        from vl2v.student.export import rewrite_classes

        assert student.head is not None
        rewrite_classes(file, student.classes, student.head.cpu().numpy())
    note = run / EXPORT / NOTE
    if note.is_file():
        last = student.provenance[CHANGES][-1]
        write_json(note, read_json(note) | {CHANGES: {"at": last["at"], "note": REMARK}})


def mark_trust(folder: Path, changes: int) -> None:
    """Note beside the calibration of a student that it was fitted for other classes.

    Args:
        folder: the student's.
        changes: how often classes changed since training.
    """
    file = folder / TRUST
    if file.is_file():
        content = read_json(file)
        write_json(file, content | {"calibration": {**content.get("calibration", {}), CHANGES: changes}})
