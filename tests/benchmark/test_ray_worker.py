"""A machine that differs from the driver's says so before it does anything; here both are this one."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_dataset import Bench
from tiny_grid import opened, tiny_grid

from vl2v.benchmark.purchase import buy_ahead
from vl2v.benchmark.ray_worker import Assignment, file_system, work
from vl2v.benchmark.sweep import Sweep
from vl2v.errors import BudgetError, MissingExtraError, RunError, Vl2vError
from vl2v.progress import Silent


def assigned(bench: Bench, out: Path, data: Path) -> tuple[Sweep, Assignment]:
    sweep = opened(bench, out, tiny_grid(bench, change={"data": {"root": str(data)}}))
    bought = buy_ahead(sweep, Silent())
    bought.write(sweep.storage.store, sweep.out / "vectors" / "v.sqlite")
    (sweep.out / "running").mkdir()
    (sweep.out / "running" / "mark").touch()
    return sweep, Assignment(
        sweep.grid, sweep.origin, bought.card, sweep.out, sweep.storage.cache, "v.sqlite", "mark",
        1, True,
    )  # fmt: skip


def said(assignment: Assignment, sweep: Sweep) -> str:
    outcome = work((assignment, sweep.jobs()[0]))
    assert not outcome.finished
    assert isinstance(outcome.error, RunError)
    assert not list((sweep.out / "jobs").glob("*")), "nothing was begun"
    return str(outcome.error)


def test_a_folder_that_is_not_the_shared_one(bench: Bench, tmp_path: Path) -> None:
    sweep, assignment = assigned(bench, tmp_path / "grid", bench.data)
    assert "does not see the benchmark's folder" in said(replace(assignment, out=tmp_path / "elsewhere"), sweep)
    assert "another folder with that name" in said(replace(assignment, mark="of another driver"), sweep)


def test_other_images_or_no_images(bench: Bench, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(bench.data, data)
    sweep, assignment = assigned(bench, tmp_path / "grid", data)
    one, other = data / "ink/bar/0.png", data / "neon/bar/0.png"
    shutil.copyfile(other, one)
    assert "has other images or another student" in (text := said(assignment, sweep))
    assert f"not {sweep.origin.data}" in text
    shutil.rmtree(data)
    assert "cannot read the data of the benchmark" in said(assignment, sweep)


def test_the_kind_of_file_system(tmp_path: Path) -> None:
    assert file_system(Path("/proc/self")) == "proc"
    assert file_system(tmp_path) not in ("", "proc")


@pytest.mark.parametrize("error", [BudgetError("No.", found="0", next_step="more"), MissingExtraError("It", "x", "y")])
def test_errors_come_whole_from_another_process(error: Vl2vError) -> None:
    found = pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert (found.problem, found.found, found.next_step) == (error.problem, error.found, error.next_step)
