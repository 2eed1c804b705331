"""Options in messages must be accepted by the command that printed the message, or that it names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
NAMED = re.compile(r"\bvl2v ([a-z]+(?: [a-z]+)?)|\b(docker|infinity_emb|hf) ")
PRINTED = re.compile(r"^(?:error|warning): .*?(?=^(?:error|warning): |\Z)", re.MULTILINE | re.DOTALL)


@cache
def options_by_command() -> dict[str, frozenset[str]]:
    """Return the options of every command by its words after ``vl2v``."""
    from typer.main import get_command

    from vl2v.cli import app

    def walk(command: Any, words: tuple[str, ...]) -> dict[str, frozenset[str]]:
        if hasattr(command, "commands"):
            return {k: v for name, sub in command.commands.items() for k, v in walk(sub, (*words, name)).items()}
        return {" ".join(words): frozenset(flag for flag in _flags(command) if flag.startswith("--"))}

    return walk(get_command(app), ())


def _flags(command: Any) -> list[str]:
    return [flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)]


def _known(words: str) -> str:
    """Return the command at the beginning of the words, or an empty string."""
    first, _, second = words.partition(" ")
    known = options_by_command()
    return next((name for name in (f"{first} {second}", first) if name in known), "")


def foreign_options(arguments: Sequence[str], printed: str) -> list[str]:
    """Return options in the errors and warnings of a command that the advised command does not accept.

    Args:
        arguments: the words after `vl2v`.
        printed: what the command printed on standard error.
    """
    known, foreign = _known(" ".join(arguments[:2])), []
    for message in PRINTED.findall(printed):
        for clause in re.split(r"[;\n]|\. |, or ", message):
            for flag in FLAG.finditer(clause):
                named = list(NAMED.finditer(clause, 0, flag.start()))
                command = known if not named else "" if named[-1][2] else _known(named[-1][1])
                if clause.startswith(" of vl2v distill", flag.end()):
                    command = "distill"
                if command and flag[0] not in options_by_command()[command]:
                    foreign.append(f"vl2v {command} has no {flag[0]}: {clause.strip()}")
    return foreign
