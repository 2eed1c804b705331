"""Read and write the `trust.json` of a student."""

from __future__ import annotations

import json
import os
from pathlib import Path

from vl2v.writing import write_text
from vl2v_runtime import strict_json
from vl2v_runtime.trust import Trust

FILE = "trust.json"


def save(trust: Trust | None, folder: Path) -> None:
    """Write the `trust.json` of a student, one key per line, or remove it if `trust` is None."""
    path = folder / FILE
    if trust is None:
        path.unlink(missing_ok=True)
        return
    lines = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in trust.to_dict().items()]
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def load(folder: Path) -> Trust | None:
    """Read the `trust.json` of a student, or return None if there is none, as in folders of earlier versions.

    Raises:
        OSError: if it cannot be read, such as a link to nothing, without which the student would not be calibrated.
        ValueError: if it is damaged or in another format.
    """
    path = folder / FILE
    return Trust.from_dict(strict_json.read(path)) if os.path.lexists(path) else None
