"""What a student says of classes it never saw, on PACS: two classes held out at a time, target `sketch`, one seed.

Uses the maintainers' folder. The pairs were chosen before any run; the prompts, the bare names, by the source domains'
zero-shot accuracy. A run takes a few minutes of one core.

    python benchmarks/unseen_classes.py --out runs/unseen
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from common import circumstances, keep, shared
from pacs_task import link_images, student, vectors_file
from vl2v.allocator import hold_memory
from vl2v.api import distill
from vl2v.config import merge
from vl2v.job.console import LogLines
from vl2v.job.prepare import Places

TARGET = "sketch"
PAIRS = (("dog", "giraffe"), ("guitar", "house"))
SETTINGS: dict[str, Any] = {
    "student": {"size": 128},
    "teacher": {"prompts": "name"},
    "align": {"steps": 1001, "learning_rate": 1e-3},
    "distill": {"steps": 61, "warmup_steps": 10, "checkpoint_every": 12, "learning_rate": 1e-4},
    "batch_per_domain": 8,
    "device": "cpu",
    "seed": 0,
}


def measure(folder: Path, out: Path, pair: tuple[str, ...]) -> dict[str, Any]:
    """One run without a pair of classes; what it says of them, and the processor time it took."""
    settings = merge(SETTINGS, {"data": {"held_out_classes": pair}})
    start = time.process_time()
    run = distill(
        link_images(folder, out / "task"),
        f"file:{vectors_file(folder, out / 'task')}",
        student(folder),
        out=out / "+".join(pair),
        held_out=[TARGET],
        places=Places(out / "cache", out / "vectors.sqlite"),
        progress=LogLines(),
        settings=settings,
    )
    assert run is not None
    assert run.unseen is not None
    means = run.evaluation.to_dict()["means"]
    return {"unseen": run.unseen.to_dict(), "training_classes": means, "cpu_seconds": time.process_time() - start}


def main() -> None:
    """Run every pair and keep the figures."""
    hold_memory()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/unseen"))
    a = parser.parse_args()
    folder = shared()
    if folder is None:
        raise SystemExit("the maintainers' folder is not beside the checkout")
    runs = {"+".join(pair): measure(folder, a.out.resolve(), pair) for pair in PAIRS}
    keep("unseen_classes", {"setting": {"target": TARGET, **SETTINGS}, "runs": runs, "circumstances": circumstances()})


if __name__ == "__main__":
    main()
