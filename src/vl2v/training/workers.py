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
from vl2v.training.process import stopped_by

Key = TypeVar("Key")
LOOK = 0.5  # seconds after which `finished` returns, so that its caller sees whether the user wants to stop
PRELOADED = ("vl2v.commands.distill",)  # and with it torch, once for all processes


class Notes(Silent):
    """Progress whose notes are remembered."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        self.lines.append(text)


class Workers(Generic[Key]):
    """Processes that do jobs; a context manager.

    If the context ends with an error, running jobs receive a request to stop, and save their state before it ends. They
    also stop when this process is killed.

    Args:
        count: how many jobs run at a time.
        stop: whether the user wants to stop; a process that died is then not an error.
    """

    def __init__(self, count: int, stop: Callable[[], bool] = lambda: False) -> None:
        self.count, self._asked = count, stop
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
        """How many jobs more can run now."""
        return self.count - len(self._running)

    @property
    def running(self) -> list[Key]:
        """The jobs that run now."""
        return list(self._running.values())

    def start(self, key: Key, work: Callable[..., Any], *arguments: Any) -> None:
        """Begin a job.

        Args:
            key: what `finished` calls it.
            work: called in another process with the arguments and a `Progress`; a function that can be imported.
            arguments: anything that can be pickled.
        """
        self._running[self._pool.submit(_do, work, arguments)] = key

    def finished(self, progress: Progress, title: Callable[[Key], str]) -> Iterator[tuple[Key, Callable[[], Any]]]:
        """The jobs that ended, each with a call that gives its result or raises its error; waits a moment for one.

        Args:
            progress: receives the notes of the jobs.
            title: a job's name, to begin its notes with.
        """
        for future in wait(self._running, LOOK, FIRST_COMPLETED).done:
            key = self._running.pop(future)
            if future.exception() is None:
                for line in future.result()[1]:
                    progress.note(f"{title(key)}: {line}")
            yield key, partial(self._result, future, title(key))

    def _result(self, future: Future[tuple[Any, list[str]]], title: str) -> Any:
        try:
            return future.result()[0]
        except BrokenProcessPool as error:
            if self._asked():
                raise Interrupted("Stopped.") from error
            raise _died(title) from error


def _died(title: str) -> RunError:
    return RunError(
        f"The process of the job '{title}' died or could not start.",
        expected="a process that runs until its job is finished",
        found="it was killed, perhaps because memory ran out; or a script without `if __name__ == '__main__':`",
        next_step="run fewer jobs at once (vl2v benchmark run --jobs 1); the same command continues",
    )


_stop: Event | None = None
_at_work = threading.Lock()


def _begin(stop: Event) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; a run that can save its state listens to it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()


def _end_with_parent() -> None:
    """End this process when its parent has died, as soon as a job that runs has saved its state."""
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
