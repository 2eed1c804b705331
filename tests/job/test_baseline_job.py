"""The baselines run through the same job: scanned, quoted, trained, averaged, saved, evaluated."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from test_distill_job import metrics, start, wait_for_lines
from tiny_task import Bench, bench, vl2v  # noqa: F401 - a fixture

import vl2v as package

pytestmark = pytest.mark.slow


def arguments(bench: Bench, out: Path, method: str, *more: str) -> list[str]:
    return [*bench.distill(out), "--method", method, *more]


@pytest.mark.parametrize("method", ["erm", "kd"])
def test_what_is_reported_is_what_is_kept(bench: Bench, tmp_path: Path, method: str) -> None:
    out = tmp_path / "run"
    done = vl2v(*arguments(bench, out, method, "--json"))
    assert done.returncode == 0, done.stderr
    student = package.load(out)
    assert student.head is None
    files = sorted((bench.data / "rose").rglob("*.png"))
    right = [said == p.parent.name.replace("_", " ") for said, p in zip(student.predict(files), files, strict=True)]
    reported = {row["domain"]: row["student"] for row in json.loads(done.stdout)["domains"]}
    assert np.mean(right) == reported["rose"]
    saved, state = load_file(out / "student" / "model.safetensors"), load_file(out / "state.safetensors")
    assert not saved["projection.weight"].equal(state["projection/weight"]), "the layer is averaged too"
    with pytest.raises(package.Vl2vError, match="nothing of the teacher's space"):
        student.add_class("zigzag", np.ones(16))
    with pytest.raises(package.Vl2vError, match="nothing of the teacher's space"):
        student.embed(files[0])


def test_erm_asks_the_teacher_for_nothing_but_the_table(bench: Bench, tmp_path: Path) -> None:
    store = ["--store", str(tmp_path / "new.sqlite")]
    done = vl2v(*arguments(bench, tmp_path / "run", "erm", "--json", "--no-zero-shot", *store))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["image_queries"] == 0
    assert "out_of_domain" in json.loads(done.stdout)["means"]


def test_erm_with_a_probe_first_resumes_bit_for_bit(bench: Bench, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert vl2v(*arguments(bench, whole, "erm")).returncode == 0
    assert {line["stage"] for line in metrics(whole)} == {"align", "distill"}
    process = start(arguments(bench, killed, "erm"))
    wait_for_lines(killed, 18, process)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert vl2v(*bench.flags("distill", "--out", str(killed), "--resume")).returncode == 0
    one, two = (run / "student" / "model.safetensors" for run in (whole, killed))
    assert one.read_bytes() == two.read_bytes()


def test_unlabelled_images_are_of_no_use_to_erm(bench: Bench, tmp_path: Path) -> None:
    done = vl2v(*arguments(bench, tmp_path / "run", "erm", "--unlabelled", str(bench.data)))
    assert done.returncode == 2
    assert "learns from labels alone" in done.stderr


def test_images_beyond_the_labels_are_used_without_them(bench: Bench, tmp_path: Path) -> None:
    few = ["--labels-per-class", "2", "--json"]
    alone = vl2v(*arguments(bench, tmp_path / "alone", "adip", *few, "--store", str(tmp_path / "1.sqlite")))
    store = ["--store", str(tmp_path / "2.sqlite")]
    more = vl2v(*arguments(bench, tmp_path / "more", "adip", *few, "--rest-unlabelled", *store))
    assert alone.returncode == more.returncode == 0, alone.stderr + more.stderr
    bought = [json.loads(run.stdout)["image_queries"] for run in (alone, more)]
    kept, validation, test = 2 * 3 * 2, 2 * 3, 30  # domains, classes, labels
    assert bought == [kept + validation + test, 2 * 24 + validation + test]
    losses = [metrics(tmp_path / run)[-1]["losses"] for run in ("alone", "more")]
    assert losses[0] != losses[1]
    refused = vl2v(*arguments(bench, tmp_path / "x", "adip", "--rest-unlabelled"))
    assert refused.returncode == 2
    assert "labels_per_class" in refused.stderr
