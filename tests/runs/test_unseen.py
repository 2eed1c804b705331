"""Classes held out of training: the purchase, the classes of the student, and the evaluation."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from tiny_dataset import DOMAINS, Bench, vl2v

from once import Once
from vl2v.api import add_classes, distill, evaluate, quote
from vl2v.errors import ConfigError, DataError
from vl2v.evaluation.evaluation import Evaluation
from vl2v.evaluation.unseen import Unseen, accuracies
from vl2v.locations import StoragePaths
from vl2v.student.model import Student

SMALL = {
    "student": {"size": 32},
    "align": {"steps": 40},
    "distill": {"steps": 8, "checkpoint_every": 4, "learning_rate": 1e-3},
    "batch_per_domain": 4,
    "device": "cpu",
    "workers": 0,
}
HELD_OUT = {"data": {"held_out_classes": ["Zebra stripe"]}}


def test_accuracies_are_means_over_classes() -> None:
    # Classes 0 and 1 were trained on, 2 and 3 were not.
    logits = np.array(
        [[9, 0, 0, 0], [0, 9, 0, 0], [0, 9, 0, 0], [0, 0, 9, 0], [9, 0, 1, 0], [9, 0, 0, 1], [0, 9, 1, 0]], np.float32
    )
    labels = np.array([0, 0, 1, 2, 2, 2, 3])
    accuracy = accuracies(logits, labels, 2)
    assert accuracy.seen == pytest.approx((1 / 2 + 1) / 2)
    assert accuracy.unseen == pytest.approx((1 / 3 + 0) / 2)
    assert accuracy.alone == pytest.approx((2 / 3 + 0) / 2)
    assert accuracy.harmonic == pytest.approx(2 * 0.75 / 6 / (0.75 + 1 / 6))
    assert accuracies(logits[:3], labels[:3], 2) == Unseen(0.75, None, None, None)


@dataclass
class HeldOutRun:
    folder: Path
    storage: StoragePaths


@pytest.fixture(scope="session")
def held_out_run(bench: Bench, once: Once) -> HeldOutRun:
    def train(root: Path) -> None:
        distill(
            bench.data, bench.teacher, bench.student, out=root / "run", held_out=["rose"], settings=SMALL | HELD_OUT,
            storage=StoragePaths(bench.root / "cache", root / "vectors.sqlite"), report=False,
        )  # fmt: skip

    root = once("held-out-class", train)
    return HeldOutRun(root / "run", StoragePaths(bench.root / "cache", root / "vectors.sqlite"))


def test_the_reported_accuracy_is_that_of_the_student_once_the_class_is_added(
    bench: Bench,
    held_out_run: HeldOutRun,
    tmp_path: Path,
) -> None:
    assert Student.load(held_out_run.folder).classes == ["bar", "blank"]
    unseen = json.loads((held_out_run.folder / "evaluation.json").read_text())["unseen_classes"]
    assert unseen["classes"] == ["zebra stripe"]
    shutil.copytree(held_out_run.folder, tmp_path / "run")
    student = add_classes(tmp_path / "run", ["zebra stripe"], storage=held_out_run.storage)
    right = {}
    for name in student.classes:
        answers = student.predict(sorted((bench.data / "rose" / name.replace(" ", "_")).iterdir()))
        right[name] = answers.count(name) / len(answers)
    row = next(row for row in unseen["domains"] if row["domain"] == "rose")
    assert (row["role"], row["seen_images"], row["unseen_images"]) == ("out-of-domain", 20, 10)
    assert unseen["offset"] == student.offsets[-1]
    assert row["adjusted"]["seen"] == pytest.approx((right["bar"] + right["blank"]) / 2)
    assert row["adjusted"]["unseen"] == pytest.approx(right["zebra stripe"])
    assert row["student"]["unseen"] <= row["adjusted"]["unseen"]
    assert row["student"]["alone"] == 1
    assert row["zero_shot"] == {"seen": 1, "unseen": 1, "harmonic": 1, "alone": 1}
    sources = [row for row in unseen["domains"] if row["role"] == "in-domain"]
    assert [(row["seen_images"], row["unseen_images"]) for row in sources] == [(4, 10), (4, 10)]
    mean = unseen["means"]["in_domain"]["student"]
    assert mean["unseen"] == pytest.approx(np.mean([row["student"]["unseen"] for row in sources]))


def test_the_student_is_the_one_of_a_folder_without_the_class(
    bench: Bench,
    held_out_run: HeldOutRun,
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    shutil.copytree(bench.data, data, ignore=shutil.ignore_patterns("zebra_stripe"))
    storage = StoragePaths(tmp_path / "cache", tmp_path / "vectors.sqlite")
    run = distill(
        data, bench.teacher, bench.student, out=tmp_path / "run", held_out=["rose"], storage=storage, settings=SMALL,
        report=False,
    )  # fmt: skip
    assert run is not None
    one, other = (load_file(r.folder / "student" / "model.safetensors") for r in (held_out_run, run))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)
    evaluation = Evaluation.from_dict(json.loads((held_out_run.folder / "evaluation.json").read_text()))
    assert run.evaluation.rows == evaluation.rows
    assert run.unseen is None


def test_a_run_is_evaluated_on_its_own_folder_before_and_after_its_held_out_class_is_added(
    bench: Bench, held_out_run: HeldOutRun, tmp_path: Path
) -> None:
    reported = Evaluation.from_dict(json.loads((held_out_run.folder / "evaluation.json").read_text()))
    evaluation = evaluate(held_out_run.folder, bench.data, storage=held_out_run.storage)
    assert [(row.role, row.domain, row.images, row.student) for row in evaluation.rows] == [
        (row.role, row.domain, row.images, row.student) for row in reported.rows
    ]
    shutil.copytree(held_out_run.folder, tmp_path / "run")
    add_classes(tmp_path / "run", ["zebra stripe"], storage=held_out_run.storage)
    after = evaluate(tmp_path / "run", bench.data, storage=held_out_run.storage)
    assert [(row.role, row.domain) for row in after.rows] == [(row.role, row.domain) for row in reported.rows]
    new = {domain: len(list((bench.data / domain).glob("zebra_stripe/*"))) for domain in DOMAINS}
    for row, before in zip(after.rows, reported.rows, strict=True):
        assert row.images == before.images + new.get(row.domain, 0), row  # training images do not count


def test_the_quote_counts_the_queries_of_the_evaluation(bench: Bench, tmp_path: Path) -> None:
    storage = StoragePaths(bench.root / "cache", tmp_path / "vectors.sqlite")
    more = {"student": {"spec": bench.student, "size": 32}, "data": {**HELD_OUT["data"], "held_out": ["rose"]}}
    full = quote(bench.data, bench.teacher, storage=storage, settings=more)
    assert full.images == {"training": 32, "evaluation": 28, "held-out classes": 30}
    assert full.texts == 3
    bare = quote(bench.data, bench.teacher, storage=storage, settings=more | {"teacher": {"zero_shot": False}})
    assert (bare.images, bare.texts) == ({"training": 32}, 3)


@pytest.mark.parametrize(
    ("names", "message"),
    [(["zebr"], "zebra stripe"), (["bar", "blank"], "at least two"), (["bar", "blank", "zebra stripe"], "3 of 3")],
)
def test_unknown_held_out_classes_are_refused(bench: Bench, names: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        quote(bench.data, bench.teacher, settings={"data": {"held_out_classes": names}})


def test_a_domain_needs_other_classes(bench: Bench, tmp_path: Path) -> None:
    shutil.copytree(bench.data, tmp_path / "data")
    for name in ("bar", "blank"):
        shutil.rmtree(tmp_path / "data" / "ink" / name)
    settings = {"data": {**HELD_OUT["data"], "allow_missing_classes": True}}
    storage = StoragePaths(tmp_path / "cache", tmp_path / "vectors.sqlite")
    with pytest.raises(DataError, match="ink only has images of held-out classes"):
        quote(tmp_path / "data", bench.teacher, storage=storage, settings=settings)


def test_a_linear_classifier_is_refused(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="erm has a linear classifier"):
        quote(bench.data, bench.teacher, settings={"method": "erm"} | HELD_OUT)


def test_the_command_prints_the_accuracy_on_held_out_classes(
    bench: Bench, held_out_run: HeldOutRun, tmp_path: Path
) -> None:
    done = vl2v(*bench.distill(tmp_path / "run", "--steps", "4", "--align-steps", "4", "--held-out-class", "bar"))
    assert done.returncode == 0, done.stderr
    assert "held-out classes (bar)" in done.stdout
    assert "harmonic mean" in done.stdout
