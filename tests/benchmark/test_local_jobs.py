"""Jobs of a grid in several processes: the number of processes and threads, and equal students."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from tiny_dataset import Bench, bench, environment, vl2v  # noqa: F401 - a fixture
from tiny_grid import opened, tiny_grid
from typer.testing import CliRunner

from recorders import NoteRecorder
from vl2v.benchmark import local_jobs
from vl2v.benchmark.local_jobs import jobs_at_once, resolve_threads, run_locally
from vl2v.benchmark.protocol import load_grid
from vl2v.benchmark.results import is_finished
from vl2v.benchmark.sweep import Sweep
from vl2v.cli import app
from vl2v.errors import Interrupted
from vl2v.interrupts import stop_when
from vl2v.progress import Silent
from vl2v.training.duration import Rates

GB = 2**30
SETTINGS = ("student.size=32", "distill.steps=8", "distill.checkpoint_every=4", "batch_per_domain=4", "device=cpu")


def weights(sweep: Sweep) -> dict[str, bytes]:
    jobs = [job for job in sweep.jobs() if is_finished(sweep.out, job)]
    return {job.name: (sweep.out / "jobs" / job.name / "student/model.safetensors").read_bytes() for job in jobs}


@pytest.mark.slow
def test_parallel_jobs_stop_continue_and_give_the_same_students(bench: Bench, tmp_path: Path) -> None:
    grid = tiny_grid(bench, targets=("rose", "ink"), change={"threads": 1})
    one, two = opened(bench, tmp_path / "one", grid), opened(bench, tmp_path / "two", grid)
    run_locally(one, 1, Silent())
    notes = NoteRecorder()
    with pytest.raises(Interrupted, match="states"), stop_when(lambda: bool(weights(two))):
        run_locally(two, 2, notes)
    begun = notes.lines
    assert len(begun) == len(set(begun)) >= 2
    done = run_locally(two, 2, Silent())
    assert (len(done.finished), done.failed) == (4, {})
    assert weights(two) == weights(one)
    actual, expected = ({(r.method, r.target): r.test for r in sweep.records()} for sweep in (two, one))
    assert actual == expected


@pytest.mark.system
def test_a_killed_command_leaves_no_process_and_can_be_continued(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    settings = [part for item in SETTINGS for part in ("--set", item)]
    base = ["benchmark", "run", "--data", str(bench.data), "--teacher", bench.teacher, "--student", bench.student]
    flags = bench.flags(*base, "--out", str(out), "--methods", "erm", "--seeds", "2", "--jobs", "2", "-q", *settings)
    command = psutil.Popen([sys.executable, "-m", "vl2v", *flags], env=environment())
    while not list(out.glob("jobs/*/job.json")):
        assert command.poll() is None
        time.sleep(0.05)
    children = command.children(recursive=True)
    command.kill()
    command.wait()
    assert len(children) >= 2
    assert psutil.wait_procs(children, timeout=120)[1] == []
    before = {file: file.stat().st_mtime_ns for file in out.glob("jobs/*/job.json")}
    done = vl2v(*flags)
    assert done.returncode == 0, done.stderr
    after = {file: file.stat().st_mtime_ns for file in out.glob("jobs/*/job.json")}
    assert len(after) == 6
    assert {file: after[file] for file in before} == before


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A simulated machine."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def make(cores: int, free: float, step: float = 1.0, memory: float = 1.0) -> None:
        monkeypatch.setattr(local_jobs, "cores", lambda: cores)
        monkeypatch.setattr(local_jobs, "free_memory", lambda: int(free * GB))
        monkeypatch.setattr(local_jobs, "peak_memory", lambda: int(memory * GB))
        monkeypatch.setattr(Rates, "measure", lambda _, __, images, *___, **____: Rates(step / images, 0))

    return make


def test_as_many_jobs_as_cores_and_memory_allow(bench: Bench, tmp_path: Path, machine: Any) -> None:
    sweep = opened(bench, tmp_path / "grid", tiny_grid(bench, steps=100))
    assert len(sweep.jobs()) == 6
    machine(cores=2, free=16)
    assert jobs_at_once(sweep) == 2
    machine(cores=16, free=64)
    assert jobs_at_once(sweep) == 6, "no more than there are jobs"
    machine(cores=16, free=4)
    assert jobs_at_once(sweep) == 3
    machine(cores=16, free=0.1)
    assert jobs_at_once(sweep) == 1
    machine(cores=1, free=64)
    assert jobs_at_once(sweep) == 1
    machine(cores=2, free=64, step=0.01)
    assert jobs_at_once(sweep) == 1, "six seconds of work are not worth a second process"


def test_jobs_of_several_threads_share_the_cores(bench: Bench, tmp_path: Path, machine: Any) -> None:
    machine(cores=8, free=64)
    assert jobs_at_once(opened(bench, tmp_path / "grid", tiny_grid(bench, steps=100, change={"threads": 4}))) == 2


def test_a_grid_continues_with_its_number_of_threads(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(local_jobs, "training_threads", lambda *_: 3)
    out, grid = tmp_path / "grid", tiny_grid(bench)
    sweep = opened(bench, out, grid)
    keys = {job.key for job in sweep.jobs()}
    resolve_threads(sweep, 1)
    assert {job.config.threads for job in sweep.jobs()} == {3}
    assert {job.key for job in sweep.jobs()} == keys, "results found before are found again"
    again = opened(bench, out, grid)
    resolve_threads(again, 2)
    assert load_grid(out)[0].settings["threads"] == 3
    stated = opened(bench, out, tiny_grid(bench, change={"threads": 2}))
    resolve_threads(stated, 1)
    assert {job.config.threads for job in stated.jobs()} == {2}
    fresh = opened(bench, tmp_path / "fresh", grid)
    resolve_threads(fresh, 2)
    assert {job.config.threads for job in fresh.jobs()} == {1}, "one each, side by side"


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_a_wrong_number_of_jobs_is_refused(bench: Bench, tmp_path: Path, text: str) -> None:
    flags = ["--data", str(bench.data), "--teacher", bench.teacher, "--student", bench.student, "--jobs", text]
    done = CliRunner().invoke(app, bench.flags("benchmark", "run", "--out", str(tmp_path / "out"), *flags))
    assert done.exit_code == 2
    assert "expected: auto, or a number of at least 1" in done.output
    assert not (tmp_path / "out").exists()
