"""Render a page of sections, figures, tables and images from the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from vl2v.reports.drawing import Panel
from vl2v.reports.map_figure import KeyItem
from vl2v.reports.sheet import Sheet
from vl2v.reports.style import style
from vl2v.writing import write_text
from vl2v_runtime.names import printable


@dataclass(frozen=True)
class Figure:
    """Panels that belong together.

    Attributes:
        panels: the drawings.
        caption: what they show, and how to read it.
        sheets: their values.
        key: marks that are not explained in the panels.
    """

    panels: Sequence[Panel]
    caption: str
    sheets: Sequence[Sheet] = ()
    key: Sequence[KeyItem] = ()


@dataclass(frozen=True)
class TableBlock:
    """A table of text.

    Attributes:
        caption: above it.
        columns: their headings, the first one's over the rows' headings.
        rows: cells of text, the first one heads the row.
        sheets: its values.
        strong: rows that stand out, by their place.
        wordy: columns of running text, by their place.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    sheets: Sequence[Sheet] = ()
    strong: Sequence[int] = ()
    wordy: Sequence[int] = ()


@dataclass(frozen=True)
class Picture:
    """A small picture: its ``data:`` address, None if the image is gone; what is said of it, and its path."""

    source: str | None
    lines: Sequence[tuple[str, str, str]]
    path: str
    alt: str


@dataclass(frozen=True)
class Pictures:
    """A row of pictures under a heading."""

    title: str
    pictures: Sequence[Picture]
    sheets: Sequence[Sheet] = ()


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: its anchor.
        title: its heading.
        text: paragraphs before the blocks.
        blocks: what it shows.
        missing: sentences that say why something is not there.
        html: markup that is safe as it is, e.g. a benchmark's table.
        links: (text, relative address).
    """

    name: str
    title: str
    text: Sequence[str] = ()
    blocks: Sequence[Figure | TableBlock | Pictures] = ()
    missing: Sequence[str] = ()
    html: str = ""
    links: Sequence[tuple[str, str]] = ()

    @property
    def sheets(self) -> list[Sheet]:
        """The values of all blocks."""
        return [sheet for block in self.blocks for sheet in block.sheets]


@dataclass(frozen=True)
class Tile:
    """One number that counts."""

    name: str
    value: str
    beside: str = ""


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
        kind: what it is a report of, above the title.
        title: of the page.
        lead: one sentence that says it all.
        tiles: the numbers that count.
        sections: the rest.
        foot: by whom and when.
    """

    kind: str
    title: str
    lead: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    foot: str
    more: Sequence[Sheet] = field(default=())

    @property
    def sheets(self) -> list[Sheet]:
        """All values."""
        return [*(sheet for section in self.sections for sheet in section.sheets), *self.more]

    def html(self) -> str:
        """One page that needs nothing else: no script, no font, no picture from outside."""
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        environment.tests["figure"] = lambda block: isinstance(block, Figure)
        environment.tests["table"] = lambda block: isinstance(block, TableBlock)
        source = resources.files("vl2v.reports").joinpath("template", "page.html.j2").read_text(encoding="utf-8")
        return environment.from_string(source).render(page=self, style=style()) + "\n"

    def write(self, folder: Path) -> Path:
        """Write ``report.html``, and every figure's values into ``report/``; returns the page's path."""
        values = folder / "report"
        values.mkdir(parents=True, exist_ok=True)
        for sheet in self.sheets:
            sheet.write(values)
        path = folder / "report.html"
        write_text(path, printable(self.html()))
        return path
