"""Update exported files and trust data after the classes of a student have changed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from vl2v.errors import RunError, Vl2vError
from vl2v.json_files import write_json
from vl2v.origin import check_origin, origin_of
from vl2v.redaction import public_provenance
from vl2v.runs.run_files import read_export
from vl2v.student.files import CHANGES
from vl2v.student.model import Student
from vl2v.trust.negatives import without_similar
from vl2v_runtime.errors import ModelError
from vl2v_runtime.metadata import AGAIN
from vl2v_runtime.model import FLOAT, INT8

EXPORT, REPORT = "export", "export.json"  # folder in the run folder, and the report in it
REMARK = "accuracy and parity refer to the classes before the change"


def sort_exports(run: Path, origin: str) -> tuple[list[Path], dict[Path, str]]:
    """Separate the exported files of a run from other ONNX files in its folder `EXPORT`.

    Args:
        origin: that of the student of the run; empty accepts the files of any student.

    Returns:
        The files of the run, and what each of the other files is instead.

    Raises:
        StudentError, ModelError: if a file with a name that `vl2v export` writes cannot be read, or was not exported by
            vl2v.
        RunError: if such a file belongs to another student.
    """
    from vl2v.onnx_export.onnx import metadata_of

    own, others = [], {}
    for file in sorted((run / EXPORT).glob("*.onnx")):
        try:
            found = origin_of(metadata_of(file).provenance)
            check_origin(found, origin, file, AGAIN)
        except (Vl2vError, ModelError) as error:
            if file.name in (FLOAT, INT8):
                raise
            others[file] = error.found
        else:
            if file.name in (FLOAT, INT8) or found == origin or not origin:
                own.append(file)
            else:  # a renamed export of an earlier version, whose student would have no origin either
                others[file] = "no origin"
    return own, others


def changeable_exports(run: Path, origin: str) -> list[Path]:
    """Return the exported files of a run, which can be changed; see `sort_exports`.

    Raises:
        MissingExtraError: if there are files, and the packages to change them are missing.
    """
    own, _ = sort_exports(run, origin)
    if own:
        from vl2v.onnx_export.onnx import need_onnx

        need_onnx()
    return own


def change_exports(run: Path, student: Student) -> None:
    """Write the current classes of the student to the exported files of a run, without a new export."""
    origin = origin_of(student.provenance)
    for file in changeable_exports(run, origin):
        from vl2v.onnx_export.onnx import describe, rewrite_classes

        assert student.head is not None
        metadata = describe(student, public_provenance(student.provenance))
        rewrite_classes(file, metadata, student.head.cpu().numpy(), student.offsets)
    note = run / EXPORT / REPORT
    if note.is_file():
        last = student.provenance[CHANGES][-1]
        with suppress(RunError):  # the report of a run says that it is damaged
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
