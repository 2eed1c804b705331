"""JSON files of runs and benchmarks: written atomically, read strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vl2v.errors import RunError
from vl2v.writing import write_text
from vl2v_runtime import strict_json
from vl2v_runtime.names import printable


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically: readers see the old file or the new one."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    if printable(text) != text:  # a path that is not UTF-8 is written with escapes
        text = json.dumps(content, indent=2)
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Read plain values from a JSON file of a run or a benchmark.

    Raises:
        RunError: if it cannot be read, is not JSON, or exceeds a limit of `vl2v_runtime.strict_json`.
    """
    try:
        return strict_json.read(path)
    except (OSError, ValueError) as error:
        found = (error.strerror if isinstance(error, OSError) else None) or str(error)
        step = "copy it again from its source, or make it again"
        raise RunError(f"{path} cannot be read.", expected="JSON", found=found, next_step=step) from error
