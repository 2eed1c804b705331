"""Commands in the process of the tests do not change it, and behave like `vl2v` in a child process."""

from __future__ import annotations

import logging
import os
import pickle
import random
import signal
import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
import typer
from tiny_dataset import Bench, Runs

from command_line import run_cli
from fork_server import fork_vl2v
from once import Once


def state() -> dict[str, Any]:
    """Return the state of the process that a command could change."""
    return {
        "environment": dict(os.environ),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "levels": [logging.getLogger(name).level for name in (None, "timm", "transformers")],
        "filters": list(warnings.filters),
        "threads": torch.get_num_threads(),
        "torch": torch.get_rng_state().tolist(),
        "random": random.getstate(),
        "numpy": pickle.dumps(np.random.get_state()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "folder": Path.cwd(),
    }


def test_changes_of_a_command_to_its_process_are_undone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    test_app = typer.Typer()

    @test_app.command()
    def change(value: Annotated[int, typer.Argument()]) -> None:
        os.environ["VL2V_LEAK"] = "1"
        os.environ.pop("PATH")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        logging.getLogger("timm").setLevel(value)
        warnings.simplefilter("ignore")
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.manual_seed(value)
        random.seed(value)
        np.random.seed(value)
        torch.use_deterministic_algorithms(True)
        torch.set_grad_enabled(False)
        os.chdir(tmp_path)
        print(f"width {os.environ['COLUMNS']}")

    monkeypatch.setattr("vl2v.cli.app", test_app)
    before = state()
    done = run_cli("77")
    assert (done.returncode, done.stdout) == (0, "width 200\n")
    assert state() == before


def test_an_unexpected_exception_reaches_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    test_app = typer.Typer()

    @test_app.command()
    def fail() -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("vl2v.cli.app", test_app)
    with pytest.raises(ZeroDivisionError, match="a fault"):
        run_cli()


@pytest.mark.slow
def test_a_complete_run_does_not_change_the_process(bench: Bench, tmp_path: Path) -> None:
    before = state()
    done = run_cli(*bench.distill(tmp_path / "run", "--steps", "4", "--align-steps", "4", "--report"))
    assert done.returncode == 0, done.stderr
    assert "report: " in done.stdout
    assert state() == before


@pytest.mark.system
def test_a_child_process_prints_and_writes_the_same(bench: Bench, runs: Runs, tmp_path: Path) -> None:
    made = runs.get()
    child = fork_vl2v(*bench.distill(tmp_path / "run"), "--json", "--store", str(tmp_path / "vectors.sqlite"))
    assert child.done.returncode == 0, child.stderr
    assert (tmp_path / "run" / "student" / "model.safetensors").read_bytes() == made.student.read_bytes()
    assert child.stdout.replace(str(tmp_path / "run"), "RUN") == made.done.stdout.replace(str(made.folder), "RUN")


@pytest.mark.system
def test_an_exception_in_a_child_process_is_reported(bench: Bench, tmp_path: Path) -> None:
    wrong = ["quote", str(tmp_path / "absent"), "--teacher", bench.teacher]
    forked, in_process = fork_vl2v(*wrong).done, run_cli(*wrong)
    assert vars(forked) == vars(in_process)
    assert forked.returncode == 3
    assert fork_vl2v("--no-such-option").wait() == 2
    killed = fork_vl2v(*bench.distill(tmp_path / "run", "--steps", "1000"))
    assert killed.kill() == -signal.SIGKILL


def test_a_run_is_trained_once(bench: Bench, tmp_path: Path) -> None:
    runs = Runs(bench, Once(tmp_path / "shared"))
    flags = ("--steps", "2", "--align-steps", "2", "--no-zero-shot")
    first = runs.get(*flags)
    written = first.student.stat().st_mtime_ns
    again = Runs(bench, Once(tmp_path / "shared")).get(*flags)
    assert again == first
    assert again.student.stat().st_mtime_ns == written
    assert again.result["image_queries"] == 48


def test_a_folder_whose_creation_failed_is_created_by_the_next_caller(tmp_path: Path) -> None:
    once = Once(tmp_path / "shared")

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        once("it", fail)
    assert not list(once("it", lambda folder: None).iterdir())
