"""A run of the recipe: resolved, stopped, resumed, saved with its learnt scale, exported, and extended by classes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_dataset import TINY, Bench, bench, environment  # noqa: F401 - a fixture

import vl2v
from vl2v.errors import Interrupted
from vl2v.interrupts import stop_when
from vl2v.locations import StoragePaths
from vl2v.student.model import cosine_logits

SMALL = TINY | {
    "data": {"labels_per_class": 4, "rest_unlabelled": True},
    "distill": {"steps": 9, "passes": 60, "checkpoint_every": 2, "learning_rate": 1e-3},
}


def storage(bench: Bench) -> StoragePaths:
    return StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite")


def distill(bench: Bench, out: Path, resume: bool = False, **settings: Any) -> vl2v.Student:
    arguments: dict[str, Any] = {"out": out, "storage": storage(bench), "report": False}
    if resume:
        run = vl2v.distill(resume=True, **arguments)
    else:
        arguments |= {"settings": SMALL | settings, "held_out": ["rose"], "recipe": "ood"}
        run = vl2v.distill(bench.data, bench.teacher, bench.student, **arguments)
    assert run is not None
    return run.student


def gain(tensors: dict[str, torch.Tensor]) -> float:
    return math.exp(float(tensors["projection/log_gain"]))


def test_a_run_settles_its_settings_and_saves_the_learnt_scale(bench: Bench, tmp_path: Path) -> None:
    student = distill(bench, tmp_path / "run", distill=SMALL["distill"] | {"weights": "last", "refit": False})
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (stored["recipe"], stored["method"], stored["vl2v"]["kl_weight"]) == ("ood", "vl2v", 0.1)
    assert (stored["batch"], stored["batch_per_domain"], stored["unlabelled_per_batch"]) == (None, 2, 4)
    assert (stored["distill"]["steps"], stored["distill"]["passes"]) == (9, None)
    assert stored["distill"]["augment"]["style"] == 0.5
    assert student.provenance["config"]["distill"]["steps"] == 9
    state = load_file(tmp_path / "run" / "state.safetensors")
    assert abs(gain(state) - 1) > 0.01
    assert student.logit_scale == pytest.approx(20 * gain(state), rel=1e-6)
    assert type(student.projection) is torch.nn.Linear
    assert student.projection.weight.equal(state["projection/weight"])
    image = bench.data / "rose" / "bar" / "0.png"
    assert student.head is not None
    logits = student.logits(student.project(image))
    torch.testing.assert_close(logits, cosine_logits(student.project(image), student.head, student.logit_scale))
    student.add_class("zigzag", np.ones(16))
    assert len(student.predict_proba(image)[0]) == 4


@pytest.fixture(scope="module")
def finished(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    distill(bench, out)
    return out


@pytest.mark.parametrize("steps", [5, 17])
def test_a_stopped_run_ends_bit_for_bit_like_an_uninterrupted_one(
    bench: Bench, finished: Path, tmp_path: Path, steps: int
) -> None:
    stopped = tmp_path / "stopped"
    polls = iter(range(100))
    with pytest.raises(Interrupted), stop_when(lambda: next(polls) >= steps):
        distill(bench, stopped)
    stage = json.loads((stopped / "state.json").read_text())["stage"]
    assert stage == ("align" if steps < 12 else "distill")
    distill(bench, stopped, resume=True)
    one, two = ((run / "student" / "model.safetensors").read_bytes() for run in (finished, stopped))
    assert one == two
    scales = [json.loads((run / "student" / "student.json").read_text())["logit_scale"] for run in (finished, stopped)]
    assert scales[0] == scales[1] != 20
    assert (finished / "config.yaml").read_text() == (stopped / "config.yaml").read_text()


@pytest.mark.slow
def test_the_student_is_exported_extended_and_loaded_without_the_teacher(bench: Bench, tmp_path: Path) -> None:
    distill(bench, tmp_path / "run")
    exported = vl2v.export(tmp_path / "run", onnx=True, storage=storage(bench))  # compared with the student
    assert exported is not None
    student = vl2v.add_classes(tmp_path / "run", ["dot"], storage=storage(bench), budget="1")
    assert student.classes[-1] == "dot"
    assert student.logit_scale == vl2v.load(tmp_path / "run").logit_scale != 20


@pytest.mark.system
def test_two_processes_give_the_losses_of_one(bench: Bench, tmp_path: Path) -> None:
    settings, losses = tmp_path / "own.yaml", []
    settings.write_text(yaml.safe_dump(SMALL | {"recipe": "ood"}))
    for count in (1, 2):
        out = tmp_path / str(count)
        arguments = ["distill", str(bench.data), "--teacher", bench.teacher, "--student", bench.student]
        arguments = bench.flags(*arguments, "--held-out", "rose", "--config", str(settings), "--out", str(out))
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
        command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "vl2v", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        lines = (out / "metrics.jsonl").read_text().splitlines()
        losses.append([loss for line in lines for loss in json.loads(line)["losses"]])
        assert json.loads((out / "student" / "student.json").read_text())["logit_scale"] != 20
    assert len(losses[0]) == len(losses[1]) == 21
    assert np.abs(np.subtract(losses[0], losses[1])).max() < 1e-3
