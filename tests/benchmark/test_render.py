from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_records import DOMAINS, grid
from rich.console import Console

from vl2v.benchmark.render import FORMATS, latex, markdown, render
from vl2v.benchmark.render.layout import BEST, NEAR, lay_out
from vl2v.benchmark.render.text import renderable
from vl2v.benchmark.results import ZERO_SHOT
from vl2v.benchmark.selection import LAST, ORACLE
from vl2v.benchmark.tables import Table
from vl2v.benchmark.tabulate import tabulate
from vl2v.errors import ConfigError

READ_BY_PEOPLE = ("text", "md", "latex", "html")


def full_table() -> Table:
    return tabulate(grid(), "PACS", against="erm", published=True)


def unfinished() -> Table:
    gone = {("adip", "sketch", seed) for seed in range(3)} | {("adip", "photo", 2)}
    return tabulate([r for r in grid() if (r.method, r.target, r.seed) not in gone], "PACS", against="erm")


def named(table: Table, title: str) -> Table:
    first, *others = table.rows
    return replace(table, rows=(replace(first, title=title), *others))


@pytest.mark.parametrize("format", READ_BY_PEOPLE)
def test_readable_formats_state_the_protocol(format: str) -> None:
    text = " ".join(render(full_table(), format).split())
    for part in ("3 seeds (0, 1, 2)", "training-domain validation", "saved by each run", "standard error"):
        assert part in text
    for part in ("VL2V-ADiP", "against ERM", "published", "94.9", "quoted, not measured", "ViT-B/16", "1,000"):
        assert part in text
    assert "oracle" not in text.lower()
    marked = render(tabulate(grid(), "PACS", rule=ORACLE, weights=("swad",)), format)
    assert marked.count("oracle") >= 2
    assert "an upper bound" in marked
    assert "Weights: swad" in marked


def test_figures_are_in_their_rows() -> None:
    line = next(line for line in render(full_table(), "md").splitlines() if line.startswith("| VL2V-ADiP |"))
    expected = ["**78.1 ± 0.6**", "75.1 ± 0.8", "96.2 ± 0.9", "65.2 ± 1.1", "78.6 ± 0.8", "65.2 ± 1.1 (sketch)"]
    assert [cell.strip() for cell in line.split("|")[2:8]] == expected


def test_the_best_measured_rows_are_marked() -> None:
    records = [replace(r, test=replace(r.test, accuracy=r.test.accuracy + 0.007)) for r in grid() if r.method == "adip"]
    records = [replace(r, method="near", title="near") for r in records] + grid()
    layout = lay_out(tabulate(records, "PACS", published=True), "bold", "underlined")
    average = next(i for i, column in enumerate(layout.columns) if column.name == "average")
    emphasis = {line.title: line.cells[average].emphasis for line in layout.lines if "published" not in line.marks}
    assert emphasis == {"zero-shot teacher": NEAR, "near": BEST, "VL2V-ADiP": NEAR, "ERM": ""}
    assert all(line.cells[average].emphasis == "" for line in layout.lines if "published" in line.marks)
    ece = next(i for i, column in enumerate(layout.columns) if column.name == "ECE")
    assert {line.cells[ece].emphasis for line in layout.lines} == {""}  # all equal, so none is best
    better = [replace(r, test=replace(r.test, ece=0.02)) if r.method == "erm" else r for r in grid()]
    layout = lay_out(tabulate(better, "PACS"), "bold", "underlined")
    assert [line.cells[ece].emphasis for line in layout.lines] == ["", "", BEST]  # the lowest is the best


@pytest.mark.parametrize("format", READ_BY_PEOPLE)
def test_an_unfinished_grid_is_marked_as_unfinished(format: str) -> None:
    text = render(unfinished(), format)
    for part in ("(n=2)", "(3 of 4 targets)", "(8 pairs)", "Unfinished grid"):
        assert part in text
    lines = csv.DictReader(io.StringIO(render(unfinished(), "csv")))
    average = next(line for line in lines if (line["method"], line["scope"]) == ("adip", "average"))
    assert (average["seeds"], average["accuracy"], average["pairs"]) == ("0", "", "8")
    assert "Unfinished" not in render(full_table(), format)


def test_csv_has_every_figure() -> None:
    table = full_table()
    lines = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert len(lines) == 3 * (len(DOMAINS) + 1) + 6
    for row in table.rows:
        lines_of_row = [line for line in lines if (line["method"], line["marks"]) == (row.method, " ".join(row.marks))]
        by_target = {line["target"]: line for line in lines_of_row if line["scope"] == "target"}
        for target, measures in row.targets.items():
            assert float(by_target[target]["accuracy"]) == measures.accuracy.mean
            assert float(by_target[target]["accuracy_se"]) == measures.accuracy.error
        average = next(line for line in lines_of_row if line["scope"] == "average")
        assert row.average is not None
        assert float(average["accuracy"]) == row.average.accuracy.mean
        if row.against:
            assert float(average["difference"]) == row.against.spread.mean
            assert float(average["p"]) == row.against.p


