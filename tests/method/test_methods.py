"""The methods, and settings that contradict them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_baselines import CONTEXT, batch
from typer.testing import CliRunner

from vl2v.cli import app
from vl2v.config import RunConfig
from vl2v.errors import ConfigError
from vl2v.method.loop import total
from vl2v.method.loss import dual_loss
from vl2v.method.registry import BUILT_IN, METHODS
from vl2v.validation import parse


def config(**more: Any) -> RunConfig:
    base: dict[str, Any] = {"data": {"root": "x"}, "teacher": {"spec": "file:x"}, "student": {"spec": "timm:x"}}
    return parse(RunConfig, base | more, "the settings")


def test_every_method_has_its_name() -> None:
    assert [METHODS[name].name for name in BUILT_IN] == list(BUILT_IN)
    assert len({METHODS[name].title for name in BUILT_IN}) == len(BUILT_IN)
    assert METHODS["rise"].title == "RISE"
    with pytest.raises(ConfigError, match=r"method.*'lp-ft'.*found 'best'"):
        config(method="best")


def test_the_help_names_all_methods() -> None:
    output = CliRunner().invoke(app, ["distill", "--help"], env={"COLUMNS": "300"}).output
    assert "vl2v (default), adip (the paper's) or a baseline: " + ", ".join(list(BUILT_IN)[2:]) in output


@pytest.mark.parametrize(("name", "weight"), [("adip", 0.5), ("no-align", 0.5), ("feature", 1.0), ("text", 0.0)])
def test_ablations_omit_a_part_of_the_dual_loss(name: str, weight: float) -> None:
    settings = config(method=name)
    assert settings.image_weight == weight
    b, projected = batch([0, 2, -1, 1]), torch.randn(4, 4)
    objective = METHODS[name].objective(replace(CONTEXT, image_weight=settings.image_weight))
    wanted = dual_loss(projected, b.teacher_image, b.teacher_text, weight, b.labelled)
    assert total(objective(projected, b)).equal(wanted)
    if weight == 1:
        assert float(wanted) == pytest.approx(-float(F.cosine_similarity(projected, b.teacher_image).mean()), abs=1e-6)


def test_each_method_has_its_own_first_stage() -> None:
    with_stage = ("adip", "vl2v", "feature", "text", "lp-ft")
    without = ("no-align", "erm", "linear-probe", "kd", "rise", "miro")
    assert {config(method=name).first_stage_steps for name in with_stage} == {5001}
    assert {config(method=name).first_stage_steps for name in without} == {0}
    assert config(method="erm", align={"steps": 7}).first_stage_steps == 7


def test_settings_of_a_method_survive_writing_and_reading() -> None:
    for name in BUILT_IN:
        settings = config(method=name)
        assert parse(RunConfig, settings.model_dump(mode="json"), "a run") == settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "feature", "image_weight": 0.3}, "fixes image_weight at 1, found 0.3"),
        ({"method": "text", "image_weight": 0.5}, "fixes image_weight at 0, found 0.5"),
        ({"method": "no-align", "align": {"steps": 3}}, "no first stage: align.steps must be 0, found 3"),
        ({"method": "linear-probe", "align": {"steps": 3}}, "no first stage"),
        ({"method": "text", "data": {"root": "x", "unlabelled": "y"}}, "learns from labels alone"),
        ({"method": "miro", "miro": {"weight": -1}}, "miro.weight"),
        ({"method": "rise", "rise": {"temperature": 0}}, "rise.temperature"),
        ({"method": "rise", "rise": {"anchors": ["a sketch of a {}"]}}, "at least two templates"),
    ],
)
def test_settings_that_contradict_the_method_are_faults(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**settings)
    fine = {key: value for key, value in settings.items() if key == "method"}
    config(**fine, align={"steps": 0})


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_encoder_of_the_teacher_is_refused_by_methods_that_cannot_use_it(name: str) -> None:
    white_box: dict[str, Any] = {"teacher": {"spec": "open_clip:a/b"}, "student": {"spec": "teacher"}}
    if name in ("no-align", "rise"):
        with pytest.raises(ConfigError, match=rf"{name} does not support the student 'teacher'.*adip"):
            config(method=name, **white_box)
    else:
        assert config(method=name, **white_box).method == name
