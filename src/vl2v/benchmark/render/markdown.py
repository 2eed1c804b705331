"""Tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from vl2v.benchmark.render.layout import BEST, NEAR, Cell, lay_out
from vl2v.benchmark.tables import Table

EMPHASIS = {BEST: "**", NEAR: "*", "": ""}
SPECIAL = "\\`*_{}[]|#~"
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}  # Markdown for Python shows a backslash before them


def to_markdown(table: Table) -> str:
    """Return a table in GitHub-flavoured Markdown, and its captions as a list."""
    layout = lay_out(table, "bold", "italic")
    head = ["method", *(escape(column.name) for column in layout.columns)]
    rows = [[escape(line.name), *map(_marked, line.cells)] for line in layout.lines]
    lines = [f"### {escape(layout.title)}", "", _line(head), "|---|" + "---:|" * len(layout.columns)]
    lines += [*map(_line, rows), "", *(f"- {escape(caption)}" for caption in layout.captions)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Escape text for a cell of a Markdown table."""
    return "".join(f"\\{sign}" if sign in SPECIAL else ENTITIES.get(sign, sign) for sign in " ".join(text.split()))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _marked(cell: Cell) -> str:
    sign = EMPHASIS[cell.emphasis]
    error = f" ± {cell.error}" if cell.error else ""
    note = f" ({escape(cell.note)})" if cell.note else ""
    return f"{sign}{escape(cell.value)}{error}{sign}{note}"
