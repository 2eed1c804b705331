"""Run several jobs in parallel processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.synchronize import Event
from types import TracebackType
from typing import Any, Self, TypeVar

from vl2v.allocator import keep_freed_memory
from vl2v.errors import Interrupted, RunError
from vl2v.interrupts import stop_when
from vl2v.progress import Progress, Silent

Key = TypeVar("Key")
R = TypeVar("R")
POLL_SECONDS = 0.5  # maximum time between two checks whether to stop
PRELOADED = ("vl2v.commands.distill",)  # which imports torch once for all processes


class Notes(Silent):
    """Progress that stores its notes and warnings."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        self.lines.append(text)

    def warn(self, text: str) -> None:
        """See `vl2v.progress.warn`; a Python warning of a worker would have no title."""
        self.lines.append(f"warning: {text}")


class Workers:
    """Worker processes; a context manager.

    If the block ends with an error, running jobs are told to stop, and save their state before the block ends. They
    also stop if this process is killed.

    Args:
        count: number of jobs that run in parallel.
        stop: returns whether the user wants to stop, in which case the death of a process is not an error.
    """

    def __init__(self, count: int, stop: Callable[[], bool] = lambda: False) -> None:
        self.count, self._stop_requested = count, stop

    def __enter__(self) -> Self:
        if "forkserver" in multiprocessing.get_all_start_methods():
            context: Any = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(list(PRELOADED))
        else:
            context = multiprocessing.get_context("spawn")
        self._stop: Event = context.Event()
        self._pool = ProcessPoolExecutor(self.count, context, _begin, (self._stop,))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def map(
        self,
        work: Callable[[Key, Progress], R],
        following: Callable[[], Key | None],
        progress: Progress,
        title: Callable[[Key], str],
    ) -> Iterator[tuple[Key, Callable[[], R]]]:
        """Run jobs until `following` returns None and none is running.

        Args:
            work: function that a worker calls with the job and a `Progress`. It must be importable.
            following: returns the next job. It is called whenever a worker is idle.
            progress: receives the titles of jobs that start, and the notes of jobs that have ended.

        Yields:
            A job that has ended, and a function that returns its result or raises its error.

        Raises:
            Interrupted: if the user wants to stop.
        """
        running: dict[Future[tuple[R, list[str]]], Key] = {}
        while True:
            if self._stop_requested():
                raise Interrupted("Stopped.")
            while len(running) < self.count and (job := following()) is not None:
                progress.note(title(job))
                running[self._pool.submit(_do, work, job)] = job
            if not running:
                return
            for future in wait(running, POLL_SECONDS, FIRST_COMPLETED).done:
                job = running.pop(future)
                name = title(job)
                if future.exception() is None:
                    for line in future.result()[1]:
                        if line != name:
                            progress.note(f"{name}: {line}")
                yield job, partial(self._result, future, name)

    def _result(self, future: Future[tuple[R, list[str]]], title: str) -> R:
        try:
            return future.result()[0]
        except BrokenProcessPool as error:
            if self._stop_requested():
                raise Interrupted("Stopped.") from error
            raise RunError(
                f"The process of the job '{title}' died or could not start.",
                expected="a process that runs until its job is finished",
                found="it was killed, perhaps because memory ran out; or a script without `if __name__ == '__main__':`",
                next_step="run fewer jobs at once (vl2v benchmark run --jobs 1); the same command continues",
            ) from error


_stop: Event | None = None
_at_work = threading.Lock()


def _begin(stop: Event) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; a run handles it itself
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()


def _end_with_parent() -> None:
    """End this process after its parent has died, when the running job has saved its state."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        with _at_work:
            os._exit(1)


def _do(work: Callable[[Key, Progress], R], job: Key) -> tuple[R, list[str]]:
    notes, parent = Notes(), multiprocessing.parent_process()

    def requested() -> bool:
        return (_stop is not None and _stop.is_set()) or (parent is not None and not parent.is_alive())

    with _at_work, stop_when(requested):
        return work(job, notes), notes.lines
