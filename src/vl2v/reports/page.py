"""Render a page of sections, figures, tables and images from the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vl2v.reports.drawing import Panel
from vl2v.reports.map_figure import KeyItem
from vl2v.reports.sheet import Sheet
from vl2v.reports.style import fill, style
from vl2v.writing import write_text
from vl2v_runtime.names import printable


@dataclass(frozen=True)
class Figure:
    """Panels that belong together.

    Attributes:
        caption: explanation of the drawings.
        sheets: values of the drawings.
        key: marks that the panels do not explain.
    """

    panels: Sequence[Panel]
    caption: str
    sheets: Sequence[Sheet] = ()
    key: Sequence[KeyItem] = ()


@dataclass(frozen=True)
class TableBlock:
    """A table of text.

    Attributes:
        columns: column headings. The first column contains the row headings.
        rows: cells of text. The first one is the row heading.
        strong: indices of emphasised rows.
        wordy: indices of columns of running text.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    sheets: Sequence[Sheet] = ()
    strong: Sequence[int] = ()
    wordy: Sequence[int] = ()


@dataclass(frozen=True)
class Picture:
    """A thumbnail: its ``data:`` URL or None if the image is missing, its description, and its path."""

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
        text: paragraphs before the blocks.
        blocks: figures, tables and images.
        missing: sentences that explain why something is missing.
        html: trusted markup, e.g. the table of a benchmark.
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
        """Values of all blocks."""
        return [sheet for block in self.blocks for sheet in block.sheets]


@dataclass(frozen=True)
class Tile:
    """A key figure."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
        kind: kind of report, shown above the title.
        lead: summary in one sentence.
        tiles: key figures.
        foot: version and time.
        more: further values that no section shows.
    """

    kind: str
    title: str
    lead: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    foot: str
    more: Sequence[Sheet] = ()

    @property
    def sheets(self) -> list[Sheet]:
        """Values of all sections."""
        return [*(sheet for section in self.sections for sheet in section.sheets), *self.more]

    def html(self) -> str:
        """Render a self-contained page, without scripts and external fonts or images."""
        return fill("vl2v.reports", "template/page.html.j2", page=self, style=style()) + "\n"

    def write(self, folder: Path) -> Path:
        """Write ``report.html`` and the values of all figures to ``report/``, and return the path of the page."""
        values = folder / "report"
        values.mkdir(parents=True, exist_ok=True)
        for sheet in self.sheets:
            sheet.write(values)
        path = folder / "report.html"
        write_text(path, printable(self.html()))
        return path
