"""Environments with third-party programs, created by .ci/peers. Tests that need a missing one are skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("VL2V_VENVS", Path(__file__).parents[1] / ".venvs"))


def python_of(name: str) -> Path:
    """Return the Python of an environment: ``infinity``, ``clients`` or ``writers``. Skip the test if it is missing."""
    python = ROOT / name / "bin" / "python"
    if not python.is_file():
        pytest.skip(f"there is no {python}; make it with .ci/peers, or name its folder in VL2V_VENVS")
    return python
