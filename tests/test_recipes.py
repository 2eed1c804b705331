"""Recipes are defaults of the settings, and their values that depend on the data become numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import vl2v
from vl2v.api import make_config
from vl2v.cli import app
from vl2v.config import RunConfig
from vl2v.errors import ConfigError
from vl2v.planning.resolved_settings import resolved
from vl2v.recipes import OOD, PAPER, RECIPES, with_recipe
from vl2v.validation import parse

BASE: dict[str, Any] = {"data": {"root": "x"}, "teacher": {"spec": "file:x"}, "student": {"spec": "timm:x"}}


def config(**more: Any) -> RunConfig:
    return parse(RunConfig, BASE | more, "the settings")


def test_the_papers_recipe_is_the_default_and_changes_nothing() -> None:
    assert config() == config(recipe=PAPER)
    assert with_recipe(BASE) is BASE
    plain = config()
    d = plain.distill
    assert (plain.recipe, plain.method, d.steps, d.learning_rate) == ("paper", "adip", 5001, 5e-5)
    assert (plain.batch, d.passes, d.augment.style, d.augment.corrupt) == (None, None, 0, 0)
    assert plain.settings_of("vl2v").kl_weight is None


def test_ood_has_the_settings_on_its_page() -> None:
    ood = config(recipe="ood")
    assert (ood.method, ood.align.solver, ood.align.steps, ood.align.learning_rate) == ("vl2v", "adam", 1001, 1e-3)
    d = ood.distill
    assert (d.steps, d.passes, d.minutes, d.learning_rate) == (2400, 60, "auto", 3e-4)
    assert (d.warmup_steps, d.checkpoint_every, d.freeze) == (20, 100, 0.03)
    assert (d.weights, d.augment.style, d.augment.corrupt, ood.batch, ood.batch_per_domain) == ("swad", 0.5, 0, 24, 8)
    assert ood.settings_of("vl2v").kl_weight == 0


def test_settings_of_the_user_override_the_recipe() -> None:
    resolved_config = config(
        recipe="ood", distill={"steps": 700, "augment": {"style": 0.2}}, align={"learning_rate": 2e-3}, seed=3
    )
    assert (resolved_config.distill.steps, resolved_config.distill.passes, resolved_config.distill.learning_rate) == (
        700,
        None,
        3e-4,
    )
    assert (
        resolved_config.distill.augment.style,
        resolved_config.distill.augment.scale,
        resolved_config.align.learning_rate,
    ) == (0.2, 0.7, 2e-3)
    assert resolved_config.align.steps == 1001
    shared = config(recipe="ood", batch_per_domain=4)
    assert (shared.batch, shared.batch_per_domain, shared.unlabelled_per_batch) == (None, 4, 12)
    assert config(recipe="ood", unlabelled_per_batch=5).batch is None
    assert config(recipe="ood", batch=48).batch == 48
    assert [config(recipe="ood", distill={"steps": n}).distill.checkpoint_every for n in (5, 120, 9000)] == [1, 10, 100]
    assert config(recipe="ood", distill={"steps": 120, "checkpoint_every": 60}).distill.checkpoint_every == 60
    assert resolved(config(recipe="ood"), 3, 40, False).distill.checkpoint_every == 25
    assert RECIPES["ood"] == OOD
    assert OOD["distill"]["passes"] == 60, "laying it under must not change it"


@pytest.mark.parametrize(("method", "steps"), [("adip", 1001), ("kd", 0), ("linear-probe", 0), ("no-align", 0)])
def test_other_methods_use_the_recipe_without_stages_that_they_do_not_have(method: str, steps: int) -> None:
    resolved_config = config(recipe="ood", method=method)
    assert (resolved_config.method, resolved_config.first_stage_steps, resolved_config.distill.learning_rate) == (
        method,
        steps,
        3e-4,
    )
    assert resolved_config.distill.augment.style == 0.5


@pytest.mark.parametrize("data", [{"unlabelled": "y"}, {"rest_unlabelled": True, "labels_per_class": 4}])
def test_images_without_labels_learn_their_class_from_the_teacher(data: dict[str, Any]) -> None:
    for settings in ({"method": "vl2v"}, {"recipe": "ood"}):
        without, unlabelled = config(**settings), config(**settings, data={"root": "x", **data})
        assert without.settings_of("vl2v").pseudo_labels == 1
        assert unlabelled.settings_of("vl2v").pseudo_labels == (1 if "unlabelled" in data else 0.9), (
            "may be other objects"
        )
        assert without.settings_of("vl2v").kl_weight == 0
        assert unlabelled.settings_of("vl2v").kl_weight == 0.1
        assert unlabelled.image_weight == 0.5
        assert config(**settings, data={"root": "x", **data}, vl2v={"kl_weight": 0}).settings_of("vl2v").kl_weight == 0
    assert config(method="vl2v", data={"root": "x", "labels_per_class": 4}).settings_of("vl2v").kl_weight == 0


@pytest.mark.parametrize(
    ("settings", "sources", "images", "unlabelled", "batch", "steps"),
    [
        ({}, 3, 4000, False, (8, 12), 2400),
        ({}, 3, 200, False, (8, 12), 500),
        ({}, 3, 40, False, (8, 12), 300),
        ({}, 1, 400, False, (24, 12), 1000),
        ({}, 5, 400, False, (5, 12), 960),
        ({}, 40, 400, False, (1, 12), 600),
        ({}, 3, 200, True, (4, 12), 500),
        ({"batch_per_domain": 4, "unlabelled_per_batch": 8}, 3, 200, True, (4, 8), 600),
        ({"distill": {"steps": 700}}, 3, 40, False, (8, 12), 700),
        ({"distill": {"steps": 200, "passes": 60}}, 3, 40, False, (8, 12), 200),
        ({"batch": 1}, 2, 40000, True, (1, 1), 2400),
    ],
)
def test_steps_and_shares_depend_on_the_data(
    settings: dict[str, Any], sources: int, images: int, unlabelled: bool, batch: tuple[int, int], steps: int
) -> None:
    resolved_config = resolved(config(recipe="ood", **settings), sources, images, unlabelled)
    assert (resolved_config.batch, resolved_config.distill.passes, resolved_config.distill.steps) == (None, None, steps)
    assert (resolved_config.batch_per_domain, resolved_config.unlabelled_per_batch) == batch
    assert resolved(resolved_config, 2, 10, True) == resolved_config, "resolved once for all"
    assert parse(RunConfig, resolved_config.model_dump(mode="json"), "a run") == resolved_config, (
        "as config.yaml has it"
    )


def test_settings_without_a_recipe_are_not_changed() -> None:
    assert resolved(config(), 3, 10, True) == config()


def test_faults_name_the_recipe() -> None:
    with pytest.raises(ConfigError, match=r"recipe: Input should be 'paper' or 'ood' \(found 'best'\)"):
        config(recipe="best")
    with pytest.raises(ConfigError, match=r"(?s)combined with the recipe ood:.*at most 1, found 0.5 and 0.7"):
        config(recipe="ood", distill={"augment": {"corrupt": 0.7}})
    with pytest.raises(ConfigError, match=r"in the settings:\n.*found 0.9 and 0.7"):
        config(distill={"augment": {"style": 0.9, "corrupt": 0.7}})


def test_a_recipe_with_the_settings_file_of_a_run_is_refused(tmp_path: Path) -> None:
    run, settings_file = tmp_path / "config.yaml", tmp_path / "own.yaml"
    run.write_text(config(made_with={"vl2v": "0"}).to_yaml())
    with pytest.raises(ConfigError, match="recipe ood would have no effect"):
        make_config(run, {"recipe": "ood"})
    assert make_config(run, {"recipe": "paper"}).recipe == make_config(run, {}).recipe == "paper"
    settings_file.write_text("distill: {steps: 9}")
    assert make_config(settings_file, BASE | {"recipe": "ood"}).distill.steps == 9


def test_the_settings_file_of_a_run_of_another_method_gets_the_defaults_of_the_recipe(tmp_path: Path) -> None:
    file, more = tmp_path / "config.yaml", {"root": "x", "unlabelled": "y"}
    file.write_text(config(made_with={"vl2v": "0"}, method="adip").to_yaml())
    assert make_config(file, {"method": "vl2v", "data": more}).settings_of("vl2v").kl_weight == 0.1
    assert make_config(file, {"method": "vl2v"}).settings_of("vl2v").kl_weight == 0


def test_command_line_and_python_accept_a_recipe(tmp_path: Path) -> None:
    output = CliRunner().invoke(app, ["distill", "--help"], env={"COLUMNS": "300"}).output
    assert "--recipe" in output
    arguments = ["distill", str(tmp_path), "--teacher", "offline:", "--student", "offline:", "--recipe", "best"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "run")])
    assert "recipe: Input should be 'paper' or 'ood'" in done.output
    with pytest.raises(vl2v.Vl2vError, match="recipe"):
        vl2v.distill(tmp_path, "offline:", "offline:", out=tmp_path / "run", recipe="best")
