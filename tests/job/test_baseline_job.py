"""The baselines run through the same job: scanned, quoted, trained, averaged, saved, evaluated."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_distill_job import metrics, start, wait_for_lines
from tiny_task import Bench, bench, vl2v  # noqa: F401 - a fixture

import vl2v as package

pytestmark = pytest.mark.slow


def arguments(bench: Bench, out: Path, method: str, *more: str) -> list[str]:
    return [*bench.distill(out), "--method", method, *more]


@pytest.mark.parametrize("method", ["erm", "kd", "rise", "miro"])
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
    assert saved["projection.weight"].shape == (3, 96), "what only training needs is not kept"
    assert not any(name.startswith(("penalty", "variances")) for name in saved)
    if method != "rise":
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


@pytest.mark.parametrize(
    ("method", "lines", "stages"),
    [
        ("erm", 18, {"align", "distill"}),
        ("rise", 18, {"align", "distill"}),
        ("rise", 5, {"align", "distill"}),
        ("miro", 18, {"align", "distill"}),
        ("linear-probe", 2, {"distill"}),
    ],
)
def test_a_killed_run_ends_bit_for_bit_like_a_whole_one(
    bench: Bench, tmp_path: Path, method: str, lines: int, stages: set[str]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    more = ["--align-steps", "0"] if method == "linear-probe" else []
    assert vl2v(*arguments(bench, whole, method, *more)).returncode == 0
    assert {line["stage"] for line in metrics(whole)} == stages
    process = start(arguments(bench, killed, method, *more))
    wait_for_lines(killed, lines, process)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert vl2v(*bench.flags("distill", "--out", str(killed), "--resume")).returncode == 0
    one, two = (run / "student" / "model.safetensors" for run in (whole, killed))
    assert one.read_bytes() == two.read_bytes()


def whole(bench: Bench, out: Path, method: str, *more: str) -> dict[str, Any]:
    done = vl2v(*arguments(bench, out, method, "--json", *more))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_rise_keeps_the_averaged_layers_as_one(bench: Bench, tmp_path: Path) -> None:
    whole(bench, tmp_path / "last", "rise", "--weights", "last")
    saved = load_file(tmp_path / "last" / "student" / "model.safetensors")
    state = load_file(tmp_path / "last" / "state.safetensors")
    one = state["projection/classifier.weight"] @ state["projection/projection.weight"]
    torch.testing.assert_close(saved["projection.weight"], one)
    whole(bench, tmp_path / "swad", "rise")
    averaged = load_file(tmp_path / "swad" / "student" / "model.safetensors")
    assert not averaged["projection.weight"].equal(saved["projection.weight"])


def test_rises_anchors_are_quoted_bought_and_learnt_from(bench: Bench, tmp_path: Path) -> None:
    settings, given = tmp_path / "rise.yaml", dict(np.load(bench.root / "teacher.npz"))
    anchors = ["a drawing of a {}", "a dark photo of a {}"]
    settings.write_text(json.dumps({"method": "rise", "rise": {"anchors": anchors}}))
    more = [anchor.format(name) for name in ("blank", "bar", "zebra stripe") for anchor in anchors]
    given["texts"] = np.concatenate([given["texts"], more])
    vectors = np.random.default_rng(1).normal(size=(len(more), 16)).astype(np.float32)
    given["text_embeddings"] = np.concatenate([given["text_embeddings"], vectors])
    np.savez(tmp_path / "teacher.npz", **given)
    asked = [str(bench.data), "--teacher", f"file:{tmp_path / 'teacher.npz'}", "--config", str(settings), "--json"]
    quoted = vl2v(*bench.flags("quote", *asked, "--held-out", "rose"))
    assert quoted.returncode == 0, quoted.stderr
    assert json.loads(quoted.stdout)["texts"]["needed"] == 3 + 6
    teacher = ["--teacher", f"file:{tmp_path / 'teacher.npz'}", "--store", str(tmp_path / "new.sqlite")]
    found = whole(bench, tmp_path / "with", "rise", *teacher, "--config", str(settings))
    assert found["text_queries"] == 9
    assert whole(bench, tmp_path / "without", "rise", *teacher)["text_queries"] == 0
    one, two = (metrics(tmp_path / run)[-1]["losses"] for run in ("with", "without"))
    assert one != two


def test_miros_variances_are_in_the_state_and_its_oracle_is_not(bench: Bench, tmp_path: Path) -> None:
    whole(bench, tmp_path / "run", "miro", "--align-steps", "0", "--steps", "1", "--learning-rate", "1e-3")
    state = load_file(tmp_path / "run" / "state.safetensors")
    extra = {name: tensor for name, tensor in state.items() if name.startswith("penalty/")}
    assert set(extra) == {f"penalty/variances.{i}.b" for i in range(5)}
    first = math.log(math.expm1(0.1 - 1e-5))
    for tensor in extra.values():  # a step of Adam from where both features agree: down by ten times the rate
        torch.testing.assert_close(tensor, torch.full_like(tensor, first - 10 * 1e-3))


@pytest.mark.parametrize("weights", ["swad", "best", "last"])
def test_a_linear_probe_leaves_the_backbone_as_it_was(bench: Bench, tmp_path: Path, weights: str) -> None:
    more = ["--align-steps", "0", "--weights", weights, "--steps", "60", "--learning-rate", "0.1"]
    found = whole(bench, tmp_path / "run", "linear-probe", *more)
    saved = load_file(tmp_path / "run" / "student" / "model.safetensors")
    given = load_file(bench.root / "student.safetensors")
    backbone = {
        name.removeprefix("backbone."): tensor for name, tensor in saved.items() if name.startswith("backbone.")
    }
    assert len(backbone) > 20
    assert all(tensor.equal(given[name]) for name, tensor in backbone.items())
    losses = [loss for line in metrics(tmp_path / "run") for loss in line["losses"]]
    assert len(losses) == 60
    assert losses[-1] < losses[0] - 0.1
    assert found["means"]["in_domain"]["student"] > 0.5


def test_lp_ft_is_erm_after_a_probe(bench: Bench, tmp_path: Path) -> None:
    whole(bench, tmp_path / "lp-ft", "lp-ft")
    whole(bench, tmp_path / "erm", "erm")
    one, two = (load_file(tmp_path / run / "student" / "model.safetensors") for run in ("lp-ft", "erm"))
    assert all(tensor.equal(two[name]) for name, tensor in one.items())


def test_parts_of_the_method_are_the_method_at_other_settings(bench: Bench, tmp_path: Path) -> None:
    same = {"feature": ["--image-weight", "1"], "text": ["--image-weight", "0"], "no-align": ["--align-steps", "0"]}
    for method, settings in same.items():
        more = settings if method == "no-align" else []
        found = whole(bench, tmp_path / method, method, *more, "--store", str(tmp_path / f"{method}.sqlite"))
        whole(bench, tmp_path / f"{method}-adip", "adip", *settings)
        one, two = (load_file(tmp_path / run / "student" / "model.safetensors") for run in (method, f"{method}-adip"))
        assert one.keys() == two.keys()
        assert all(tensor.equal(two[name]) for name, tensor in one.items())
        training = 0 if method == "text" else 48  # the texts of the classes need no image
        assert found["image_queries"] == training + 12 + 30


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


@pytest.mark.parametrize(("method", "images", "texts"), [("erm", 0, 0), ("text", 0, 3), ("adip", 48, 3)])
def test_a_run_says_what_its_training_needs_of_the_teacher(
    bench: Bench, tmp_path: Path, method: str, images: int, texts: int
) -> None:
    done = vl2v(*bench.distill(tmp_path / "run", "--method", method, "--steps", "2"))
    assert done.returncode == 0, done.stderr
    asked = json.loads((tmp_path / "run" / "evaluation.json").read_text())["asked"]
    assert (asked["image_queries"], asked["text_queries"]) == (images, texts), "whoever paid, and not the zero-shot row"
