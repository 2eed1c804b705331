"""How long runs with a time limit take, compared with the limit and with the time that vl2v announces.

    python benchmarks/time_limit.py --scratch time-limit

The data are the drawings of the demo. The time is from the announcement, after the purchase, to the end of the command,
with evaluation and report. Run it on an idle machine.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import vl2v
from common import circumstances, keep, scratch_option
from vl2v.demo.drawings import draw
from vl2v.demo.job import HELD_OUT, STUDENT, TEACHER
from vl2v.locations import StoragePaths
from vl2v.training import duration

MINUTES = (1.0, 2.0)
REPEATS = 2


def main() -> None:
    """Run with every limit, and save the times."""
    root = scratch_option(__doc__)
    data = draw(root / "task")
    run_timed(root, data, 0.1)  # buys the embeddings and fills the caches
    runs = [run_timed(root, data, minutes) for minutes in MINUTES for _ in range(REPEATS)]
    keep("time_limit", {"runs": runs, "circumstances": circumstances()})


def run_timed(root: Path, data: Path, minutes: float) -> dict[str, Any]:
    """Return the limit, the announced and the measured seconds of one run, and what was trained."""
    announced: list[tuple[Any, float]] = []

    def training_time(*arguments: Any) -> Any:
        result = original(*arguments)
        announced.append((result[1], time.perf_counter()))
        return result

    original, out = duration.training_time, root / "run"
    shutil.rmtree(out, ignore_errors=True)
    with patch.object(duration, "training_time", training_time):
        vl2v.distill(
            data, TEACHER, STUDENT, out=out, held_out=[HELD_OUT], settings={"distill": {"minutes": minutes}},
            storage=StoragePaths(root / "cache", root / "vectors.sqlite"),
        )  # fmt: skip
    estimate, started = announced[-1]
    seconds = time.perf_counter() - started
    print(f"limit {60 * minutes:.0f} s, announced {estimate.seconds:.0f} s, took {seconds:.0f} s", flush=True)
    return {
        "limit": 60 * minutes, "announced": round(estimate.seconds, 1), "seconds": round(seconds, 1),
        "steps": estimate.steps, "size": estimate.size,
    }  # fmt: skip


if __name__ == "__main__":
    main()
