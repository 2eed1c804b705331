"""Print results on standard output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import RenderableType

from vl2v.faults import naming
from vl2v.terminal import console, dump_json

OUTPUT = Path("standard output")


def show(result: RenderableType | dict[str, Any] | list[Any]) -> None:
    """Print a table, or JSON if it is plain values, on standard output."""
    with naming(OUTPUT):
        if isinstance(result, dict | list):
            print(dump_json(result))
        else:
            console(soft_wrap=True).print(result)