def test_json_is_strict_and_has_every_figure() -> None:
    content = json.loads(render(full_table(), "json"), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    adip = next(row for row in content["rows"] if row["method"] == "adip")
    row = next(row for row in full_table().rows if row.method == "adip")
    assert row.average is not None
    assert adip["average"]["accuracy"]["mean"] == row.average.accuracy.mean
    assert adip["expense"]["cost"] == "1.25"
    published = next(row for row in content["rows"] if row["marks"] == ["published"])
    assert published["average"]["accuracy"]["error"] is None


class Cells(HTMLParser):
    """Collects the text of table cells, and the name and URL of every element."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.names: set[str] = set()
        self.addresses: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag in ("td", "th"):
            self.inside = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.cells[-1] += data


def test_the_page_is_self_contained_and_escapes_titles() -> None:
    page = render(named(full_table(), "<script>alert(1)</script> & Søn"), "html")
    parsed = Cells()
    parsed.feed(page)
    assert "<script>alert(1)</script> & Søn" in parsed.cells
    assert parsed.addresses == []
    assert not parsed.names & {"script", "link", "img", "iframe"}
    assert "url(" not in page
    assert "prefers-color-scheme: dark" in page
    assert "78.1 ± 0.6" in parsed.cells


AWKWARD = r"50% of A&B_{x} #1 $5 ~a^b \textbf{λ=1} | <b> *stars* `code`"


def test_markdown_escapes_what_would_be_markup() -> None:
    text = render(named(full_table(), AWKWARD), "md")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert (
        len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1
    )  # the bar in the title does not start a cell
    assert r"&lt;b&gt; \*stars\* \`code\`" in text


@pytest.mark.slow
@given(st.text())
def test_escaped_latex_has_no_commands(text: str) -> None:
    escaped = latex.escape(text)
    commands = r"\\(textbackslash|textasciitilde|textasciicircum)\{\}|\\[&%$#_{}]|\$\\?[a-z<>]+\$|\$\^2\$"
    assert not set(re.sub(commands, "", escaped)) & set(r"\~^&%$#_{}<>")


@given(st.text(alphabet=st.characters(codec="ascii")))
def test_escaped_markdown_has_no_markup(text: str) -> None:
    left = re.sub(r"\\[\\`*_{}\[\]|#~]|&(?:amp|lt|gt);", "", markdown.escape(text))
    assert not set(left) & set(markdown.SPECIAL + "&<>\n")


def test_latex_uses_booktabs() -> None:
    text = render(named(full_table(), AWKWARD), "latex")
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2
    assert r"\textbf{78.1}" in text
    assert r"50\% of A\&B\_\{x\} \#1 \$5 \textasciitilde{}a\textasciicircum{}b" in text
    for tabular in re.findall(r"\\begin\{tabular\}\{(l r*|lr*)\}(.*?)\\end", text, re.DOTALL):
        rows = [line for line in tabular[1].splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(tabular[0])}


@pytest.mark.system
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
def test_latex_compiles(tmp_path: Path) -> None:
    body = render(named(unfinished(), AWKWARD), "latex")
    text = r"\documentclass[twocolumn]{article}\usepackage{booktabs}\begin{document}" + body + r"\end{document}"
    (tmp_path / "table.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_a_terminal_shows_styles_and_signs() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system="standard")
    with console.capture() as capture:
        console.print(renderable(full_table()))
    assert "\x1b[1m*78.1 ± 0.6" in capture.get()
    assert "*78.1 ± 0.6" in render(full_table(), "text")
    assert "\x1b" not in render(full_table(), "text")


@pytest.mark.parametrize("format", READ_BY_PEOPLE)
def test_rows_of_several_weights_have_distinct_titles(format: str) -> None:
    without = [replace(r, weights="best", saved=False) for r in grid() if r.method != ZERO_SHOT]
    text = render(tabulate([*grid(), *without], "PACS", weights=(None, "best")), format)
    assert "VL2V-ADiP, saved weights" in text
    assert "VL2V-ADiP, best weights" in text
    assert "teacher, " not in text


def test_the_last_steps_weights_are_named() -> None:
    records = [replace(r, weights="last", saved=False) if r.method != ZERO_SHOT else r for r in grid()]
    assert "Weights: last." in render(tabulate(records, "PACS", rule=LAST), "text")


@pytest.mark.parametrize("format", FORMATS)
def test_a_single_seed_has_no_error(format: str) -> None:
    table = tabulate([r for r in grid() if r.seed == 0], "PACS")
    assert math.isnan(table.rows[0].targets["art"].accuracy.error)
    text = render(table, format)
    assert "nan" not in text.lower()
    if format in READ_BY_PEOPLE:
        assert "A single seed" in text


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(ConfigError, match="text, md, latex, csv, html, json"):
        render(full_table(), "docx")
