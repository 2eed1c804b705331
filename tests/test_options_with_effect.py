"""Options that a command shows have an effect on it, and their help is about this command."""

from __future__ import annotations

import pytest
from typer.main import get_command

from command_line import run_cli
from vl2v.cli import app


def helps(*path: str) -> dict[str, str]:
    command = get_command(app)
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    return {flag: str(getattr(p, "help", "")) for p in command.params for flag in p.opts}


@pytest.mark.parametrize("path", [("label",), ("teacher", "check")])
def test_commands_that_train_no_student_lack_the_options_of_a_run(path: tuple[str, ...]) -> None:
    help_texts = helps(*path)
    assert not {"--when-short", "--final-size"} & set(help_texts)
    assert "--free" in help_texts


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (("distill", "photos", "--cpus-per-worker", "2"), "--ray"),
        (("label", "photos", "--teacher", "offline:", "--classes", "a,b", "--gpus-per-worker", "1"), "--ray"),
        (("benchmark", "run", "--out", "grid", "--gpus-per-job", "1"), "--ray"),
        (("benchmark", "table", "grid", "--pairs", "seeds"), "--against"),
        (("export", "run", "--tolerance", "1"), "--int8"),
        (("serve", "run", "--no-edits", "--budget", "1"), "--edits"),
        (("vendor", "keys", "edit", "0123456789abcdef", "--grace-hours", "1"), "--rotate"),
    ],
)
def test_an_option_without_the_one_that_it_needs_is_refused(words: tuple[str, ...], needed: str) -> None:
    done = run_cli(*words)
    assert done.returncode == 2
    assert f"no effect without {needed}" in done.stderr


def test_the_help_of_evaluate_states_the_defaults_of_its_columns() -> None:
    help_texts = helps("evaluate")
    assert all("as in training" in help_texts[flag] for flag in ("--image", "--label", "--split", "--group"))
    assert "random split" not in help_texts["--split"]
    assert "random split" in helps("distill")["--split"]
