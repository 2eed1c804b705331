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
from typing import Any, Generic, Self, TypeVar

from vl2v.allocator import keep_freed_memory
from vl2v.errors import Interrupted, RunError
from vl2v.progress import Progress, Silent
from vl2v.stopping import stopped_by

Key = TypeVar("Key")
POLL_SECONDS = 0.5  # maximum duration of `finished`, so that its caller can check whether to stop
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


class Workers(Generic[Key]):
    """Worker processes; a context manager.

    If the block ends with an error, running jobs are told to stop, and save their state before the block ends. They
    also stop if this process is killed.

    Args:
        count: number of jobs that run in parallel.
        stop: returns whether the user wants to stop, in which case the death of a process is not an error.
    """

    def __init__(self, count: int, stop: Callable[[], bool] = lambda: False) -> None:
        self.count, self._stop_requested = count, stop
        self._running: dict[Future[tuple[Any, list[str]]], Key] = {}

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

    @property
    def room(self) -> int:
        """Number of further jobs that can be started now."""
        return self.count - len(self._running)

    @property
    def running(self) -> list[Key]:
        """Keys of the running jobs."""
        return list(self._running.values())

    def start(self, key: Key, work: Callable[..., Any], *arguments: Any) -> None:
        """Start a job.

        Args:
            key: key of the job in `finished`.
            work: function that is called in a worker with the arguments and a `Progress`. It must be importable.
        """
        self._running[self._pool.submit(_do, work, arguments)] = key

    def finished(self, progress: Progress, title: Callable[[Key], str]) -> Iterator[tuple[Key, Callable[[], Any]]]:
        """Wait briefly for jobs, and yield those that have ended.

        Yields:
            The key of the job, and a function that returns its result or raises its error.
        """
        for future in wait(self._running, POLL_SECONDS, FIRST_COMPLETED).done:
            key = self._running.pop(future)
            if future.exception() is None:
                for line in future.result()[1]:
                    progress.note(f"{title(key)}: {line}")
            yield key, partial(self._result, future, title(key))

    def _result(self, future: Future[tuple[Any, list[str]]], title: str) -> Any:
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


def _do(work: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, list[str]]:
    notes, parent = Notes(), multiprocessing.parent_process()

    def requested() -> bool:
        return (_stop is not None and _stop.is_set()) or (parent is not None and not parent.is_alive())

    with _at_work, stopped_by(requested):
        return work(*arguments, notes), notes.lines
