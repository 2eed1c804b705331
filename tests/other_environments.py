"""Environments with other people's programs, made by .ci/peers. A test that needs a missing one is skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("VL2V_VENVS", Path(__file__).parents[1] / ".venvs"))


def python_of(name: str) -> Path:
    """The Python of an environment: ``infinity``, ``clients`` or ``writers``. Skips the test if it is not there."""
    found = ROOT / name / "bin" / "python"
    if not found.is_file():
        pytest.skip(f"there is no {found}; make it with .ci/peers, or name its folder in VL2V_VENVS")
    return found
