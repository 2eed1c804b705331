"""Update exported files and trust data after the classes of a student have changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vl2v.json_files import write_json
from vl2v.origin import check_origin, origin_of
from vl2v.redaction import public_provenance
from vl2v.runs.run_files import read_export
from vl2v.student.files import CHANGES
from vl2v.student.model import Student
from vl2v.trust.negatives import without_similar
from vl2v_runtime.metadata import AGAIN

EXPORT, REPORT = "export", "export.json"  # folder in the run folder, and the report in it
REMARK = "accuracy and parity refer to the classes before the change"


def exported(run: Path, origin: str) -> list[Path]:
    """Return the ONNX files of a run, which can be changed.

    Args:
        origin: that of the student of the run; empty accepts the files of any student.

    Raises:
        MissingExtraError: if there are files, and the packages to change them are missing.
        StudentError, ModelError: if a file cannot be read, or was not exported by vl2v.
        RunError: if a file belongs to another student.
    """
    files = sorted((run / EXPORT).glob("*.onnx"))
    if files:
        from vl2v.onnx_export.onnx import metadata_of, need_onnx

        need_onnx()
        for file in files:
            check_origin(origin_of(metadata_of(file).provenance), origin, file, AGAIN)
    return files


def change_exports(run: Path, student: Student) -> None:
    """Write the current classes of the student to the exported files of a run, without a new export."""
    origin = origin_of(student.provenance)
    for file in exported(run, origin):
        from vl2v.onnx_export.onnx import describe, rewrite_classes

        assert student.head is not None
        metadata = describe(student, public_provenance(student.provenance))
        rewrite_classes(file, metadata, student.head.cpu().numpy(), student.offsets)
    note = run / EXPORT / REPORT
    if note.is_file():
        last = student.provenance[CHANGES][-1]
        write_json(note, read_export(note, origin) | {CHANGES: {"at": last["at"], "note": REMARK}})


def mark_trust(student: Student) -> None:
    """Update the trust data of a student after a change of its classes.

    The calibration records how often the classes have changed since it was fitted. Negative texts that are too similar
    to a new class are removed.
    """
    if student.trust is not None:
        changes = len(student.provenance[CHANGES])
        trust = replace(student.trust, calibration={**student.trust.calibration, CHANGES: changes})
        student.trust = trust if student.head is None else without_similar(trust, student.head.cpu().numpy())
