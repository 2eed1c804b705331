"""The application accepts every `vl2v` command on every page, with its options and their values."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from vl2v.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("src/vl2v/**/*.md")])
ENDS = {"|", ">", "&&", "&", ";", "2>"}


def commands(page: Path) -> Iterator[list[str]]:
    """Return the words after `vl2v` of every command in a block of code."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = "\n".join(re.findall(r"^```(?:sh|console|bash)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE))
    for line in [*fenced.splitlines(), *(line for line in text.splitlines() if line.startswith("    "))]:
        if line.strip().startswith("vl2v "):
            words = shlex.split(line, comments=True)[1:]
            yield words[: next((i for i, word in enumerate(words) if word in ENDS), len(words))]


def parse(words: list[str]) -> None:
    """Parse a command as the application would, without running it."""
    command: Any = typer.main.get_command(app)
    context = typer.Context(command, info_name="vl2v")
    while hasattr(command, "commands"):
        name, command, words = command.resolve_command(context, words)
        if not hasattr(command, "commands"):
            command.make_context(name, list(words), parent=context)
        context = typer.Context(command, info_name=name, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_are_accepted(page: Path) -> None:
    for words in commands(page):
        try:
            parse(words)
        except Exception as error:  # of the version of click that typer uses
            pytest.fail(f"vl2v {shlex.join(words)}: {getattr(error, 'message', error)}")


def test_a_wrong_command_is_noticed() -> None:
    parse(["distill", "photos", "--teacher", "offline:", "--seed", "1"])
    for wrong in (["distil", "photos"], ["distill", "photos", "--sed", "1"], ["distill", "photos", "--seed", "one"]):
        with pytest.raises(Exception, match=r"(?i)no such|valid integer"):
            parse(wrong)
