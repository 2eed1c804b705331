"""Tables as one self-contained HTML page."""

from __future__ import annotations

from markupsafe import Markup

from vl2v.benchmark.render.layout import ACCURACY, OTHER, Cell, lay_out
from vl2v.benchmark.tables import Table
from vl2v.reports.style import fill, style


def to_html(table: Table) -> str:
    """Return a page that follows the light or dark mode of the system; on a narrow screen each method is a card."""
    layout = lay_out(table, "bold", "underlined")
    return fill("vl2v.benchmark.render", "page.html.j2", layout=layout, tables=to_tables(table), style=style()) + "\n"


def to_tables(table: Table) -> Markup:
    """Return only the tables and their captions, for a page with the same style."""
    layout = lay_out(table, "bold", "underlined")
    parts = {"Accuracy by target": layout.part(ACCURACY), "Calibration, differences and expense": layout.part(OTHER)}
    return Markup(fill("vl2v.benchmark.render", "tables.html.j2", layout=layout, parts=parts, empty=Cell()))
