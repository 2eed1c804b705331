"""Accuracy of a student on held-out classes, on PACS: two classes held out at a time, target `sketch`, one seed.

Uses the maintainers' folder. The pairs were chosen before any run; the prompts, the bare names, by the source domains'
zero-shot accuracy. A run takes a few minutes of one core.

    python benchmarks/unseen_classes.py --out runs/unseen
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import circumstances, keep, need_shared
from pacs_dataset import run_without_classes
from vl2v.allocator import keep_freed_memory
from vl2v.json_files import read_json

TARGET = "sketch"
PAIRS = (("dog", "giraffe"), ("guitar", "house"))
SETTINGS: dict[str, Any] = {
    "method": "vl2v",
    "student": {"size": 128},
    "teacher": {"prompts": "name"},
    "align": {"steps": 1001, "learning_rate": 1e-3},
    "distill": {
        "steps": 150,
        "warmup_steps": 20,
        "checkpoint_every": 25,
        "learning_rate": 3e-4,
        "augment": {"style": 0.5},
    },
    "batch_per_domain": 8,
    "device": "cpu",
    "seed": 0,
}


def measure(folder: Path, out: Path, pair: tuple[str, ...]) -> dict[str, Any]:
    """One run without a pair of classes, unless it exists already, and return its results."""
    run = run_without_classes(folder, out, "+".join(pair), TARGET, pair, SETTINGS)
    found = read_json(run / "evaluation.json")
    return {"unseen_classes": found["unseen_classes"], "training_classes": found["means"]}


def main() -> None:
    """Run every pair and save the figures."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/unseen"))
    parser.add_argument("--pair", choices=["+".join(pair) for pair in PAIRS], help="only run this one, keep nothing")
    a = parser.parse_args()
    folder = need_shared()
    if a.pair:
        measure(folder, a.out.resolve(), tuple(a.pair.split("+")))
        return
    runs: dict[str, Any] = {}
    for pair in PAIRS:
        runs["+".join(pair)] = measure(folder, a.out.resolve(), pair)
        setting = {"target": TARGET, **SETTINGS}
        keep("unseen_classes", {"setting": setting, "runs": runs, "circumstances": circumstances()})


if __name__ == "__main__":
    main()
