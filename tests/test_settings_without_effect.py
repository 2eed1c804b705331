"""Values that YAML or pydantic would silently change, and settings and options without effect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from command_line import run_cli
from vl2v.cli.settings import settings_of
from vl2v.config import RunConfig
from vl2v.errors import ConfigError
from vl2v.options import fields_of
from vl2v.planning.effects import RULES, without_effect
from vl2v.planning.models import stated_price
from vl2v.settings import make_config
from vl2v.yaml_keys import Settings
from vl2v_runtime.__main__ import main

BASE = {"data.root": "photos", "teacher.spec": "offline:", "student.spec": "offline:"}


def config_of(*assigned: str) -> RunConfig:
    return make_config(None, settings_of(assigned, BASE))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", "010"),
        ("0x10", "0x10"),
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("10", 10),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("1_000", 1000),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1.5e3", 1500.0),
        ("-.inf", float("-inf")),
        ("1e3", "1e3"),
        ("yes", True),
        ("-", [None]),
    ],
)
def test_numbers_in_yaml_are_read_as_numbers(text: str, value: object) -> None:
    assert yaml.load(text, Settings) == value


def test_settings_written_by_a_run_are_read_unchanged() -> None:
    values = {"a": ["010", "1:30", "0x10", "1e3", 10, 0.5, 1e-7, 1e20, True, None, "yes", "-", 2**40]}
    assert yaml.load(yaml.safe_dump(values), Settings) == values


def test_a_number_with_a_leading_zero_is_decimal() -> None:
    assert config_of("seed=010").seed == 10
    with pytest.raises(ConfigError, match="1:30"):
        config_of("distill.minutes=1:30")


@pytest.mark.parametrize("assigned", ["seed=yes", "seed=true", "distill.steps=on", "budget=no", "image_weight=no"])
def test_true_is_not_accepted_as_a_number(assigned: str) -> None:
    with pytest.raises(ConfigError, match="yes, no, on and off"):
        config_of(assigned)


def test_true_is_accepted_for_flags() -> None:
    assert config_of("data.skip_bad=yes").data.skip_bad


@pytest.mark.parametrize(
    ("assigned", "expected"),
    [
        (["method=linear-probe", "distill.freeze=0.5"], ["--freeze"]),
        (["method=erm", "teacher.views=3", "image_weight=0.3"], ["--views", "--image-weight"]),
        (["when_short=choose"], ["--when-short"]),
        (["method=linear-probe"], []),
        (["method=linear-probe", "recipe=paper"], []),
        (["method=lp-ft", "distill.freeze=0.5"], []),
        (["method=text"], []),
        (["image_weight=0.3", "teacher.views=3", "distill.freeze=0.5"], []),
        (["data.classes=[cat, dog]"], []),
        (["when_short=choose", "budget=1"], []),
        (["kd.temperature=3", "rise.distance=2"], ["kd.temperature", "rise.distance"]),
        (["method=kd", "kd.temperature=3"], []),
        (["method=linear-probe", "distill.augment.style=0.3"], ["distill.augment.style"]),
        (["align.steps=0", "align.learning_rate=0.1"], ["align.learning_rate"]),
        (["align.solver=ridge", "align.steps=7", "align.ridge=0.1"], ["align.steps (--align-steps)"]),
        (["align.ridge=0.1", "align.ema_decay=0.9"], ["align.ridge", "align.ema_decay"]),
        (["align.ridge=0.1", "data.balance=auto"], []),
        (["distill.weights=last", "distill.swad.n_converge=2"], ["distill.swad.n_converge"]),
        (["distill.weights=last", "distill.swad.n_converge=2", "measure.weights=[swad]"], []),
        (["batch=8", "batch_per_domain=2"], ["batch_per_domain (--batch-per-domain)"]),
        (["batch_per_domain=2"], []),
        (["unlabelled_per_batch=3"], ["unlabelled_per_batch"]),
        (["unlabelled_per_batch=3", "data.unlabelled=more"], []),
        (["vl2v.pseudo_labels=0.8"], ["vl2v.pseudo_labels has no effect if all images have labels"]),
        (["vl2v.pseudo_labels=0.8", "data.unlabelled=more"], []),
        (["vl2v.pseudo_labels=0.8", "data.classes=[cat, dog]"], []),
        (
            ["vl2v.pseudo_labels=0.8", "data.classes=[cat, dog]", "image_weight=1"],
            ["vl2v.pseudo_labels has no effect with"],
        ),
        (["vl2v.pseudo_labels=1", "data.classes=[cat, dog]"], []),
        (["data.classes=[cat, dog]", "data.balance=1"], ["data.balance (--balance)"]),
    ],
)
def test_settings_without_effect_are_reported(assigned: list[str], expected: list[str]) -> None:
    warnings_found = without_effect(config_of(*assigned))
    assert len(warnings_found) == len(expected)
    assert all(flag in text for flag, text in zip(expected, warnings_found, strict=True))


def test_settings_of_align_have_no_effect_without_it() -> None:
    values = {"teacher.spec": "open_clip:a/b", "student.spec": "teacher", "data.root": "photos", "align.steps": 3}
    (text,) = without_effect(make_config(None, settings_of((), values)))
    assert text == "align.steps (--align-steps) has no effect on the student teacher"


def test_settings_of_a_method_of_another_package_have_an_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    from vl2v.method.registry import METHODS

    class Own(type(METHODS["kd"].settings())):  # type: ignore[misc]
        strength: float = 1.0

    method = replace(METHODS["kd"], name="mine", settings=Own)
    monkeypatch.setitem(METHODS._loaded, "mine", method)
    assert without_effect(config_of("mine.strength=2")) == ["mine.strength has no effect on the method vl2v"]
    assert without_effect(config_of("mine.strength=2", "method=mine")) == []


def test_every_rule_is_about_a_setting() -> None:
    keys = {key for key, _ in fields_of(RunConfig)}
    assert {key for rule in RULES for key in rule.keys} <= keys


def test_no_method_has_a_default_without_effect() -> None:
    from vl2v.method.registry import METHODS

    for recipe in ("ood", "paper"):
        assert not any(without_effect(config_of(f"method={name}", f"recipe={recipe}")) for name in METHODS)


def test_a_report_with_a_missing_store_is_refused(tmp_path: Path) -> None:
    """Without the option, a run whose store is missing has a report without purchases."""
    done = run_cli("report", tmp_path, "--store", tmp_path / "s.sqlite")
    assert done.returncode == 2
    assert "The file in --store does not exist" in done.stderr


def test_a_score_without_a_threshold_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    done = run_cli("predict", "run", "photo.png", "--score", "energy")
    assert done.returncode == 2
    assert "no effect" in done.stderr
    with pytest.raises(SystemExit, match="2"):
        main([str(Path(__file__)), str(Path(__file__)), "--score", "energy"])
    assert "no effect without --coverage" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--error", "0.1"], ["--label", "species"], ["--error", "0.1", "--label", "x"]])
def test_options_for_the_checked_images_need_them(tmp_path: Path, words: list[str]) -> None:
    base: list[Any] = ["label", tmp_path, "--teacher", "offline:", "--classes", "cat,dog", "--out", tmp_path / "l.csv"]
    done = run_cli(*base, *words)
    assert done.returncode == 2
    assert "would have no effect" in done.stderr
    assert all(word in done.stderr for word in words if word.startswith("--"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone", "--set", "data.root=other"], "--set data.root=other has no effect next to DATA gone"),
        (["gone", "--set", "data={root: other}"], "--set data={root: other} has no effect next to DATA gone"),
        (["gone", "--set", "seed=3", "--seed", "4"], "--set seed=3 has no effect next to --seed 4"),
        (["gone", "--set", "seed=3", "--set", "seed=4"], "--set seed=3 has no effect next to --set seed=4"),
        (["gone", "--set", "budget=3", "--budget", "4"], "--set budget=3 has no effect next to --budget 4"),
        (["gone", "--set", "seed=3", "--seed", "3"], ""),
        (["gone", "--set", "seed=3"], ""),
    ],
)
def test_a_value_that_another_one_replaces_leads_to_a_warning(words: list[str], message: str) -> None:
    done = run_cli("quote", *words, "--teacher", "offline:")
    assert done.returncode == 3
    assert done.stderr.partition("error:")[0].strip() == (f"warning: {message}" if message else "")


@pytest.mark.parametrize(("option", "other"), [("free=true", "price"), ("price_per_1000_images=1", "free")])
def test_a_price_without_effect_is_named_correctly(option: str, other: str) -> None:
    with pytest.raises(ConfigError, match="whose price is known") as caught:
        stated_price(config_of(f"teacher.{option}"))
    flag = f"--{option.partition('=')[0].replace('_', '-')}"
    assert caught.value.next_step.startswith(f"drop {flag}")
    assert other not in f"{caught.value.problem.lower().partition(' for ')[0]} {caught.value.next_step}"
