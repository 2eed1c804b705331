"""As one page that needs nothing else: no script, no font, no address outside."""

from __future__ import annotations

from importlib import resources

from vl2v.benchmark.render.layout import ACCURACY, BESIDE, Cell, lay_out
from vl2v.benchmark.tables import Table
from vl2v.errors import MissingExtraError


def to_html(table: Table) -> str:
    """Light or dark as the reader's system is; on a narrow screen each method is a card.

    Raises:
        MissingExtraError: if Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("A table as HTML", "benchmark", "jinja2") from error
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = resources.files("vl2v.benchmark.render").joinpath("page.html.j2").read_text(encoding="utf-8")
    layout = lay_out(table, "bold", "underlined")
    parts = {"Accuracy by target": layout.part(ACCURACY), "Calibration, differences and expense": layout.part(BESIDE)}
    return environment.from_string(page).render(layout=layout, parts=parts, empty=Cell()) + "\n"
