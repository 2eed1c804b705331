"""Commands that messages suggest, ready to paste into a shell."""

from __future__ import annotations

import shlex
from pathlib import Path


def resume_command(run: Path | str) -> str:
    """Return the command that resumes a run. Settings, cache, store and spending are recorded in its folder."""
    return f"vl2v distill --out {shlex.quote(str(run))} --resume"
