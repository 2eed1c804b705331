"""The options of quote, distill, demo and benchmark run are generated from the fields of the settings."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from command_line import run_cli
from vl2v.cli import app
from vl2v.cli.settings import SETTINGS
from vl2v.config import RunConfig
from vl2v.demo import job
from vl2v.errors import ConfigError
from vl2v.options import fields_of
from vl2v.validation import parse

BASE = {"data": {"root": "x"}, "teacher": {"spec": "offline:"}, "student": {"spec": "offline:"}}


def parameters(*names: str) -> dict[str, Any]:
    command: Any = typer.main.get_command(app)
    for name in names:
        command = command.commands[name]
    return {flag: p for p in command.params for flag in (*p.opts, *p.secondary_opts)}


def called(monkeypatch: pytest.MonkeyPatch, function: str, *arguments: str) -> dict[str, Any]:
    """Return the arguments that a command passes to the function of the API."""
    seen: dict[str, Any] = {}

    def stop(*_: Any, **values: Any) -> None:
        seen.update(values)
        raise ConfigError("stopped")

    monkeypatch.setattr(function, stop)
    message = CliRunner().invoke(app, list(arguments)).output
    assert "stopped" in message, message
    return seen


def test_every_option_has_a_help_a_section_and_a_field() -> None:
    options = parameters("distill")
    keys = {key for key, _ in fields_of(RunConfig)}
    assert len(SETTINGS) == len({s.name for s in SETTINGS}) == len({s.key for s in SETTINGS})
    for setting in SETTINGS:
        assert setting.key in keys
        for flag in setting.flags:
            assert options[flag].help == inspect.cleandoc(setting.field.description or "").split("\n\n")[0].replace(
                "\n", " "
            )
            assert options[flag].help.endswith((".", "..."))
            assert options[flag].rich_help_panel == setting.option.panel
    work = {"--out", "--resume", "--new-site", "--report", "--no-report", "--cpus-per-worker", "--gpus-per-worker"}
    assert set(options) - set(parameters("quote")) == work
    assert "--set" in parameters("demo")
    assert {"--set", "--teacher", "--student", "--accept-teacher"} < set(parameters("benchmark", "run"))


@pytest.mark.parametrize("width", [80, 120])
def test_the_help_is_not_truncated(width: int) -> None:
    for command in ("quote", "distill", "demo"):
        message = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": str(width)}).output
        for flag in parameters(command):
            assert f"{flag} " in message or f"{flag}," in message, (command, flag)


def test_distill_passes_on_the_stated_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = [
        *("distill", str(tmp_path), "--teacher", "offline:", "--student", "offline:", "--out", str(tmp_path / "run")),
        *("--classes", "cat", "--classes", "dog,cow", "--held-out", "a", "--held-out", "b", "--held-out-class", "c"),
        *("--no-zero-shot", "--skip-bad", "--unlabelled", "more", "--views", "3", "--price-per-1000-images", "0.10"),
        *("--time", "90s", "--steps", "5", "--align-steps", "6", "--track", "mlflow", "--domain-column", "none"),
        *("--set", "distill.steps=7", "--set", "kd.temperature=3"),
    ]  # fmt: skip
    settings = called(monkeypatch, "vl2v.api.distill", *words)["settings"]
    blocks = {part: block for part, block in settings.items() if isinstance(block, dict)}
    assert {part: {k: v for k, v in block.items() if v is not None} for part, block in blocks.items()} == {
        "data": {
            "classes": "cat,dog,cow", "held_out": ["a", "b"], "held_out_classes": ["c"], "skip_bad": True,
            "unlabelled": "more", "domain": "none",
        },
        "teacher": {"spec": "offline:", "zero_shot": False, "views": "3", "price_per_1000_images": "0.10"},
        "student": {"spec": "offline:"},
        "distill": {"steps": 5, "minutes": "90s"},
        "align": {"steps": 6},
        "kd": {"temperature": 3},
    }  # fmt: skip
    assert settings["tracking"] == ["mlflow"]


def test_a_time_in_a_file_is_read_as_on_the_command_line() -> None:
    assert parse(RunConfig, BASE | {"distill": {"minutes": "90s"}}, "file").distill.minutes == 1.5
    assert parse(RunConfig, BASE | {"distill": {"minutes": 2}}, "file").distill.minutes == 2
    with pytest.raises(ConfigError, match=r"distill\.minutes.*soon"):
        parse(RunConfig, BASE | {"distill": {"minutes": "soon"}}, "file")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distil": {"steps": 3}}, "did you mean distill"),
        ({"steps": 3}, "did you mean align.steps or distill.steps?"),
        ({"distill": {"stpes": 3}}, "did you mean distill.steps"),
        ({"learning_rat": 3}, "did you mean .*distill.learning_rate"),
        ({"kd": {"temprature": 3}}, "did you mean .*kd.temperature"),
        ({"zzz": 3}, r"\(found 3\)$|\(found 3\)\n"),
    ],
)
def test_an_unknown_key_is_refused_with_similar_ones(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(RunConfig, BASE | settings, "the settings")


def test_missing_arguments_can_be_in_the_file_of_settings(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("data: {root: x}\nteacher: {spec: 'offline:'}")
    message = CliRunner().invoke(app, ["distill", "--config", str(file)]).output
    assert "error: --student is missing." in message


def test_the_demo_accepts_settings_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = called(monkeypatch, "vl2v.demo.job.demo", "demo", "--set", "distill.steps=3", "--out", str(tmp_path))
    assert passed["settings"] == {"distill": {"steps": 3}}
    for settings in ({"method": "kd"}, {"data": {"root": "x"}}):
        with pytest.raises(ConfigError, match="chooses these"):
            job._check_settings(tmp_path, settings)
    for _ in range(2):
        job._check_settings(tmp_path, {"data": {"skip_bad": True}})
    with pytest.raises(ConfigError, match=r"(?s)started with other settings.*skip_bad"):
        job._check_settings(tmp_path, {})
    (tmp_path / "before" / "task").mkdir(parents=True)
    job._check_settings(tmp_path / "before", {})
    with pytest.raises(ConfigError, match="started with other settings"):
        job._check_settings(tmp_path / "before", {"threads": 2})


def test_evaluate_and_teacher_check_share_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("evaluate", "run", "x.csv", "--label", "kind", "--group", "clip", "--domain-column", "site", "--skip-bad")
    passed = called(monkeypatch, "vl2v.api.evaluate", *words)
    columns = {"label": "kind", "group": "clip", "domain": "site"}
    assert (passed["columns"], passed["skip_bad"]) == (columns, True)
    assert "--set" not in parameters("evaluate")
    check = ("teacher", "check", "file:x", "--free", "--price-per-1000-texts", "2", "--set", "teacher.views=3")
    passed = called(monkeypatch, "vl2v.commands.check.check_teacher", *check)
    assert passed["settings"]["teacher"].items() >= {"price_per_1000_texts": "2", "free": True, "views": 3}.items()


def test_the_limits_of_a_number_are_in_words() -> None:
    """Typer would write ``x>=1``."""
    for words in ("serve", "distill", "vendor serve", "vendor keys edit", "teacher check", "repair", "data draw"):
        limited = [flag for flag, p in parameters(*words.split()).items() if getattr(p, "min", None) is not None]
        assert limited == []
    assert parameters("teacher", "check")["--images"].help == "Number of images to query (default: 24), 2 or more."
    assert parameters("vendor", "serve")["--port"].help == "TCP port, from 1 to 65,535."
    assert parameters("distill")["--cpus-per-worker"].help == "With --ray: cores per worker that runs a teacher."


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["teacher", "check", "offline:", "--images", "1"], "expected 2 or more, found 1"),
        (["serve", "run", "--port", "65536"], "expected from 1 to 65,535, found 65536"),
        (["repair", "run", "new", "--tolerance", "nan"], "not a finite number"),
        (["repair", "run", "new", "--tolerance", "1.5"], "expected from 0 to 1, found 1.5"),
        (["distill", "photos", "--cpus-per-worker", "-1"], "expected 0 or more, found -1.0"),
    ],
)
def test_a_number_beyond_its_limits_is_refused(words: list[str], message: str) -> None:
    done = run_cli(*words)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())
