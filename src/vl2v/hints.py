"""Commands that messages suggest, ready to paste into a shell."""

from __future__ import annotations

import shlex
from pathlib import Path


def resume_command(run: Path | str) -> str:
    """How to go on with a run. Its folder knows everything else: settings, cache, store and what was spent."""
    return f"vl2v distill --out {shlex.quote(str(run))} --resume"
