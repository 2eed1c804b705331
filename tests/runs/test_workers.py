"""Jobs in child processes: their results, errors, notes and end."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from recorders import NoteRecorder
from vl2v.errors import Interrupted, RunError, TrainingError
from vl2v.interrupts import stop_requests
from vl2v.progress import Progress, Silent
from vl2v.training import workers
from vl2v.training.workers import Workers


def run_until_stopped() -> None:
    with stop_requests() as stop:
        while not stop():
            time.sleep(0.01)
    raise Interrupted("Stopped.")


def work(text: str, progress: Progress) -> str:
    if text == "fail":
        raise TrainingError("It failed.", expected="this", found="that", next_step="another")
    if text == "die":
        os._exit(9)
    if text == "wait":
        run_until_stopped()
    progress.note(f"doubling {text}")
    return 2 * text


def results(pool: Workers, progress_notes: NoteRecorder, *jobs: str) -> dict[str, Any]:
    outcomes: dict[str, Any] = {}
    waiting = iter(jobs)
    for key, result in pool.map(work, lambda: next(waiting, None), progress_notes, str.upper):
        try:
            outcomes[key] = result()
        except (TrainingError, RunError) as error:
            outcomes[key] = error
    return outcomes


def leave_with_an_error() -> None:
    waiting = iter(("wait", "a"))
    with Workers(2) as pool:
        for _, result in pool.map(work, lambda: next(waiting, None), Silent(), str):
            raise KeyError(result())


@pytest.mark.slow
def test_results_errors_and_notes_are_returned_and_a_dead_process_is_reported() -> None:
    progress_notes = NoteRecorder()
    with Workers(2) as pool:
        outcomes = results(pool, progress_notes, "a", "fail", "b")
        assert (outcomes["a"], outcomes["b"]) == ("aa", "bb")
        error = outcomes["fail"]
        assert (error.problem, error.found, error.next_step) == ("It failed.", "that", "another")
        assert sorted(progress_notes.lines) == ["A", "A: doubling a", "B", "B: doubling b", "FAIL"]
        assert "--jobs 1" in str(results(pool, progress_notes, "die")["die"])
    with pytest.raises(KeyError, match="aa"):
        leave_with_an_error()  # does not return before the job is requested to stop


def test_a_job_stops_when_the_process_that_began_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Parent:
        def is_alive(self) -> bool:
            return False

    monkeypatch.setattr("vl2v.training.workers.multiprocessing.parent_process", Parent)
    with pytest.raises(Interrupted):
        workers._do(work, "wait")
