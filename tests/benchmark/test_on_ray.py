"""Grids on Ray. This file starts two clusters, and each worker has to import torch, which takes most of the time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_dataset import Bench, environment
from tiny_grid import opened, tiny_grid

from recorders import NoteRecorder
from vl2v.benchmark.local_jobs import run_locally
from vl2v.benchmark.on_ray import run_on_ray
from vl2v.benchmark.protocol import Variant
from vl2v.benchmark.sweep import Sweep
from vl2v.cluster.connection import connected
from vl2v.errors import ConfigError, MissingExtraError
from vl2v.progress import Silent

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("ray")]
TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def in_process(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    """The grid, run in this process with the number of threads of a job on Ray."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sweep = opened(bench, tmp_path_factory.mktemp("grid") / "in-process")
    run_locally(sweep, 1, Silent())
    yield sweep
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def two_workers(bench: Bench) -> Iterator[None]:
    """A cluster that the tests share; `run_on_ray` uses an existing connection."""
    with connected("local", 2):
        yield


def weights(sweep: Sweep) -> dict[str, bytes]:
    return {
        job.name: (sweep.out / "jobs" / job.name / "student/model.safetensors").read_bytes() for job in sweep.jobs()
    }


def processes(notes: NoteRecorder, title: str) -> list[int]:
    """Return the processes in which a job ran, in order."""
    return [int(line.rsplit("process ", 1)[1]) for line in notes.lines if line.startswith(f"{title}: runs")]


def finished_at(out: Path) -> dict[str, int]:
    return {file.parent.name: file.stat().st_mtime_ns for file in out.glob("jobs/*/job.json")}


def test_an_address_without_a_cluster_is_refused(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = opened(bench, tmp_path / "nowhere")
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:port"):
        with pytest.raises(ConfigError, match="no Ray cluster at"):
            run_on_ray(sweep, address, Silent())
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConfigError, match="no Ray cluster at auto"):
        run_on_ray(sweep, "auto", Silent())


@pytest.mark.usefixtures("two_workers")
def test_students_and_accuracies_are_those_of_one_process(bench: Bench, in_process: Sweep, tmp_path: Path) -> None:
    sweep, notes = opened(bench, tmp_path / "on-ray"), NoteRecorder()
    done = run_on_ray(sweep, "local", notes)
    assert (len(done.finished), done.failed) == (6, {})
    assert weights(sweep) == weights(in_process)
    actual, expected = ({(r.method, r.target, r.weights): r.test for r in s.records()} for s in (sweep, in_process))
    assert actual == expected
    assert len(actual) == 9
    pids = [pid for job in sweep.jobs() for pid in processes(notes, job.describe())]
    assert len(pids) == 6
    assert len(set(pids)) == 2, "two jobs at a time"
    assert list((sweep.out / "running").iterdir()) == []

    before = finished_at(sweep.out)
    assert len(run_on_ray(sweep, "local", Silent()).finished) == 6
    assert finished_at(sweep.out) == before, "finished jobs are not repeated"


@pytest.mark.usefixtures("two_workers")
def test_a_killed_worker_costs_only_what_its_job_had_not_saved(bench: Bench, in_process: Sweep, tmp_path: Path) -> None:
    sweep, notes = opened(bench, tmp_path / "killed"), NoteRecorder()
    killed: list[tuple[str, int, dict[str, int], int]] = []
    titles = {job.name: job.describe() for job in sweep.jobs()}

    def kill() -> None:
        """Return a worker in the middle of a job once another job is done."""
        while not killed:
            time.sleep(0.005)
            done = finished_at(sweep.out)
            for state in sweep.out.glob("jobs/*/state.safetensors") if done else ():
                name = state.parent.name
                if name not in done and (pids := processes(notes, titles[name])):
                    pid = pids[-1]
                    os.kill(pid, signal.SIGKILL)
                    began = (state.parent / "config.yaml").stat().st_mtime_ns
                    killed.append((name, pid, done, began))
                    return

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    done = run_on_ray(sweep, "local", notes)
    killer.join(1)
    assert (len(done.finished), done.failed) == (6, {})
    name, pid, before, began = killed[0]
    first, again = processes(notes, titles[name])
    assert first == pid != again
    assert (sweep.out / "jobs" / name / "config.yaml").stat().st_mtime_ns == began, "the job went on, in its folder"
    after = finished_at(sweep.out)
    assert {job: after[job] for job in before} == before
    assert weights(sweep) == weights(in_process)


@pytest.mark.usefixtures("two_workers")
def test_a_job_that_cannot_be_trained_is_reported_and_later_seeds_follow_the_choice(
    bench: Bench, tmp_path: Path
) -> None:
    wild = Variant(title="wild", settings={"method": "erm", "distill": {"learning_rate": 1e30}})
    grid = tiny_grid(bench, ("erm",), seeds=(0, 1), targets=("rose",))
    grid = grid.model_copy(update={"variants": grid.variants | {"wild": wild}})
    grid = grid.model_copy(update={"vary": {"distill.weight_decay": (0.0, 0.1)}, "tune": "first-seed"})
    sweep = opened(bench, tmp_path / "wild", grid)
    done = run_on_ray(sweep, "local", Silent())
    assert [job.method for job in done.finished] == ["erm"] * 3
    assert [job.seed for job in done.finished] == [0, 0, 1]
    assert len(done.failed) == 2
    assert all(name.startswith("wild") and "not finite" in why for name, why in done.failed.items())


@pytest.mark.usefixtures("two_workers")
def test_a_machine_that_is_too_small_for_one_job_is_refused(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="64 CPUs and 0 GPUs"):
        run_on_ray(opened(bench, tmp_path / "roomless"), "local", Silent(), cpus_per_job=64)


STOPPABLE = """
import sys
from pathlib import Path
from tiny_grid import opened, tiny_grid
from tiny_dataset import Bench
from vl2v.benchmark.on_ray import run_on_ray
from vl2v.errors import Interrupted
from vl2v.cli.console import LogLines
bench, out = Bench(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]), Path(sys.argv[5])
seldom = {"distill": {"checkpoint_every": 1000}}
grid = tiny_grid(bench, ("erm",), 5000, targets=("rose",), change=seldom)
try:
    run_on_ray(opened(bench, out, grid), "local", LogLines())
except Interrupted as stopped:
    sys.exit(f"STOPPED {stopped}")
"""


def test_ctrl_c_saves_the_state_of_running_jobs(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    arguments = [bench.root, bench.data, bench.teacher, bench.student, out]
    command = [sys.executable, "-c", STOPPABLE, *map(str, arguments)]
    folders = [str(TESTS), str(TESTS / "benchmark"), str(TESTS / "runs"), os.environ.get("PYTHONPATH", "")]
    env = environment() | {"PYTHONPATH": os.pathsep.join(folders)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        while not (states := list(out.glob("jobs/*/state.json"))):
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert "STOPPED Stopped with 0 of 1 jobs done" in errors
    assert 1 < json.loads(states[0].read_text())["step"] < 1000, "saved at the stop, between two checkpoints"


def test_without_ray_the_extra_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"vl2v\[ray\]"):
        run_on_ray(opened(bench, tmp_path / "no-ray"), "local", Silent())
