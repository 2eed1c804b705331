"""The page of settings lists every key of `RunConfig` and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from vl2v.config import RunConfig

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
WRITTEN_BY_RUNS = {"made_with"}


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def listed() -> Iterator[str]:
    """The keys of the table's first column; `.x` stands for a neighbour of the one before it, `…_x` for a like one."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        before = ""
        for key in re.findall(r"`([^`]+)`", line.split("|")[1]) if line.startswith("| `") else ():
            if key.startswith("."):
                before = before.rpartition(".")[0] + key
            elif key.startswith("…"):
                before = before.rpartition("_")[0] + key[1:]
            else:
                before = key
            yield before


def test_every_key_has_its_line() -> None:
    found = list(listed())
    assert sorted(found) == sorted(set(keys(RunConfig)) - WRITTEN_BY_RUNS)
