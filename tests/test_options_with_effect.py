"""Options that a command shows have an effect on it, and their help is about this command."""

from __future__ import annotations

import pytest
from typer.main import get_command

from vl2v.cli import app


def helps(*path: str) -> dict[str, str]:
    command = get_command(app)
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    return {flag: str(getattr(p, "help", "")) for p in command.params for flag in p.opts}


@pytest.mark.parametrize("path", [("label",), ("teacher", "check")])
def test_what_nothing_is_chosen_for_has_no_when_short(path: tuple[str, ...]) -> None:
    found = helps(*path)
    assert "--when-short" not in found
    assert "--free" in found


def test_evaluate_says_what_its_columns_default_to() -> None:
    found = helps("evaluate")
    assert all("as in training" in found[flag] for flag in ("--image", "--label", "--split", "--group"))
    assert "random split" not in found["--split"]
    assert "random split" in helps("distill")["--split"]
