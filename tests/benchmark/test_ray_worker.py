"""A worker reports differences from the driver before it does anything. Here both are this machine."""

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
    purchase = buy_ahead(sweep, Silent())
    purchase.write(sweep.storage.store, sweep.out / "vectors" / "v.sqlite")
    (sweep.out / "running").mkdir()
    (sweep.out / "running" / "mark").touch()
    return sweep, Assignment(
        sweep.grid, sweep.origin, purchase.card, sweep.out, sweep.storage.cache, "v.sqlite", "mark",
        1, True,
    )  # fmt: skip


def refusal_of(assignment: Assignment, sweep: Sweep) -> str:
    outcome = work((assignment, sweep.jobs()[0]))
    assert not outcome.finished
    assert isinstance(outcome.error, RunError)
    assert not list((sweep.out / "jobs").glob("*")), "no job was started"
    return str(outcome.error)


def test_a_folder_that_is_not_shared_is_refused(bench: Bench, tmp_path: Path) -> None:
    sweep, assignment = assigned(bench, tmp_path / "grid", bench.data)
    assert "does not see the benchmark's folder" in refusal_of(replace(assignment, out=tmp_path / "elsewhere"), sweep)
    assert "another folder with that name" in refusal_of(replace(assignment, mark="of another driver"), sweep)


def test_other_or_missing_images_are_refused(bench: Bench, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(bench.data, data)
    sweep, assignment = assigned(bench, tmp_path / "grid", data)
    one, other = data / "ink/bar/0.png", data / "neon/bar/0.png"
    shutil.copyfile(other, one)
    assert "has other images or another student" in (text := refusal_of(assignment, sweep))
    assert f"not {sweep.origin.data}" in text
    shutil.rmtree(data)
    assert "cannot read the data of the benchmark" in refusal_of(assignment, sweep)


def test_the_kind_of_file_system_is_reported(tmp_path: Path) -> None:
    assert file_system(Path("/proc/self")) == "proc"
    assert file_system(tmp_path) not in ("", "proc")


@pytest.mark.parametrize("error", [BudgetError("No.", found="0", next_step="more"), MissingExtraError("It", "x", "y")])
def test_errors_of_another_process_are_complete(error: Vl2vError) -> None:
    unpickled = pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
    assert type(unpickled) is type(error)
    assert str(unpickled) == str(error)
    assert (unpickled.problem, unpickled.found, unpickled.next_step) == (error.problem, error.found, error.next_step)
