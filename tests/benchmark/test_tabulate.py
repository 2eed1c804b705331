from __future__ import annotations

import csv
import io
import math
import random
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_records import DOMAINS, SEEDS, accuracy_of, grid, record
from scipy import stats

from vl2v.benchmark.published import BENCHMARKS, PUBLISHED
from vl2v.benchmark.render.data import to_csv
from vl2v.benchmark.results import ZERO_SHOT
from vl2v.benchmark.selection import ORACLE
from vl2v.benchmark.tables import Row, Table
from vl2v.benchmark.tabulate import tabulate
from vl2v.errors import ConfigError, RunError


def row_of(table: Table, method: str) -> Row:
    return next(row for row in table.rows if row.method == method)


def figures(method: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """[targets, seeds]."""
    return np.array([[accuracy_of(method, target, seed) for seed in SEEDS] for target in DOMAINS])


def test_cells_and_averages_are_those_of_numpy() -> None:
    table = tabulate(grid(), "PACS")
    assert [row.method for row in table.rows] == [ZERO_SHOT, "adip", "erm"]
    row, expected = row_of(table, "adip"), figures("adip")
    for target, values in zip(DOMAINS, expected, strict=True):
        spread = row.targets[target].accuracy
        assert spread.mean == pytest.approx(values.mean())
        assert spread.error == pytest.approx(values.std(ddof=1) / math.sqrt(3))
    assert row.average is not None
    assert row.average.accuracy.mean == pytest.approx(expected.mean())
    # Of the seeds' averages: the error is not that of the twelve values, nor the mean of the four errors.
    assert row.average.accuracy.error == pytest.approx(expected.mean(axis=0).std(ddof=1) / math.sqrt(3))
    assert row.average.in_domain is not None
    assert row.average.in_domain.mean == pytest.approx(0.901)
    assert row.average.ece is not None
    assert row.average.ece.mean == pytest.approx(0.1)
    assert row.worst == "sketch"
    assert row.expense is not None
    assert (row.expense.image_queries, row.expense.text_queries, row.expense.hours) == (1000, 7, 0.5)
    assert (row.expense.cost, row.expense.currency) == (Decimal("1.25"), "USD")
    assert all(row.marks == () for row in table.rows)


@settings(max_examples=15)
@given(st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_matter(chance: random.Random) -> None:
    records = grid()
    expected = tabulate(records, "PACS", against="erm", published=True)
    chance.shuffle(records)
    assert repr(tabulate(records, "PACS", against="erm", published=True)) == repr(expected)  # NaN is not equal itself


def test_differences_pair_targets_and_seeds_or_seeds_alone() -> None:
    difference = figures("adip") - figures("erm")
    row = row_of(tabulate(grid(), "PACS", against="erm"), "adip")
    assert row.against is not None
    assert row.against.spread.count == 12
    assert row.against.spread.mean == pytest.approx(difference.mean())
    assert row.against.p == pytest.approx(float(stats.ttest_1samp(difference.ravel(), 0).pvalue))
    row = row_of(tabulate(grid(), "PACS", against="erm", unit="seeds"), "adip")
    assert row.against is not None
    assert row.against.spread.count == 3
    assert row.against.spread.mean == pytest.approx(difference.mean())
    assert row.against.p == pytest.approx(float(stats.ttest_1samp(difference.mean(axis=0), 0).pvalue))
    assert row_of(tabulate(grid(), "PACS", against="erm"), "erm").against is None


def test_there_is_no_average_over_fewer_targets() -> None:
    def unfinished(record_method: str, target: str, seed: int) -> bool:
        return record_method == "adip" and (target == "sketch" or (target == "photo" and seed == 2))

    table = tabulate([r for r in grid() if not unfinished(r.method, r.target, r.seed)], "PACS", against="erm")
    row = row_of(table, "adip")
    assert row.average is None
    assert row.worst == ""
    assert "sketch" not in row.targets
    assert row.targets["photo"].accuracy.count == 2
    assert row.against is not None
    assert row.against.spread.count == 8
    table = tabulate([r for r in grid() if (r.method, r.target, r.seed) != ("adip", "art", 1)], "PACS")
    row = row_of(table, "adip")
    assert row.average is not None
    assert row.average.accuracy.count == 2
    assert row.average.accuracy.mean == pytest.approx(figures("adip")[:, [0, 2]].mean())


def test_with_and_without_swad_are_two_rows() -> None:
    without = [replace(r, weights="best", saved=False, test=replace(r.test, accuracy=0.4)) for r in grid()]
    records = grid() + [r for r in without if r.method != ZERO_SHOT]
    table = tabulate(records, "PACS", weights=("swad", "best"), against="erm")
    assert [(row.method, row.weights) for row in table.rows] == [
        (ZERO_SHOT, None),
        ("adip", "swad"),
        ("adip", "best"),
        ("erm", "swad"),
        ("erm", "best"),
    ]
    best = table.rows[2]
    assert best.average is not None
    assert best.average.accuracy.mean == pytest.approx(0.4)
    assert best.against is not None
    assert best.against.spread.mean == pytest.approx(0)  # against ERM of the same weights
    teacher, swad = table.rows[0].against, tabulate(grid(), "PACS", against="erm").rows[0].against
    assert teacher == swad
    against_teacher = tabulate(records, "PACS", weights=("swad", "best"), against=ZERO_SHOT)
    assert all(row.against for row in against_teacher.rows[1:])


def test_missing_values_are_an_error_or_reported() -> None:
    records = [*grid(), record("erm", "sketch", 0, candidate={"lr": 1}, weights="best", saved=False)]
    with pytest.raises(RunError, match="1 of 2 candidates"):
        tabulate(records, "PACS")
    table = tabulate(records, "PACS", partial=True)
    assert any("erm, target art, seed 0: 1 of 2 candidates" in line for line in table.lacking)
    assert "adip" in {row.method for row in table.rows}
    with pytest.raises(RunError, match="vl2v benchmark run"):
        tabulate([], "PACS")


def test_the_oracle_is_marked() -> None:
    marks = {row.method: row.marks for row in tabulate(grid(), "PACS", rule=ORACLE, published=True).rows[:3]}
    assert marks == {ZERO_SHOT: (), "adip": ("oracle",), "erm": ("oracle",)}


def test_published_rows_are_marked_and_sourced() -> None:
    table = tabulate(grid(), "terra-incognita", published=True)
    rows = [row for row in table.rows if "published" in row.marks]
    averages = [row.average.accuracy.mean for row in rows if row.average]
    assert averages == pytest.approx([0.338, 0.41, 0.523, 0.554, 0.585, 0.562])
    assert all("ViT-B/16" in row.source and "arXiv" in row.source for row in rows)
    assert not any(row.targets for row in rows)
    with pytest.raises(ConfigError, match="DomainNet"):
        tabulate(grid(), "my photos", published=True)


def test_published_means_are_those_of_their_benchmarks() -> None:
    for line in PUBLISHED:
        values = [line.average(benchmark) for benchmark in BENCHMARKS]
        assert 100 * np.mean([v for v in values if v is not None]) == pytest.approx(line.mean, abs=0.11)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="adip, erm, zero-shot"):
        tabulate(grid(), "PACS", against="miro")
    with pytest.raises(ConfigError, match="pairs or seeds"):
        tabulate(grid(), "PACS", unit="domains")
    paid = replace(grid()[-1], currency="EUR")
    with pytest.raises(RunError, match="EUR, USD"):
        tabulate([*grid()[:-1], paid], "PACS")


def test_calibrated_errors_are_in_csv_and_json_if_every_run_has_one() -> None:
    records = grid()
    some = [replace(r, test=replace(r.test, ece_calibrated=0.04)) if r.method == "adip" else r for r in records]
    table = tabulate(some, "PACS")
    averages = {row.method: row.average for row in table.rows}
    assert averages["adip"] is not None
    assert averages["adip"].ece_calibrated is not None
    assert averages["adip"].ece_calibrated.mean == pytest.approx(0.04)
    assert averages["erm"] is not None
    assert averages["erm"].ece_calibrated is None
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert {line["ece_calibrated"] != "" for line in lines if line["method"] == "adip"} == {True}
    assert {line["ece_calibrated"] for line in lines if line["method"] != "adip"} == {""}
