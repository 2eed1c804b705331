"""The demo: the main job offline, on drawings, with a teacher and a student from pip packages, beside two baselines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl2v.config import merge
from vl2v.demo.comparison import OURS, Comparison
from vl2v.demo.drawings import draw
from vl2v.demo.weights import lite0_checkpoint
from vl2v.job.evaluation import Evaluation
from vl2v.job.folder import RunFolder
from vl2v.job.prepare import Places
from vl2v.method import registry
from vl2v.progress import Progress
from vl2v.student.files import read_json, write_json

TEACHER = "offline:"
HELD_OUT = "line"
SIZE = 96  # pixels; small enough for two cores and a few minutes
SEEDS = (0, 1, 2)
METHODS = ("erm", "kd", OURS)
LABELS = 4  # per class and style: the client has few
SETTINGS: dict[str, Any] = {
    "data": {"held_out": (HELD_OUT,), "labels_per_class": LABELS},
    "student": {"size": SIZE},
    # Every method trains its last layer on kept features first, so that none pays for a random one in the few steps
    # that follow.
    "align": {"steps": 101, "learning_rate": 1e-3},
    "distill": {"steps": 81, "learning_rate": 3e-4, "checkpoint_every": 16},
}
# A step sees 30 images with every method. One that asks the teacher learns from the drawings without a label as well.
WITHOUT_TEACHER: dict[str, Any] = {"batch_per_domain": 10}
WITH_TEACHER: dict[str, Any] = {
    "data": {"rest_unlabelled": True},
    "batch_per_domain": 6,
    "unlabelled_per_batch": 12,
}


@dataclass(frozen=True)
class Demo:
    """What the demo leaves behind.

    Attributes:
        run: the folder of the run with our method and the first seed.
        comparison: of all methods over all seeds.
        figures: where the comparison lies as JSON.
    """

    run: Path
    comparison: Comparison
    figures: Path


def demo(out: Path, progress: Progress) -> Demo:
    """Draw the task, keep `LABELS` labels of each class and style, and distil the teacher into a small student.

    The student is an ImageNet-pretrained efficientnet-lite0, and the style `HELD_OUT` is left out to test.
    The same student is trained with every method of `METHODS` and every seed of `SEEDS`; all share one store, so an
    image is asked for once. Everything lies under `out`. Called again, it goes on where it was stopped, and what is
    finished is not done again.

    Raises:
        MissingExtraError: if the extra ``demo`` is not installed.
        RunError: if a folder of the demo holds something else.
    """
    task = draw(out / "task")
    student = f"timm:tf_efficientnet_lite0@{lite0_checkpoint(out / 'student-weights')}"
    places = Places(out / "cache", out / "vectors.sqlite")
    found: dict[str, list[Evaluation]] = {method: [] for method in METHODS}
    for seed in SEEDS:
        for method in METHODS:
            progress.note(f"{method}, seed {seed}")
            found[method].append(_run(_folder(out, method, seed), task, student, method, seed, places, progress))
    comparison, figures = Comparison.of(found), out / "comparison.json"
    write_json(figures, comparison.to_dict())
    return Demo(_folder(out, OURS, SEEDS[0]), comparison, figures)


def _folder(out: Path, method: str, seed: int) -> Path:
    return out / "run" if (method, seed) == (OURS, SEEDS[0]) else out / "beside" / f"{method}-{seed}"


def _run(
    folder: Path, task: Path, student: str, method: str, seed: int, places: Places, progress: Progress
) -> Evaluation:
    from vl2v.api import distill

    on_disk = RunFolder(folder)
    if on_disk.evaluation_file.exists():
        return Evaluation.from_dict(read_json(on_disk.evaluation_file))
    served = WITH_TEACHER if registry.METHODS[method].asks_teacher else WITHOUT_TEACHER
    settings = merge(SETTINGS, served | {"method": method, "seed": seed})
    resume = on_disk.config_file.exists()
    done = distill(
        task,
        TEACHER,
        student,
        out=folder,
        resume=resume,
        places=places,
        progress=progress,
        settings=settings,
        report=(method, seed) == (OURS, SEEDS[0]),  # the others stand in the comparison alone
    )
    assert done is not None, "the demo runs in one process"
    return done.evaluation
