"""What `vl2v repair` refuses before anything is spent, on a run that was not trained."""

from __future__ import annotations

import json
import shutil
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tiny_dataset import Bench

from command_line import run_cli
from once import Once
from vl2v.commands.classes import add_classes
from vl2v.commands.final import final
from vl2v.commands.label import label
from vl2v.commands.repair_plan import RepairPlan, plan_repair
from vl2v.errors import ConfigError, RunError, TeacherError
from vl2v.evaluation.evaluation import ClassRecall, DomainScore, Evaluation
from vl2v.locations import StoragePaths

sys.path.append(str(Path(__file__).parents[1] / "trust"))
from solved_run import make_run


@pytest.fixture(scope="session")
def solved(bench: Bench, once: Once) -> Path:
    """A finished run with an evaluation."""

    def make(root: Path) -> None:
        make_run(bench, root / "run", price="1")
        recall = {"bar": ClassRecall(10, 1.0)}
        rows = tuple(DomainScore(name, "in-domain", 30, 0.9, classes=recall) for name in ("ink", "neon"))
        content = Evaluation((*rows, DomainScore("rose", "out-of-domain", 30, 0.8))).to_dict()
        (root / "run" / "evaluation.json").write_text(json.dumps(content))

    return once("repair-solved", make) / "run"


@pytest.fixture
def run(solved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(solved, tmp_path / "run"))


def plan(run: Path, bench: Bench, **more: Any) -> RepairPlan:
    paths = StoragePaths(bench.root / "cache", run.parent / "vectors.sqlite")
    options: dict[str, Any] = {"queries": 5, "budget": "1"} | more
    return plan_repair(run, bench.data / "rose", storage=paths, **options)


def test_the_quote_includes_the_queries_of_training(run: Path, bench: Bench) -> None:
    estimate = plan(run, bench).quote
    images = len(list(bench.data.rglob("*.png")))
    assert estimate.images["repair"] == 5
    assert sum(estimate.images.values()) == images, "the five are images of the run, and paid once"
    assert estimate.images_known == dict.fromkeys(estimate.images, 0), "the store is new"


def test_a_broken_image_of_the_new_site_is_skipped_with_skip_bad(run: Path, bench: Bench, tmp_path: Path) -> None:
    shutil.copytree(bench.data / "rose", tmp_path / "camera")
    (tmp_path / "camera" / "broken.png").write_bytes(b"nothing")
    words = ("repair", run, tmp_path / "camera", "--queries", "5", "--budget", "1", "--quote")
    storage_options = ("--cache", bench.root / "cache", "--store", run.parent / "vectors.sqlite")
    refused = run_cli(*words, *storage_options)
    assert refused.returncode == 3
    assert "or skip it: --skip-bad" in refused.stderr
    done = run_cli(*words, *storage_options, "--skip-bad")
    assert done.returncode == 0, done.stderr
    assert "skipped 1 bad image" in done.stderr


@pytest.mark.parametrize("budget", ["nan", "inf", "-1", "much", float("nan"), -0.5, "1e20"])
def test_a_wrong_budget_is_refused(run: Path, bench: Bench, tmp_path: Path, budget: str | float) -> None:
    with pytest.raises(ConfigError, match="not an amount of money"):
        plan(run, bench, budget=budget)
    with pytest.raises(ConfigError, match="not an amount of money"):
        label(bench.data, bench.teacher, "bar,blank", tmp_path / "labels.csv", budget=budget)
    with pytest.raises(ConfigError, match="not an amount of money"):
        add_classes(run, ["dot"], budget=budget)


@pytest.mark.parametrize("budget", ["0", 0.5, Decimal("0.5"), None])
def test_a_valid_budget_is_accepted(run: Path, bench: Bench, budget: str | float | None) -> None:
    assert plan(run, bench, budget=budget).config.budget == (None if budget is None else Decimal(str(budget)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": {"held_out": ["ink"]}}, "data.held_out"),
        ({"data": {"holdout_fraction": 0.4}}, "data.holdout_fraction"),
        ({"student": {"size": 48}}, "student.size"),
        ({"seed": 3}, "seed"),
    ],
)
def test_settings_that_make_the_students_incomparable_are_refused(
    run: Path, bench: Bench, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match="cannot change") as caught:
        plan(run, bench, settings=settings)
    assert message in str(caught.value.found)


def test_the_teacher_is_opened_with_the_settings_of_the_repair(run: Path, bench: Bench) -> None:
    with pytest.raises(TeacherError, match="batch API"):
        plan(run, bench, settings={"teacher": {"batch_api": True}})


def test_a_run_without_its_images_is_refused(run: Path, bench: Bench) -> None:
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("root: ", "root: /nowhere"))
    with pytest.raises(RunError, match=r"have moved(.|\n)*--data DATA"):
        plan(run, bench)


@pytest.mark.parametrize("damage", [{"domains": [{"domain": "ink"}]}, [], {"domains": [], "means": {}}])
def test_a_damaged_evaluation_is_refused(run: Path, bench: Bench, damage: object) -> None:
    (run / "evaluation.json").write_text(json.dumps(damage))
    with pytest.raises(RunError, match=r"evaluation\.json|no validation images"):
        plan(run, bench)


@pytest.mark.parametrize("classes", [[], {"bar": {}}, {"bar": 1}])
def test_final_refuses_a_damaged_evaluation(run: Path, classes: object) -> None:
    content = json.loads((run / "evaluation.json").read_text())
    content["domains"][0]["classes"] = classes
    (run / "evaluation.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"evaluation\.json cannot be used"):
        final(run, run.parent / "final")


@pytest.mark.parametrize("damage", ["[]", "null", "7", '{"first_run": ', '{"first_run": [1]}'])
def test_a_damaged_record_of_a_repair_is_refused(run: Path, bench: Bench, damage: str) -> None:
    (run.parent / "run-repaired").mkdir()
    (run.parent / "run-repaired" / "repair.json").write_text(damage)
    with pytest.raises(RunError, match=r"repair\.json|another repair"):
        plan(run, bench)
