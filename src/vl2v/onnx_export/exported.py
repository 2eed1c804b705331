"""Update what depends on a student's classes: exported files and trust data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vl2v.redaction import public_provenance
from vl2v.runs.run_files import read_export
from vl2v.student.files import CHANGES, write_json
from vl2v.student.model import Student

EXPORT, REPORT = "export", "export.json"  # the folder in a run's, and what it says of its files
REMARK = "accuracy and parity refer to the classes before the change"


def exported(run: Path) -> list[Path]:
    """The ONNX files of a run's student.

    Raises:
        MissingExtraError: if there are some and they cannot be changed here.
    """
    files = sorted((run / EXPORT).glob("*.onnx"))
    if files:
        from vl2v.onnx_export.onnx import need_onnx

        need_onnx()
    return files


def change_exports(run: Path, student: Student) -> None:
    """Give a run's exported files the student's classes, without exporting again."""
    for file in exported(run):
        from vl2v.onnx_export.onnx import describe, rewrite_classes

        assert student.head is not None
        described = describe(student, public_provenance(student.provenance))
        rewrite_classes(file, described, student.head.cpu().numpy())
    note = run / EXPORT / REPORT
    if note.is_file():
        last = student.provenance[CHANGES][-1]
        write_json(note, read_export(note) | {CHANGES: {"at": last["at"], "note": REMARK}})


def mark_trust(student: Student) -> None:
    """Note beside a student's calibration how often classes changed since it was fitted, for others than there are."""
    if student.trust is not None:
        changes = len(student.provenance[CHANGES])
        student.trust = replace(student.trust, calibration={**student.trust.calibration, CHANGES: changes})
