"""The origin of files: an identifier of the student with which they were computed, or of the run that trained it.

A file from the folder of another run is recognised by another origin. Files of earlier versions have none, and are
read without this check. Metrics and training state, which are written before the student exists, have the origin of the
run, which is in its settings. All other files have that of the student.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vl2v.errors import RunError
from vl2v_runtime.names import shown

AGAIN = "copy the file of this run again from its source, or make it again"
ORIGIN = "origin"  # key in the provenance of a student, and in the files that were computed with it


def origin_of(provenance: Mapping[str, Any]) -> str:
    """Return the origin of a student, which added and removed classes do not change; empty in earlier versions."""
    return str(provenance.get(ORIGIN, ""))


def is_of(file_origin: object, origin: str) -> bool:
    """Whether a file was computed with the student of an origin, as far as both origins are known."""
    return not file_origin or not origin or str(file_origin) == origin


def check_origin(file_origin: object, origin: str, path: Path, step: str = AGAIN, owner: str = "student") -> None:
    """Check that a file was computed with a student, or by a run.

    Args:
        file_origin: origin in the file; empty or None if it has none.
        origin: origin of the student or the run; empty if it is not known.
        step: what the user can do, for the message.
        owner: ``student`` or ``run``, for the message.

    Raises:
        RunError: if both are known and differ.
    """
    if not is_of(file_origin, origin):
        raise RunError(
            f"{shown(path)} belongs to another {owner}.",
            expected=f"a file with the origin of this {owner}, {origin[:40]}",
            found=f"the origin {shown(str(file_origin)[:40])}, of a {owner} from another training",
            next_step=step,
        )
