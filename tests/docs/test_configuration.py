"""The page of settings lists every key of `RunConfig` and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from vl2v.config import RunConfig
from vl2v.options import fields_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
WRITTEN_BY_RUNS = {"made_with", "origin"}


def keys_of(line: str) -> list[str]:
    """Return the keys in the first column; `.x` and `…_x` abbreviate keys similar to the one before."""
    keys: list[str] = []
    for key in re.findall(r"`([^`]+)`", line.split("|")[1]):
        if key.startswith("."):
            key = keys[-1].rpartition(".")[0] + key
        elif key.startswith("…"):
            key = keys[-1].rpartition("_")[0] + key[1:]
        keys.append(key)
    return keys


def listed() -> list[str]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [key for line in lines if line.startswith("| `") for key in keys_of(line)]


def test_every_key_is_on_the_page() -> None:
    documented, every = listed(), [key for key, _ in fields_of(RunConfig)]
    keys = (key for key in every if not any(other.startswith(f"{key}.") for other in every))
    assert sorted(documented) == sorted(set(keys) - WRITTEN_BY_RUNS)


def stated() -> Iterator[tuple[str, str]]:
    """Return every key with the default in the second column if the line has one for each of its keys."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            names, defaults = keys_of(line), [text.strip(" `") for text in line.split("|")[2].split(", ")]
            if len(names) == len(defaults):
                yield from zip(names, defaults, strict=True)


def shown(default: object) -> str:
    """Return a default as written on the page."""
    if default is None or default == ():
        return "none"
    return str(default).lower() if isinstance(default, bool) else str(default)


def test_the_defaults_are_those_of_the_settings() -> None:
    fields, compared = dict(fields_of(RunConfig)), 0
    for key, text in stated():
        default = fields[key].default
        if default is None and text != "none":  # in words, such as "by device"; 5001 with a method that has Align
            assert key == "align.steps" or not re.fullmatch(r"[\d.e-]+|true|false", text), key
        elif isinstance(default, int | float | Decimal) and not isinstance(default, bool):
            assert float(text) == float(default), key
        elif not fields[key].is_required():
            assert text == shown(default), key
        compared += 1
    assert compared > 50
