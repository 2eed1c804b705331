"""Speed of Distill on a CPU relative to forward pass, backward pass and step of the student on random tensors.

Both sides are those of `gpu.py`; validation is left out of both. Memory is measured in processes of their own.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import circumstances, keep
from gpu import Sides, accelerator_of, compare
from vl2v.method.distill import trainable

SIDES = ("ours", "without-swad", "bare")


def peak(a: argparse.Namespace, side: str) -> float:
    """Return the peak resident memory in MB of one side, measured in its own process."""
    command = [sys.executable, __file__, "--memory", side, "--model", a.model, "--size", str(a.size)]
    completed = subprocess.run([*command, "--batch", str(a.batch)], capture_output=True, text=True, check=True)
    return int(completed.stdout.splitlines()[-1]) / 1000


def measure_memory(sides: Sides, side: str) -> None:
    """Run one side for a few steps, ending SWAD segments so that its queues fill, and print the peak."""
    if side != "ours":
        sides.valley = None
    if side == "bare":
        sides.bare_steps(4)
    else:
        for _ in range(4):
            sides.ours_steps(1)
    for step in range(8 if sides.valley else 0):
        assert sides.valley is not None
        sides.valley.update(100 + step, trainable(sides.ours))
        sides.valley.end_segment(100 + step, 1.0 - 0.05 * step if step < 4 else 1.0)
    status = Path("/proc/self/status").read_text()  # getrusage would show the parent's peak, inherited at the fork
    print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def main() -> None:
    """Time both sides in turn for every number of workers, measure memory, and save the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="steps in a block")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--memory", choices=SIDES, help=argparse.SUPPRESS)
    a = parser.parse_args()
    accelerator, rates = accelerator_of("cpu"), dict[str, Any]()
    with tempfile.TemporaryDirectory() as scratch:
        for workers in [0] if a.memory else a.workers:
            sides = Sides(a.model, a.size, a.batch, workers, accelerator, Path(scratch))
            if a.memory:
                measure_memory(sides, a.memory)
                return
            rates[f"workers={workers}"] = compare(sides, a.steps, a.rounds, math.inf)
        weights = sum(p.numel() * p.element_size() for p in trainable(sides.ours).values())
    memory = {f"{side}_peak_mb": peak(a, side) for side in SIDES} | {"one_copy_of_the_weights_mb": weights / 1e6}
    setting = {key: value for key, value in vars(a).items() if key != "memory"}
    figures = {"setting": setting, "rates": rates, "memory": memory}
    keep(f"distill-{a.model}-{a.size}", figures | {"circumstances": circumstances()})


if __name__ == "__main__":
    main()
