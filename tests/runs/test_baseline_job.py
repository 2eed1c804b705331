"""The baselines are run by the same code: scanned, quoted, trained, averaged, saved and evaluated."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_distill_job import wait_for_lines
from tiny_dataset import Bench, FinishedRun, Runs, metrics, vl2v

import vl2v as package
from fork_server import fork_vl2v

pytestmark = pytest.mark.slow


def full_run(runs: Runs, method: str, *more: str) -> FinishedRun:
    return runs.get("--method", method, *more)


@pytest.mark.parametrize("method", ["erm", "kd", "rise", "miro"])
def test_the_reported_accuracy_is_that_of_the_saved_student(bench: Bench, runs: Runs, method: str) -> None:
    run = full_run(runs, method)
    student = package.load(run.folder)
    assert student.head is None
    files = sorted((bench.data / "rose").rglob("*.png"))
    right = [
        predicted == p.parent.name.replace("_", " ") for predicted, p in zip(student.predict(files), files, strict=True)
    ]
    reported = {row["domain"]: row["student"] for row in run.result["domains"]}
    assert np.mean(right) == reported["rose"]
    saved, state = load_file(run.student), load_file(run.folder / "state.safetensors")
    assert saved["projection.weight"].shape == (3, 96), "weights that only training needs are not saved"
    assert not any(name.startswith(("penalty", "variances")) for name in saved)
    if method != "rise":
        assert not saved["projection.weight"].equal(state["projection/weight"]), "the layer is averaged too"
    with pytest.raises(package.Vl2vError, match="not in the teacher's embedding space"):
        student.add_class("zigzag", np.ones(16))
    with pytest.raises(package.Vl2vError, match="not in the teacher's embedding space"):
        student.embed(files[0])


def test_erm_queries_the_teacher_only_for_the_table(runs: Runs) -> None:
    run = full_run(runs, "erm", "--no-zero-shot")
    assert run.result["image_queries"] == 0
    assert "out_of_domain" in run.result["means"]


@pytest.mark.system
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
def test_a_killed_run_ends_bit_for_bit_like_an_uninterrupted_one(
    bench: Bench, runs: Runs, tmp_path: Path, method: str, lines: int, stages: set[str]
) -> None:
    more = ["--method", method, *(["--align-steps", "0"] if method == "linear-probe" else [])]
    run, killed = runs.get(*more), tmp_path / "killed"
    assert {line["stage"] for line in metrics(run.folder)} == stages
    process = fork_vl2v(*bench.distill(killed, *more))
    wait_for_lines(killed, lines, process)
    process.kill()
    assert vl2v(*bench.flags("distill", "--out", str(killed), "--resume", "--no-report")).returncode == 0
    assert run.student.read_bytes() == (killed / "student" / "model.safetensors").read_bytes()


def test_rise_saves_the_averaged_layers_as_one(runs: Runs) -> None:
    last = full_run(runs, "rise", "--weights", "last")
    saved, state = load_file(last.student), load_file(last.folder / "state.safetensors")
    one = state["projection/classifier.weight"] @ state["projection/projection.weight"]
    torch.testing.assert_close(saved["projection.weight"], one)
    averaged = load_file(full_run(runs, "rise").student)
    assert not averaged["projection.weight"].equal(saved["projection.weight"])


def test_the_anchors_of_rise_are_quoted_bought_and_used(bench: Bench, tmp_path: Path) -> None:
    settings, teacher_file = tmp_path / "rise.yaml", dict(np.load(bench.root / "teacher.npz"))
    anchors = ["a drawing of a {}", "a dark photo of a {}"]
    settings.write_text(json.dumps({"method": "rise", "rise": {"anchors": anchors}}))
    more = [anchor.format(name) for name in ("blank", "bar", "zebra stripe") for anchor in anchors]
    teacher_file["texts"] = np.concatenate([teacher_file["texts"], more])
    embeddings = np.random.default_rng(1).normal(size=(len(more), 16)).astype(np.float32)
    teacher_file["text_embeddings"] = np.concatenate([teacher_file["text_embeddings"], embeddings])
    np.savez(tmp_path / "teacher.npz", **teacher_file)
    arguments = [str(bench.data), "--teacher", f"file:{tmp_path / 'teacher.npz'}", "--config", str(settings), "--json"]
    quoted = vl2v(*bench.flags("quote", *arguments, "--held-out", "rose"))
    assert quoted.returncode == 0, quoted.stderr
    assert json.loads(quoted.stdout)["texts"]["needed"] == 3 + 6
    teacher = ["--method", "rise", "--teacher", f"file:{tmp_path / 'teacher.npz'}", "--json"]
    text_queries = []
    for name, more in (("with", ["--config", str(settings)]), ("without", [])):
        done = vl2v(*bench.distill(tmp_path / name, *teacher, *more), "--store", str(tmp_path / "new.sqlite"))
        assert done.returncode == 0, done.stderr
        text_queries.append(json.loads(done.stdout)["text_queries"])
    assert text_queries == [9, 0]
    one, two = (metrics(tmp_path / run)[-1]["losses"] for run in ("with", "without"))
    assert one != two


def test_the_variances_of_miro_are_in_the_state_and_its_oracle_is_not(runs: Runs) -> None:
    run = full_run(runs, "miro", "--align-steps", "0", "--steps", "1", "--learning-rate", "1e-3")
    state = load_file(run.folder / "state.safetensors")
    extra = {name: tensor for name, tensor in state.items() if name.startswith("penalty/")}
    assert set(extra) == {f"penalty/variances.{i}.b" for i in range(5)}
    first = math.log(math.expm1(0.1 - 1e-5))
    for tensor in extra.values():  # a step of Adam from where both features agree: down by ten times the rate
        torch.testing.assert_close(tensor, torch.full_like(tensor, first - 10 * 1e-3))


@pytest.mark.parametrize("weights", ["swad", "best", "last"])
def test_a_linear_probe_leaves_the_backbone_as_it_was(bench: Bench, runs: Runs, weights: str) -> None:
    more = ["--align-steps", "0", "--weights", weights, "--steps", "60", "--learning-rate", "0.1"]
    run = full_run(runs, "linear-probe", *more)
    saved, original = load_file(run.student), load_file(bench.root / "student.safetensors")
    backbone = {
        name.removeprefix("backbone."): tensor for name, tensor in saved.items() if name.startswith("backbone.")
    }
    assert len(backbone) > 20
    assert all(tensor.equal(original[name]) for name, tensor in backbone.items())
    losses = [loss for line in metrics(run.folder) for loss in line["losses"]]
    assert len(losses) == 60
    assert losses[-1] < losses[0] - 0.1
    assert run.result["means"]["in_domain"]["student"] > 0.5


def test_lp_ft_is_erm_after_a_probe(runs: Runs) -> None:
    one, two = (load_file(full_run(runs, method).student) for method in ("lp-ft", "erm"))
    assert all(tensor.equal(two[name]) for name, tensor in one.items())


@pytest.mark.parametrize(
    ("method", "settings"),
    [("feature", ("--image-weight", "1")), ("text", ("--image-weight", "0")), ("no-align", ("--align-steps", "0"))],
)
def test_ablations_of_the_method_are_the_method_with_other_settings(
    runs: Runs, method: str, settings: tuple[str, ...]
) -> None:
    part = full_run(runs, method, *(settings if method == "no-align" else ()))
    one, two = load_file(part.student), load_file(full_run(runs, "adip", *settings).student)
    assert one.keys() == two.keys()
    assert all(tensor.equal(two[name]) for name, tensor in one.items())
    training = 0 if method == "text" else 48  # the texts of the classes need no image
    assert part.result["image_queries"] == training + 12 + 30


def test_unlabelled_images_are_refused_for_erm(bench: Bench, tmp_path: Path) -> None:
    done = vl2v(*bench.distill(tmp_path / "run", "--method", "erm", "--unlabelled", str(bench.data)))
    assert done.returncode == 2
    assert "learns from labels alone" in done.stderr


def test_the_images_beyond_labels_per_class_are_used_without_labels(bench: Bench, runs: Runs, tmp_path: Path) -> None:
    few = ["--labels-per-class", "2"]
    alone, more = full_run(runs, "adip", *few), full_run(runs, "adip", *few, "--rest-unlabelled")
    labelled, validation, test = 2 * 3 * 2, 2 * 3, 30  # domains, classes, labels
    image_queries = [run.result["image_queries"] for run in (alone, more)]
    assert image_queries == [labelled + validation + test, 2 * 24 + validation + test]
    losses = [metrics(run.folder)[-1]["losses"] for run in (alone, more)]
    assert losses[0] != losses[1]
    refused = vl2v(*bench.distill(tmp_path / "x", "--rest-unlabelled"))
    assert refused.returncode == 2
    assert "labels_per_class" in refused.stderr


@pytest.mark.parametrize(("method", "images", "texts"), [("erm", 0, 0), ("text", 0, 3), ("adip", 48, 3)])
def test_a_run_records_the_queries_that_its_training_needs(runs: Runs, method: str, images: int, texts: int) -> None:
    usage = json.loads((full_run(runs, method).folder / "evaluation.json").read_text())["asked"]
    assert (usage["image_queries"], usage["text_queries"]) == (images, texts), "of any payer, without the zero-shot row"
