"""Results in a notebook: the tables of the terminal as HTML, in which names are escaped."""

from __future__ import annotations

from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Group
from rich.table import Table
from rich.text import Text

from vl2v import notebook
from vl2v.commands.distill import Run
from vl2v.data.contents import Contents, DomainContents
from vl2v.evaluation.evaluation import DomainScore, Evaluation
from vl2v.evaluation.unseen import UnseenClasses
from vl2v.notebook import html_of, inline_page
from vl2v.teacher.base import Price
from vl2v.teacher.purchase.quote import Quote

ODD = '<script>alert(1)</script> & "x" [bold]\x1b[31m'
SHOWN = '<script>alert(1)</script> & "x" [bold]\\x1b[31m'
TAGS = {"table", "caption", "thead", "tbody", "tr", "th", "td", "pre"}


class Reader(HTMLParser):
    """Collects the tags, texts and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= dict(attrs)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def evaluation() -> Evaluation:
    return Evaluation((DomainScore(ODD, "in-domain", 1234, 0.5, 0.25), DomainScore("b", "out-of-domain", 3, 1.0, 0.0)))


def test_an_evaluation_has_the_cells_of_the_terminal() -> None:
    page = Reader(evaluation()._repr_html_())
    assert set(page.tags) <= TAGS
    assert {SHOWN, "1,234", "50.0", "25.0", "mean", "zero-shot teacher"} <= set(page.texts)
    assert page.tags.count("tr") == 1 + 4  # two domains, and the mean of each role


def test_a_quote_has_its_table_and_the_summary_of_the_data() -> None:
    domains = (DomainContents(ODD, 3, 2, 1, 2, False),)
    contents = Contents("photos", domains, ("cat", ODD), images=3)
    price = Price(Decimal("0.5"), Decimal(0))
    quote = Quote(ODD, {"training": 1000}, {"training": 0}, 2, 0, price, {"pixel cache": 10}, "a <note>", contents)
    page = Reader(quote._repr_html_())
    text = "\n".join(page.texts)
    assert set(page.tags) <= TAGS
    assert f"quote of {SHOWN}; nothing is spent" in page.texts
    assert all(part in text for part in ("photos: 1 domain", SHOWN, "1,000", "0.5", "pixel cache 10 B", "a <note>"))


def test_a_run_has_its_tables_and_its_report(tmp_path: Path) -> None:
    student: Any = None
    run = Run(tmp_path / "<b>", student, evaluation(), 7, 2, unseen=UnseenClasses(("new",), ()))
    alone = Reader(run._repr_html_())
    assert set(alone.tags) <= TAGS
    assert any("7 images, 2 texts" in text and "<b>/student" in text for text in alone.texts)
    assert any("held-out classes (new)" in text for text in alone.texts)
    run.folder.mkdir()
    (run.folder / "report.html").write_text('<p title="x">the report</p>', encoding="utf-8")
    page = Reader(run._repr_html_())
    assert (page.tags.count("iframe"), page.attributes["srcdoc"]) == (1, '<p title="x">the report</p>')
    assert page.attributes["sandbox"] == "allow-scripts"  # not of the origin of the notebook


def test_a_page_that_is_missing_or_too_large_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "report.html"
    assert inline_page(page) == ""
    page.write_text("12345")
    assert "12345" in inline_page(page)
    monkeypatch.setattr(notebook, "LARGEST_PAGE", 4)
    assert inline_page(page) == ""


def test_groups_and_texts_are_escaped_in_their_order() -> None:
    table = Table(title="t<")
    table.add_column("h<")
    assert "".join(Reader(html_of(Group("a<", Text("b<"), table), "c<")).texts).split() == [
        "a<",
        "b<",
        "t<",
        "h<",
        "c<",
    ]
