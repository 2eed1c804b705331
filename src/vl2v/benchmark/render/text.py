"""Tables for a terminal: accuracies, and below them the other columns."""

from __future__ import annotations

import io

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from vl2v.benchmark.render.layout import ACCURACY, BEST, NEAR, OTHER, Layout, lay_out
from vl2v.benchmark.tables import Table
from vl2v.terminal import clean, console

# Signs in addition to styles, since pipes and logs have no styles.
SIGNS = {BEST: "*", NEAR: "~", "": ""}
STYLES = {BEST: "bold", NEAR: "underline", "": ""}
WIDE = 400  # columns of text for a file, in which no cell is folded


def renderable(table: Table) -> RenderableType:
    """Return the table for a console of rich."""
    layout = lay_out(table, "* and bold", "~ and underlined")
    captions = [Padding(Text(clean(line)), (0, 0, 0, 1)) for line in layout.captions]
    return Group(_rich(layout.part(ACCURACY), layout.title), _rich(layout.part(OTHER), ""), *captions)


def to_text(table: Table) -> str:
    """Return plain text without colours, as wide as necessary."""
    to = console(file=io.StringIO(), width=WIDE, color_system=None, force_terminal=False)
    with to.capture() as capture:
        to.print(renderable(table))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _rich(layout: Layout, title: str) -> RichTable:
    part = RichTable(title=title or None, title_justify="left")
    part.add_column("method")
    for column in layout.columns:
        part.add_column(Text(clean(column.name)), justify="right")
    for line in layout.lines:
        cells = (Text(SIGNS[cell.emphasis] + clean(cell.plain), STYLES[cell.emphasis]) for cell in line.cells)
        part.add_row(Text(clean(line.name)), *cells, end_section=line.closes)
    return part
