"""Accuracy of a student on held-out classes, on PACS, without and with the offset of `vl2v.evaluation.offset`.

Two classes are held out at a time, with the target `sketch` and one seed. The pairs were chosen before any run; the
prompts, the bare names, by the source domains' zero-shot accuracy. A run takes a few minutes of one core. `--shares`
compares shares of the validation images on the students of `reject.py`, each of which lacks one class; nothing is
trained. Uses the maintainers' folder.

    python benchmarks/unseen_classes.py --out runs/unseen
    python benchmarks/unseen_classes.py --shares runs/reject
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import reject
from common import circumstances, keep, need_shared
from pacs_dataset import run_without_classes
from vl2v.allocator import keep_freed_memory
from vl2v.commands.reject import logits_of
from vl2v.evaluation.evaluation import IN_DOMAIN, OUT_OF_DOMAIN
from vl2v.evaluation.offset import new_class_offset
from vl2v.evaluation.predictions import read_predictions
from vl2v.evaluation.unseen import accuracies
from vl2v.json_files import read_json
from vl2v.nested import merge
from vl2v.runs.folder import RunFolder
from vl2v.student.model import Student

TARGET = "sketch"
PAIRS = (("dog", "giraffe"), ("guitar", "house"))
SHARES = (0.0, 0.02, 0.05, 0.1, 0.2)
SETTINGS = merge(reject.SETTINGS, {"student": {"size": 128}, "distill": {"steps": 150}})


def measure(folder: Path, out: Path, pair: tuple[str, ...]) -> dict[str, Any]:
    """One run without a pair of classes, unless it exists already, and return its results."""
    run = run_without_classes(folder, out, "+".join(pair), TARGET, pair, SETTINGS)
    evaluation = read_json(run / "evaluation.json")
    return {"unseen_classes": evaluation["unseen_classes"], "training_classes": evaluation["means"]}


def by_share(run: Path, out: Path, texts: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Return [seen, unseen, harmonic mean] of one student of `reject.py` by share and images."""
    student, saved = Student.load(run), read_predictions(RunFolder(run).predictions_file)
    new = texts[run.name][None] / np.linalg.norm(texts[run.name])
    with np.load(out / f"{run.name}.npz") as arrays:
        rows = {name: arrays[name] for name in arrays.files}

    def logits(name: str) -> NDArray[np.float32]:
        further = student.logit_scale * rows[name] @ new.T
        return np.concatenate([logits_of(student, rows[name]), further], axis=1).astype(np.float32)

    by_share_and_target: dict[str, dict[str, list[float]]] = {}
    known, count = logits("sources"), len(student.classes)
    for share in SHARES:
        offset = new_class_offset(known[:, :count], known[:, count:], share)
        shift = np.float32(offset) * (np.arange(count + 1) == count)
        by_share_and_target[f"{share:g}"] = figures = {}
        for name, role in (("sources", IN_DOMAIN), ("target", OUT_OF_DOMAIN)):
            labels = saved.of(saved.role == role).label
            unseen = logits(f"held-out class, {name}")
            every = np.concatenate([logits(name), unseen]) + shift
            one = accuracies(every, np.concatenate([labels, np.full(len(unseen), count)]), count)
            figures[name] = [one.seen or 0.0, one.unseen or 0.0, one.harmonic or 0.0]
    return by_share_and_target


def compare_shares(folder: Path, out: Path) -> None:
    """Compare shares on all students of `reject.py` that have embeddings, and save the figures."""
    texts = reject.nouns_file(folder, out)
    students = {run.name: by_share(run, out, texts) for run in reject.runs(out) if (out / f"{run.name}.npz").is_file()}
    keep("unseen_shares", {"students": students, "circumstances": circumstances()})
    for share in map("{:g}".format, SHARES):
        means = [np.mean([one[share][name] for one in students.values()], axis=0) for name in ("sources", "target")]
        print(share, *(f"{value:.1f}" for value in 100 * np.concatenate(means)))


def main() -> None:
    """Run every pair and save the figures."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/unseen"))
    parser.add_argument("--shares", type=Path, metavar="RUNS", help="only compare shares on the runs of reject.py")
    parser.add_argument("--pair", choices=["+".join(pair) for pair in PAIRS], help="only run this one, keep nothing")
    a = parser.parse_args()
    folder = need_shared()
    if a.shares:
        compare_shares(folder, a.shares.resolve())
        return
    if a.pair:
        measure(folder, a.out.resolve(), tuple(a.pair.split("+")))
        return
    measured: dict[str, Any] = {}
    for pair in PAIRS:
        measured["+".join(pair)] = measure(folder, a.out.resolve(), pair)
        setting = {"target": TARGET, **SETTINGS}
        keep("unseen_classes", {"setting": setting, "runs": measured, "circumstances": circumstances()})


if __name__ == "__main__":
    main()
