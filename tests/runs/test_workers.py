"""Jobs in processes of their own: their results, their errors, their notes, and their end."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from vl2v.errors import Interrupted, RunError, TrainingError
from vl2v.progress import Progress, Silent
from vl2v.stopping import stop_asked
from vl2v.training import workers
from vl2v.training.workers import Workers


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def double(number: int, progress: Progress) -> int:
    progress.note(f"doubling {number}")
    return 2 * number


def fail(progress: Progress) -> None:
    raise TrainingError("It failed.", expected="this", found="that", next_step="another")


def die(progress: Progress) -> None:
    os._exit(9)


def run_until_asked(progress: Progress) -> None:
    with stop_asked() as stop:
        while not stop():
            time.sleep(0.01)
    raise Interrupted("Stopped.")


def results(pool: Workers[str], heard: Heard) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while pool.running:
        for key, result in pool.finished(heard, str.upper):
            try:
                found[key] = result()
            except (TrainingError, RunError) as error:
                found[key] = error
    return found


def leave_with_an_error() -> None:
    with Workers[str](1) as pool:
        pool.start("d", run_until_asked)
        raise KeyError


@pytest.mark.slow
def test_results_errors_and_notes_come_back_and_a_dead_process_is_told() -> None:
    heard = Heard()
    with Workers[str](2) as pool:
        pool.start("a", double, 4)
        pool.start("b", fail)
        assert (pool.room, pool.running) == (0, ["a", "b"])
        found = results(pool, heard)
        assert found["a"] == 8
        assert (found["b"].problem, found["b"].found, found["b"].next_step) == ("It failed.", "that", "another")
        assert heard.lines == ["A: doubling 4"]
        pool.start("c", die)
        assert "--jobs 1" in str(results(pool, heard)["c"])
    with pytest.raises(KeyError):
        leave_with_an_error()  # does not return before the job was asked to stop


def test_a_job_stops_when_the_process_that_began_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Parent:
        def is_alive(self) -> bool:
            return False

    monkeypatch.setattr("vl2v.training.workers.multiprocessing.parent_process", Parent)
    with pytest.raises(Interrupted):
        workers._do(run_until_asked, ())
