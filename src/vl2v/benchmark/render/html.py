"""Tables as one self-contained HTML page."""

from __future__ import annotations

from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from vl2v.benchmark.render.layout import ACCURACY, OTHER, Cell, Layout, lay_out
from vl2v.benchmark.tables import Table
from vl2v.reports.style import style


def to_html(table: Table) -> str:
    """Return a page that follows the light or dark mode of the system; on a narrow screen each method is a card."""
    layout = _layout(table)
    return _filled("page.html.j2", layout=layout, tables=to_tables(table), style=style()) + "\n"


def to_tables(table: Table) -> Markup:
    """Return only the tables and their captions, for a page with the same style."""
    layout = _layout(table)
    parts = {"Accuracy by target": layout.part(ACCURACY), "Calibration, differences and expense": layout.part(OTHER)}
    return Markup(_filled("tables.html.j2", layout=layout, parts=parts, empty=Cell()))


def _layout(table: Table) -> Layout:
    return lay_out(table, "bold", "underlined")


def _filled(name: str, **values: Any) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("vl2v.benchmark.render").joinpath(name).read_text(encoding="utf-8")
    return environment.from_string(source).render(**values)
