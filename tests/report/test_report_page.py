"""The page has no external content, everything is escaped, and missing parts are reported."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_run import make_run
from typer.testing import CliRunner

from vl2v.api_report import make_report
from vl2v.cli import app
from vl2v.data.tables.imported import Origin, write_origin
from vl2v.errors import ConfigError, RunError
from vl2v.reports.drawing import inline
from vl2v.reports.source import read_run
from vl2v.runs.folder import RunFolder

VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Records the references of the page and whether every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.text: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.open += [] if tag in VOID else [tag]
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and re.match(r"(?:\w+:)?//|https?:", value or ""):
                self.outside.append(str(value))
            if name == "id":
                self.ids.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: Path) -> tuple[Reader, str]:
    reader, html = Reader(), page.read_text(encoding="utf-8")
    reader.feed(html)
    assert not reader.open
    return reader, " ".join(" ".join(reader.text).split())


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    return make_report(make_run(root).folder, root / "none.sqlite")


def test_the_page_has_no_external_content(page: Path) -> None:
    reader, _ = read(page)
    assert reader.outside == []
    html = page.read_text(encoding="utf-8")
    assert not re.search(r"url\((?!#)", html)
    assert "script" not in reader.tags
    assert len(set(reader.ids)) == len(reader.ids), "two drawings would share their markers"
    assert page.stat().st_size < 3_000_000
    for target in re.findall(r'href="(report/[^"]+)"', html):
        assert (page.parent / target).is_file()


def test_the_top_of_the_page_has_the_main_figures(page: Path) -> None:
    _, text = read(page)
    assert "VL2V-ADiP trained a student" in text
    assert "the held-out domain rose" in text
    assert "160 image and 3 text queries, worth 0.080 USD" in text
    assert re.search(r'<h1>[^<]+</h1>.*<h2 id="accuracy-title">', page.read_text(), re.DOTALL)


def test_data_of_another_tool_have_the_name_stated_by_the_user(tmp_path: Path) -> None:
    folder = RunFolder(make_run(tmp_path).folder)
    table = tmp_path / "tables" / "0123456789abcdef.rows.jsonl"
    table.parent.mkdir()
    table.touch()
    write_origin(table, Origin("exports/project-7.json"))
    config = folder.config()
    data = config.data.model_copy(update={"root": table, "label": "species"})
    folder.write_config(config.model_copy(update={"data": data}))
    _, text = read(make_report(folder.path, tmp_path / "none.sqlite"))
    assert "project-7 without rose" in text
    assert "column species" in text
    assert "0123456789abcdef" not in text


def test_every_drawing_has_a_description(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    labels = re.findall(r'<svg [^>]*role="img" aria-label="([^"]*)"', html)
    assert len(labels) >= 12
    assert all(len(label) > 20 for label in labels)
    assert '<th scope="col">' in html
    assert '<th scope="row">' in html


def test_pictures_are_shown_if_the_images_still_exist(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    assert 1 <= html.count("data:image/jpeg;base64,") <= 8, "those of the held-out domain were never written"
    assert "are no longer in" in html


def test_hostile_class_names_are_escaped(tmp_path: Path) -> None:
    names = (
        "<script>alert(1)</script>",
        '"><img src=http://x.example/a.png>',
        "cost $x_1$ #010200 font-family: x; 1.23456",
    )
    page = make_report(make_run(tmp_path, names).folder, tmp_path / "none.sqlite")
    reader, text = read(page)
    assert "script" not in reader.tags
    assert reader.outside == []
    assert "<script>alert(1)</script>" in text
    assert "#010200 font-family: x; 1.23456" in text
    assert "<script" not in page.read_text(encoding="utf-8").lower()


def test_a_hundred_classes_are_summarised_by_their_most_frequent_mistakes(tmp_path: Path) -> None:
    made = make_run(tmp_path, [f"class {i}" for i in range(100)])
    _, text = read(make_report(made.folder, tmp_path / "none.sqlite"))
    assert "Most frequent mistakes, in-domain" in text
    assert "other classes" in text


def test_the_page_of_an_old_run_reports_missing_parts(tmp_path: Path) -> None:
    made = make_run(tmp_path, embeddings=False)
    (made.folder / "predictions.npz").unlink()
    (made.folder / "metrics.jsonl").unlink()
    shutil.rmtree(tmp_path / "data")
    _, text = read(make_report(made.folder, tmp_path / "none.sqlite"))
    assert "no saved predictions (predictions.npz is missing)" in text
    assert "no saved embeddings, which benchmark jobs never have (embeddings.npz is missing)" in text
    assert "There are no curves (metrics.jsonl is missing)" in text
    assert "The ledger is not available" in text
    assert not (tmp_path / "none.sqlite").exists(), "a report makes no store"
    assert not (made.folder / "report" / "confusion.csv").exists()


def test_a_broken_part_is_reported_and_the_rest_is_shown(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    (made.folder / "predictions.npz").write_bytes(b"PK no archive")
    (made.folder / "student" / "trust.json").write_text("{}")
    _, text = read(make_report(made.folder, tmp_path / "none.sqlite"))
    assert "predictions.npz cannot be read" in text
    assert "Embedding map" in text


@pytest.mark.parametrize(("part", "name"), [("trust", "student/trust.json"), ("export", "export/export.json")])
def test_a_link_to_nothing_is_not_a_missing_part(tmp_path: Path, part: str, name: str) -> None:
    file = make_run(tmp_path).folder / name
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    file.symlink_to("nothing")
    assert read_run(file.parent.parent).missing[part].startswith(f"{name} cannot be read: ")


def test_a_linear_classifier_has_no_embeddings_in_the_page(tmp_path: Path) -> None:
    made = make_run(tmp_path, method="erm")
    with np.load(made.folder / "embeddings.npz") as content:
        remaining = {name: content[name] for name in content.files if name not in ("aligned", "distilled")}
    np.savez(made.folder / "embeddings.npz", **remaining)
    _, text = read(make_report(made.folder, tmp_path / "none.sqlite"))
    assert "ERM is not in the teacher's embedding space" in text
    assert "Fine-tuning: training loss" in text


def test_the_price_per_hour_gives_the_cost(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    _, text = read(make_report(made.folder, tmp_path / "none.sqlite", "0.40"))
    assert "assumes 0.40 USD per hour" in text
    for wrong in ("-1", "much", "nan"):
        with pytest.raises(ConfigError, match="price of an hour"):
            make_report(made.folder, tmp_path / "none.sqlite", wrong)


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="contains no run"):
        make_report(tmp_path, tmp_path / "none.sqlite")
    made = make_run(tmp_path)
    (made.folder / "evaluation.json").unlink()
    with pytest.raises(RunError, match="unfinished"):
        make_report(made.folder, tmp_path / "none.sqlite")


def test_a_drawing_uses_the_colours_of_the_page() -> None:
    content = '<g id="a"><use xlink:href="#m" style="fill: #010200"/><text>#010200</text></g><g id="b"/>'
    svg = f'<?xml?><svg viewBox="0 0 1 1">{content}</svg>'
    drawing = inline(svg, "n", 'says "this"')
    assert 'href="#n-m" style="fill: var(--ink)"' in drawing
    assert "<text>#010200</text>" in drawing
    assert drawing.endswith("</g><g/></svg>")
    assert 'aria-label="says &quot;this&quot;"' in drawing


@pytest.mark.slow
def test_the_page_can_be_written_to_another_folder(page: Path, tmp_path: Path) -> None:
    run, out = page.parent, tmp_path / "pages" / "new"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    done = CliRunner().invoke(app, ["report", str(run), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"report": str(out / "report.html"), "values": str(out / "report")}
    names = {path.name for path in (run / "report").iterdir()}
    assert {path.name for path in (out / "report").iterdir()} == names
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
