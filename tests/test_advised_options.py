"""Messages advise options that the command accepts, as listed in `vl2v.hints`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from advised_options import foreign_options, options_by_command
from command_line import run_cli
from vl2v.cli import label, predict, repair, teacher, trust
from vl2v.cli.settings import forms_of, options_of
from vl2v.errors import ConfigError
from vl2v.hints import advising, fitting

SKIP = "replace the file, or skip it: --skip-bad"
COMMANDS: dict[str, Callable[..., None]] = {
    "label": label.label,
    "repair": repair.repair,
    "expect": trust.expect,
    "predict": predict.predict,
    "evaluate": predict.evaluate,
    "teacher check": teacher.check,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_options_of_a_command_are_known(name: str) -> None:
    assert options_by_command()[name] <= options_of(COMMANDS[name])


@pytest.mark.parametrize(
    ("command", "text", "expected"),
    [
        (label.label, SKIP, SKIP),
        (repair.repair, SKIP, SKIP),
        (trust.expect, SKIP, "replace the file"),
        (teacher.check, SKIP, "replace the file, or skip it: --set data.skip_bad=true"),
        (teacher.check, "--no-zero-shot saves queries", "--set teacher.zero_shot=false saves queries"),
        (teacher.check, "e.g. --prompts 'a {}'", "e.g. --set teacher.prompts='a {}'"),
        (teacher.check, "correct --prompts", "correct --set teacher.prompts=..."),
        (repair.repair, "allow it: --allow-missing-classes", "allow it: --allow-missing-classes of vl2v distill"),
        (trust.expect, "run vl2v distill --skip-bad", "run vl2v distill --skip-bad"),
        (trust.expect, "name it with --image; there are: a", "name it with --image; there are: a"),
    ],
)
def test_advice_fits_the_command(command: Callable[..., None], text: str, expected: str) -> None:
    with advising(forms_of(command)):
        assert fitting(text, step=True) == expected
        assert fitting(expected, step=True) == expected
        assert ConfigError("x", next_step=text).next_step == expected
    assert fitting(text, step=True) == text, "the Python API has all settings"


def test_an_option_of_another_command_is_noticed() -> None:
    message = "error: 1 fault\n  next: drop it, or skip it: --skip-bad\n"
    assert len(foreign_options(["predict", "run"], message)) == 1
    named = message.replace("--", "vl2v label --"), message.replace("bad\n", "bad of vl2v distill\n")
    for command, text in (("label", message), *(("predict", text) for text in named)):
        assert foreign_options([command], text) == []


@pytest.mark.slow
def test_advice_about_a_folder_of_classes_fits_label(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name / "a.png")
    base: list[Any] = [
        "label",
        tmp_path / "photos",
        "--classes",
        "cat,dog",
        "--teacher",
        "offline:",
        "--out",
        tmp_path / "l.csv",
    ]
    done = run_cli(*base, "--cache", tmp_path / "c", "--store", tmp_path / "s")
    assert done.returncode == 3
    assert "drop --classes" not in done.stderr
    assert "to ignore them: --layout-as-found" in done.stderr
