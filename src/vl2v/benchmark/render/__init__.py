"""Render a benchmark table in several formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vl2v.benchmark.render.data import to_csv, to_json
from vl2v.benchmark.render.html import to_html
from vl2v.benchmark.render.latex import to_latex
from vl2v.benchmark.render.markdown import to_markdown
from vl2v.benchmark.render.text import to_text
from vl2v.benchmark.tables import Table
from vl2v.errors import ConfigError

FORMATS: Mapping[str, Callable[[Table], str]] = {
    "text": to_text,
    "md": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
    "html": to_html,
    "json": to_json,
}


def render(table: Table, format: str) -> str:
    """Render a table as text.

    Args:
        format: ``text`` (no colours; `vl2v.benchmark.render.text.renderable` for a terminal), ``md``, ``latex``
            (booktabs), ``csv`` (full precision), ``html`` (a self-contained page), or ``json``.

    Raises:
        ConfigError: if the format is unknown.
    """
    if format not in FORMATS:
        expected, step = ", ".join(FORMATS), "correct --format"
        raise ConfigError("Unknown table format.", expected=expected, found=format, next_step=step)
    return FORMATS[format](table)
