"""The GPU benchmark runs, with a tiny network on the CPU."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_cpu_and_gpu_are_timed() -> None:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    row = re.search(r"\| test_resnet \| 6 \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", done.stdout)
    assert row, done.stdout
    assert all(float(cell) > 0 for cell in row.groups())
