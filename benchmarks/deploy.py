"""Measure an exported student: speed relative to torch, loss of accuracy, import time, sizes.

    python benchmarks/deploy.py RUN [RUN ...] --cache FOLDER

Times are measured for the first run, alternately in one process. The minimum of all rounds is used, because other work
on the machine can only add to it. With one thread it is the processor's time, with two the clock's. Accuracy is that
of every run, on validation images of its sources and on the domain it held out, which nothing was chosen by.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import circumstances, keep
from vl2v.commands.export import export
from vl2v.config import DataConfig
from vl2v.data.pixels import PixelCache
from vl2v.data.scan import FileIndex
from vl2v.evaluation.evaluation import student_answers
from vl2v.locations import StoragePaths
from vl2v.onnx_export.onnx import to_onnx, write
from vl2v.onnx_export.parity import compare
from vl2v.onnx_export.quantise import quantise
from vl2v.onnx_export.sample import Sample
from vl2v.planning.prepare import list_folder, read_datasets
from vl2v.planning.split import split_dataset
from vl2v.progress import Silent
from vl2v.student.model import Student
from vl2v_runtime.model import FLOAT, INT8, Model
from vl2v_runtime.network import Floats

ROUNDS = 10
IMPORTS = {"nothing": "pass", "vl2v_runtime": "import vl2v_runtime; vl2v_runtime.Model", "torch": "import torch"}


def held_out(student: Student, cache_folder: Path) -> Sample:
    """Return all images of the domains that are unseen for the student."""
    made = student.provenance
    data = DataConfig(**made["config"]["data"])
    seen = student.preprocess
    index, cache = FileIndex(cache_folder / "files.sqlite"), PixelCache(cache_folder, seen.size, seen.fit)
    dataset, *_ = read_datasets(list_folder(data), data, index, cache, Silent())
    rows = np.concatenate(list(split_dataset(dataset, data, made["seed"]).test.values()))
    domains = np.array(dataset.domains)[dataset.domain_of[rows]]
    return Sample(
        "held-out images", cache.map(), cache.slots(dataset.digests[rows]), dataset.labels[rows], domains, rows[:0]
    )


def accuracies(run: Path, out: Path, cache: Path) -> dict[str, Any]:
    """Export a run and measure accuracy on validation and unseen images, largest differences, and sizes."""
    done = export(run, onnx=True, int8=True, out=out, tolerance=100, storage=StoragePaths(cache))
    student = Student.load(run)
    sample = held_out(student, cache)
    truth = student_answers(student, sample.pixels, sample.slots)
    figures: dict[str, Any] = {
        "held_out": student.provenance["config"]["data"]["held_out"],
        "seed": student.provenance["seed"],
    }
    for name, file_report in done.files.items():
        there = compare(Model(out / name), truth, sample)
        figures[name] = {
            "bytes": file_report.bytes,
            "greatest_difference": max(file_report.logits, there.logits),
            "greatest_difference_embedding": max(file_report.embedding or 0.0, there.embedding or 0.0),
            "validation": {
                "images": file_report.images,
                "student": file_report.student,
                "file": file_report.accuracy,
                "lost": file_report.lost,
            },
            "held_out": {"images": there.images, "student": there.student, "file": there.accuracy, "lost": there.lost},
        }
    return figures


def speeds(run: Path, size: int) -> dict[str, Any]:
    """Measure images per second of torch in eager mode, ONNX and INT8 at batch 1 and 32, with one and two threads."""
    student = Student.load(run)
    student.preprocess = replace(student.preprocess, size=size)
    noise = np.random.default_rng(0).normal(size=(32, 3, size, size)).astype(np.float32)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, FLOAT), Path(folder, INT8)
        write(to_onnx(student), files[0])
        quantise(files[0], files[1], [noise])  # ranges differ from those of images, but the arithmetic is the same
        for threads, clock in ((1, time.process_time), (2, time.perf_counter)):
            models = {file.name: Model(file, threads) for file in files}
            for batch in (1, 32):
                least = race(student, models, noise[:batch].copy(), threads, clock)
                figures[f"{threads}_threads_batch_{batch}"] = {
                    "images_per_second": {way: round(batch / seconds, 1) for way, seconds in least.items()},
                    "times_torch": {way: round(least["torch"] / seconds, 2) for way, seconds in least.items()},
                }
    return figures


def race(
    student: Student, models: dict[str, Model], pixels: Floats, threads: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Return the minimum seconds per call over all rounds, after a warm-up call."""
    torch.set_num_threads(threads)

    @torch.no_grad()
    def eager(inputs: torch.Tensor) -> None:
        student.logits(student(inputs))

    ways: dict[str, Callable[[], object]] = {"torch": partial(eager, torch.from_numpy(pixels))}
    ways |= {name: partial(model.run, pixels) for name, model in models.items()}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS + 1):
        for way, work in ways.items():
            for _ in range(10 if len(pixels) == 1 else 1):
                started = clock()
                work()
                seconds[way].append(clock() - started)
    return {way: min(values[1:]) for way, values in seconds.items()}


def imports() -> dict[str, float]:
    """Return the minimum import time of three fresh processes, without the start of Python."""
    least = {}
    for name, code in IMPORTS.items():
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            seconds.append(time.perf_counter() - started)
        least[name] = min(seconds)
    return {name: round(value - least["nothing"], 3) for name, value in least.items() if name != "nothing"}


def main() -> None:
    """Measure and save the figures."""
    parser = argparse.ArgumentParser(description="What a device gains from an exported student.")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--cache", type=Path, required=True)
    flags = parser.parse_args()
    around = circumstances()
    figures: dict[str, Any] = {"import_seconds": imports()}
    size_of_student = Student.load(flags.runs[0]).preprocess.size
    for size in (size_of_student, 224):
        figures[f"speed_{size}_px"] = speeds(flags.runs[0], size)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        figures["runs"] = {run.name: accuracies(run, Path(folder, run.name), flags.cache) for run in flags.runs}
    for part in ("validation", "held_out"):
        figures[f"int8_points_lost_{part}"] = statistics.mean(r[INT8][part]["lost"] for r in figures["runs"].values())
    keep("deploy", figures | {"circumstances": around})


if __name__ == "__main__":
    main()
