"""The page of settings lists every key of `RunConfig` and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from vl2v.config import RunConfig
from vl2v.schema import fields_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
WRITTEN_BY_RUNS = {"made_with"}


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
    found, every = list(listed()), [key for key, _ in fields_of(RunConfig)]
    keys = (key for key in every if not any(other.startswith(f"{key}.") for other in every))
    assert sorted(found) == sorted(set(keys) - WRITTEN_BY_RUNS)
