from __future__ import annotations

import csv
import io
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_records import DOMAINS, SEEDS, accuracy_of, grid
from matplotlib.text import Annotation
from PIL import Image

from vl2v.benchmark.curves import COLOURS, Curve, line_names
from vl2v.benchmark.results import ZERO_SHOT, Record
from vl2v.benchmark.selection import ORACLE
from vl2v.benchmark.tables import Table
from vl2v.benchmark.tabulate import tabulate
from vl2v.errors import ConfigError

VIEWS = (1, 4, 16)


def records() -> list[Record]:
    """Return a curve of ADiP with three numbers of views, fixed or fresh; fresh views are three points better."""
    curve_built = [r for r in grid() if r.method != "adip"]
    for r in (r for r in grid() if r.method == "adip"):
        for kind, above in (("fixed", 0.0), ("fresh", 0.03)):
            for k in VIEWS:
                test = replace(r.test, accuracy=r.test.accuracy + above + 0.001 * k)
                more: dict[str, Any] = {"title": f"{kind} {k}", "image_queries": 9991 * k, "test": test}
                curve_built.append(replace(r, method=f"{kind}-{k}", **more))
    return curve_built


def curve(table: Table | None = None) -> Curve:
    table = table or tabulate(records(), "PACS", published=True)
    line = {row.method: row.method.split("-")[0] for row in table.rows}
    return Curve.of(table, line=line, references=(ZERO_SHOT, "erm"))


def test_points_are_at_the_number_of_bought_queries() -> None:
    curve_built = curve()
    assert list(curve_built.lines) == ["fixed", "fresh"]
    assert [p.x for p in curve_built.lines["fixed"]] == [9991, 4 * 9991, 16 * 9991]
    averages = [np.mean([accuracy_of("adip", target, seed) for target in DOMAINS]) for seed in SEEDS]
    first = curve_built.lines["fixed"][0].accuracy
    assert first.mean == pytest.approx(np.mean(averages) + 0.001)
    assert first.error == pytest.approx(np.std(averages, ddof=1) / np.sqrt(3))
    assert list(curve_built.references) == ["zero-shot teacher", "ERM"]


def test_x_can_be_stated_by_label() -> None:
    table = tabulate(records(), "PACS")
    labels = {"fixed-1": 1.0, "fixed-4": 2.0, "fresh-1": 4.0}
    curve_built = Curve.of(table, "labels per class", x=labels)
    assert [(p.x, p.method) for p in curve_built.lines["student"]] == [
        (1.0, "fixed-1"),
        (2.0, "fixed-4"),
        (4.0, "fresh-1"),
    ]
    assert curve_built.references == {}


def test_rows_that_differ_in_more_than_their_queries_are_separate_curves() -> None:
    names = line_names(
        {
            "adip": {},
            "two": {"method": "adip", "teacher": {"views": 2}, "data": {"rest_unlabelled": False}},
            "fresh": {"teacher": {"views": "fresh"}},
            "kd": {"method": "kd", "data": {"rest_unlabelled": True, "labels_per_class": 4}},
        }
    )
    assert names["adip"] == names["two"] == "VL2V-ADiP"
    assert names["fresh"] == "VL2V-ADiP, fresh views"
    assert names["kd"] == "naive distillation, unlabelled too"


def test_csv_has_every_figure() -> None:
    curve_built = curve()
    lines = list(csv.DictReader(io.StringIO(curve_built.csv())))
    points = [(name, p) for name, points in curve_built.lines.items() for p in points]
    assert len(lines) == len(points) + 2
    for line, (name, point) in zip(lines, points, strict=False):
        assert (line["line"], line["method"], float(line["x"])) == (name, point.method, point.x)
        assert (float(line["accuracy"]), float(line["accuracy_se"])) == (point.accuracy.mean, point.accuracy.error)


def test_the_figure_shows_the_points_with_their_errors() -> None:
    (axes,) = curve().figure().axes
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["9,991", "39,964", "159,856"]
    bars = {tuple(bar[0].get_ydata()): bar for bar in axes.containers}
    for points, colour in zip(curve().lines.values(), COLOURS, strict=False):
        bar = bars[tuple(100 * p.accuracy.mean for p in points)]
        assert bar[0].get_color() == colour
        heights = [np.ptp(segment[:, 1]) / 2 for segment in bar[2][0].get_segments()]
        assert heights == pytest.approx([100 * p.accuracy.error for p in points])
    beside = {f"{kind}-{k}": k * (1.0 if kind == "fixed" else 1.05) for kind in ("fixed", "fresh") for k in VIEWS}
    (axes,) = Curve.of(tabulate(records(), "PACS"), x=beside).figure().axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "4", "16"]  # no space for 1.05 next to 1
    near = curve(tabulate([r for r in records() if not r.method.endswith("16")], "PACS"))
    assert near.figure().axes[0].get_xscale() == "linear"


def test_names_do_not_overlap() -> None:
    table = tabulate([replace(r, test=replace(r.test, accuracy=0.7)) for r in records()], "PACS")
    figure = curve(table).figure()
    figure.draw_without_rendering()
    names = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    assert {text.get_text() for text in names} == {"fixed", "fresh", "zero-shot teacher", "ERM"}
    boxes = [text.get_window_extent() for text in names]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_files_have_the_format_of_their_suffix(tmp_path: Path) -> None:
    curve().save(tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as image:
        assert image.format == "PNG"
    for name in ("one.svg", "two.svg"):
        curve().save(tmp_path / name)
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text()
    for part in ("fixed", "fresh", "zero-shot teacher", "standard error over 3 seeds", "training-domain validation"):
        assert part in text
    with pytest.raises(ConfigError, match=r"\.svg"):
        curve().save(tmp_path / "curve.docx")


def test_unfinished_averages_are_omitted_and_the_oracle_is_marked() -> None:
    gone = [r for r in records() if (r.method, r.target) != ("fixed-4", "art")]
    assert [p.method for p in curve(tabulate(gone, "PACS")).lines["fixed"]] == ["fixed-1", "fixed-16"]
    oracle = curve(tabulate(records(), "PACS", rule=ORACLE))
    assert "oracle" in oracle.csv()
    assert "(oracle)" in oracle.figure().axes[0].get_title(loc="left")
    assert "(oracle)" not in curve().figure().axes[0].get_title(loc="left")


def test_curves_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(ConfigError, match="no point"):
        Curve.of(tabulate(grid(), "PACS"), x={})
    without = [replace(r, weights="best", saved=False) for r in grid() if r.method != ZERO_SHOT]
    with pytest.raises(ConfigError, match="ambiguous"):
        Curve.of(tabulate([*grid(), *without], "PACS", weights=("swad", "best")))
