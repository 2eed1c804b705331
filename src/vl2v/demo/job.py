"""Run the demo: distillation on drawings, offline, with a packaged teacher and student, and two baselines."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vl2v.demo.comparison import OURS, Comparison
from vl2v.demo.drawings import draw
from vl2v.errors import ConfigError, Interrupted
from vl2v.evaluation.evaluation import Evaluation
from vl2v.faults import reading
from vl2v.interrupts import stop_requests
from vl2v.json_files import read_json, write_json
from vl2v.locations import StoragePaths
from vl2v.method import registry
from vl2v.nested import merge, nested
from vl2v.planning.models import ensure_known
from vl2v.progress import Progress, Recorder
from vl2v.runs.folder import RunFolder
from vl2v.threads import cores, free_memory
from vl2v.training.workers import Workers

TEACHER = "offline:"
STUDENT = "offline:"
HELD_OUT = "line"
SIZE = 96  # pixels; on left-out styles several points better than 64
SEEDS = 1  # default number of seeds
METHODS = ("erm", "kd", OURS)
FIRST = (OURS, 0)  # method and seed of the run that the demo shows
Pair = tuple[str, int]  # method and seed
Shared = tuple[Path, Path, StoragePaths, Mapping[str, Any]]  # folder of the demo, dataset, storage, settings
NUMBER = re.compile(r"\d")
LABELS = 4  # per class and style
SETTINGS: dict[str, Any] = {
    "data": {"held_out": (HELD_OUT,), "labels_per_class": LABELS},
    "student": {"size": SIZE},
    # All methods use the augmentation of the recipe. Each first trains its last layer on cached features, so that no
    # method starts the few following steps from a random layer.
    "recipe": "ood",
    "align": {"steps": 101},
    "distill": {"steps": 450, "checkpoint_every": 50},
    "threads": 1,  # on every machine, so that the students are the same with any number of parallel runs
}
# A step uses 15 images with every method. Of 30, 20, 15 and 10 images with as many images in all, this was best with
# each source style left out in turn. Methods that query the teacher also use the drawings without a label.
WITHOUT_TEACHER: dict[str, Any] = {"batch_per_domain": 5}
WITH_TEACHER: dict[str, Any] = {
    "data": {"rest_unlabelled": True},
    "batch_per_domain": 3,
    "unlabelled_per_batch": 6,
}
# Of 1.5e-4, 3e-4, 6e-4 and 1e-3, the rate that was best for the method with each source style left out in turn.
# Pseudo-labels were half a point worse on these styles.
OF_METHOD: dict[str, dict[str, Any]] = {
    "erm": {"distill.learning_rate": 6e-4},
    "kd": {"distill.learning_rate": 6e-4},
    OURS: {"distill.learning_rate": 6e-4, f"{OURS}.pseudo_labels": 1.0},
}
OWN = nested(dict.fromkeys(("method", "seed", "data.root", "teacher.spec", "student.spec"), "..."))


@dataclass(frozen=True)
class Demo:
    """The result of the demo.

    Attributes:
        run: folder of the run with the method of the recipe and the first seed.
        comparison: comparison of all methods over all seeds.
        figures: path of the comparison as JSON.
    """

    run: Path
    comparison: Comparison
    figures: Path


MEMORY = 2.5 * 2**30  # maximum memory of a run in bytes, measured on Linux


def demo(
    out: Path,
    progress: Progress,
    jobs: int | None = None,
    settings: Mapping[str, Any] | None = None,
    seeds: int = SEEDS,
) -> Demo:
    """Draw the dataset, use `LABELS` labels per class and style, and distil the teacher into a small student.

    The student is an ImageNet-pretrained efficientnet-lite0, and the style `HELD_OUT` is used for testing only. The
    student is trained with every method of `METHODS` and every seed. All runs share one store, so each image is queried
    once. All files are in `out`. A repeated call continues where the last one stopped.

    Args:
        progress: progress callback. For parallel runs, it is only called when they begin and end.
        jobs: number of parallel runs, each in its own process if there are several. None uses as many as cores and
            memory allow on a CPU, which requires a main module that can be imported.
        settings: nested keys of `RunConfig` for all runs, which override those of the demo.
        seeds: number of seeds, at least 1. A later call with more seeds adds their runs.

    Raises:
        ConfigError: if the settings differ from those of an earlier call, or the demo sets them itself.
        Interrupted: if the user stopped the demo. A repeated call continues.
        MissingExtraError: if the extra ``demo`` is not installed.
        RunError: if a folder of the demo contains something else.
    """
    settings = settings or {}
    ensure_known(None, nested({"teacher.spec": TEACHER, "student.spec": STUDENT}))
    _check_settings(out, settings)
    dataset = draw(out / "task")
    storage = StoragePaths(out / "cache", out / "vectors.sqlite")
    pairs = sorted(((m, seed) for seed in range(seeds) for m in METHODS), key=lambda pair: pair != FIRST)
    todo = [pair for pair in pairs if not RunFolder(_folder(out, *pair)).evaluation_file.exists()]
    possible = 1 if torch.cuda.is_available() else max(1, min(cores(), int(free_memory() / MEMORY)))
    shared = out, dataset, storage, settings
    if (count := min(jobs or possible, len(todo))) > 1:
        _run_parallel(shared, todo, count, progress)
    evaluations: dict[str, list[Evaluation]] = {method: [] for method in METHODS}
    for seed in range(seeds):
        for method in METHODS:
            if (method, seed) in todo and count <= 1:
                progress.note(_title((method, seed)))
            evaluations[method].append(_run(*shared, (method, seed), progress))
    comparison, figures = Comparison.of(evaluations), out / "comparison.json"
    write_json(figures, comparison.to_dict())
    return Demo(_folder(out, *FIRST), comparison, figures)


def _check_settings(out: Path, settings: Mapping[str, Any]) -> None:
    """Reject settings of the demo itself and settings that differ from an earlier call, and save them."""
    if merge(OWN, settings) != merge(settings, OWN):
        problem, expected, step = "The demo chooses these settings itself.", f"none of {json.dumps(OWN)}", "drop them"
        raise ConfigError(problem, expected=expected, found=json.dumps(settings), next_step=step)
    file = out / "settings.json"
    earlier = read_json(file) if file.exists() else {} if (out / "task").exists() else settings
    if earlier != settings:
        problem, step = f"The demo in {out} was started with other settings.", "use the same --set, or another --out"
        raise ConfigError(problem, expected=json.dumps(earlier), found=json.dumps(settings), next_step=step)
    if settings:
        out.mkdir(parents=True, exist_ok=True)
        write_json(file, settings)


class _Once(Recorder):
    """Progress of several runs on the same images: a note or warning that another run gave is not shown again.

    Notes are compared up to their first number, warnings without numbers and examples.
    """

    def __init__(self, inner: Progress) -> None:
        super().__init__(inner)
        self._shown: set[str] = set()

    def note(self, text: str) -> None:
        """Show a note that begins with the title of a run."""
        start = text.partition(": ")[2]
        warning = start.startswith("warning")
        start = NUMBER.sub("", start).partition(" such as ")[0] if warning else NUMBER.split(start, maxsplit=1)[0]
        if not start or start not in self._shown:
            self._shown.add(start)
            super().note(text)


def _run_parallel(shared: Shared, todo: list[Pair], count: int, progress: Progress) -> None:
    """Run several runs in parallel. Their evaluations are on disk afterwards."""
    waiting = iter(todo)
    with stop_requests() as stop, Workers(count, stop) as workers, progress.stage("runs", len(todo)) as advance:
        try:
            for _, result in workers.map(partial(_run, *shared), lambda: next(waiting, None), _Once(progress), _title):
                result()
                advance(1)
        except Interrupted as error:
            step = "continue with the same command"
            raise Interrupted("Stopped; the states of the runs are saved.", next_step=step) from error


def _title(pair: Pair) -> str:
    return f"{pair[0]}, seed {pair[1]}"


def _folder(out: Path, method: str, seed: int) -> Path:
    return out / "run" if (method, seed) == FIRST else out / "comparison" / f"{method}-{seed}"


def _run(
    out: Path, dataset: Path, storage: StoragePaths, changes: Mapping[str, Any], pair: Pair, progress: Progress
) -> Evaluation:
    from vl2v.api import distill

    method, seed = pair
    folder = _folder(out, method, seed)
    on_disk = RunFolder(folder)
    if on_disk.evaluation_file.exists():
        with reading(on_disk.evaluation_file, f"delete {folder}, and this run is repeated"):
            return Evaluation.from_dict(read_json(on_disk.evaluation_file))
    defaults = WITH_TEACHER if registry.METHODS[method].queries_teacher else WITHOUT_TEACHER
    defaults = merge(defaults, nested({"method": method, "seed": seed, **OF_METHOD[method]}))
    done = distill(
        dataset,
        TEACHER,
        STUDENT,
        out=folder,
        resume=on_disk.config_file.exists(),
        storage=storage,
        progress=progress,
        settings=merge(merge(SETTINGS, defaults), changes),
        report=pair == FIRST,  # the other runs only appear in the comparison
    )
    assert done is not None, "the demo runs in one process"
    return done.evaluation
