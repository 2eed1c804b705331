"""Results as HTML for notebooks: the tables of the terminal, with escaped names."""

from __future__ import annotations

from html import escape
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table

from vl2v.terminal import clean

LARGEST_PAGE = 2**23  # bytes of a page that is shown inline; a notebook with larger outputs opens slowly


def html_of(*parts: RenderableType) -> str:
    """HTML of tables, texts and groups of them."""
    return "\n".join(_html(part) for part in parts)


def inline_page(page: Path) -> str:
    """A frame with a page, which cannot touch the notebook around it; nothing if the page is missing or too large."""
    if not page.is_file() or page.stat().st_size > LARGEST_PAGE:
        return ""
    text = escape(page.read_text(encoding="utf-8"))
    style = "width: 100%; height: 40em; border: 1px solid silver"
    return f'<iframe sandbox="allow-scripts" style="{style}" srcdoc="{text}"></iframe>'


def _html(part: RenderableType) -> str:
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Group):
        return html_of(*part.renderables)
    return f'<pre style="white-space: pre-wrap">{_escaped(part)}</pre>'


def _table(table: Table) -> str:
    styles = [f'style="text-align: {column.justify}"' for column in table.columns]
    heads = (f"<th {s}>{_escaped(c.header)}</th>" for s, c in zip(styles, table.columns, strict=True))
    lines = ["<table>"]
    lines += [f"<caption>{_escaped(table.title)}</caption>"] if table.title else []
    lines += [f"<thead><tr>{''.join(heads)}</tr></thead>", "<tbody>"]
    for row, cells in zip(table.rows, zip(*(column.cells for column in table.columns), strict=True), strict=True):
        weight = ' style="font-weight: bold"' if row.style == "bold" else ""
        columns = (f"<td {s}>{_escaped(cell)}</td>" for s, cell in zip(styles, cells, strict=True))
        lines.append(f"<tr{weight}>{''.join(columns)}</tr>")
    return "\n".join([*lines, "</tbody>", "</table>"])


def _escaped(text: object) -> str:
    return escape(clean(str(text)))
