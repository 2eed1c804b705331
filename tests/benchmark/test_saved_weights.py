"""The weights that a run saved are called saved; the former name still works."""

from __future__ import annotations

import csv
import io

import pytest
from made_records import grid, record

from vl2v.benchmark.render.data import to_csv
from vl2v.benchmark.tabulate import tabulate


def test_the_csv_calls_the_weights_of_the_run_saved() -> None:
    rows = csv.DictReader(io.StringIO(to_csv(tabulate(grid(), "PACS"))))
    assert {row["weights"] for row in rows if row["method"] != "zero-shot"} == {"saved"}


def test_the_old_name_of_the_field_works_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match=r"Record\.saved"):
        assert record("erm", "sketch", 0).kept
