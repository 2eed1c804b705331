"""Read and write the `trust.json` of a student."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from vl2v.origin import ORIGIN, is_of
from vl2v.writing import write_text
from vl2v_runtime import strict_json
from vl2v_runtime.trust import Trust

FILE = "trust.json"


def content_of(trust: Trust, origin: str) -> dict[str, Any]:
    """Return the content of the `trust.json` of a student with an origin."""
    return trust.to_dict() | ({ORIGIN: origin} if origin else {})


def save(trust: Trust | None, folder: Path, origin: str = "") -> None:
    """Write the `trust.json` of a student, one key per line, or remove it if `trust` is None.

    Args:
        origin: see `vl2v.origin`.
    """
    path = folder / FILE
    if trust is None:
        path.unlink(missing_ok=True)
        return
    lines = [
        f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}"
        for key, value in content_of(trust, origin).items()
    ]
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def load(folder: Path, origin: str = "") -> Trust | None:
    """Read the `trust.json` of a student, or return None if there is none, as in folders of earlier versions.

    Args:
        origin: that of the student; empty accepts the file of any student.

    Raises:
        OSError: if it cannot be read, such as a link to nothing, without which the student would not be calibrated.
        ValueError: if it is damaged, in another format, or of another student.
    """
    path = folder / FILE
    if not os.path.lexists(path):
        return None
    content = strict_json.read(path)
    trust = Trust.from_dict(content)
    if not is_of(content.get(ORIGIN), origin):
        raise ValueError("the trust data of another student")
    return trust
