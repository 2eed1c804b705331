"""Workers of a Ray cluster that call a function for many items.

`cluster_workers` makes the workers of a block available to whatever the block calls, as `joblib.parallel_config` does:
scan and purchase ask `current_pool` where to work. Results are the same with and without workers.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from vl2v.cluster.connection import ClusterUse, Share, check_worker_fits, connected, free_worker_slots
from vl2v.cluster.worker import Driver, Failed, Worker
from vl2v.errors import ConfigError, Interrupted, RunError, Vl2vError
from vl2v.progress import Progress, warn

T = TypeVar("T")
R = TypeVar("R")

LOSSES = 4  # workers that may die at the same item, or one after the other while they start
PATIENCE = 60.0  # seconds without any worker after which the user is told
SAVING = 60.0  # seconds that calls have to save their state when they are stopped


class _WorkerHandle(NamedTuple):
    """A worker that has started."""

    actor: Any
    host: str
    pid: int


@dataclass
class _Task(Generic[T]):
    """An item, its title, which may be empty, and how many workers died while they worked on it."""

    item: T
    title: str
    losses: int = 0


class WorkerPool:
    """Workers on a cluster, started when they are needed; a worker that dies is replaced, and its item repeated.

    Args:
        ray: the connected module.
        use: the cluster.
        progress: progress callback for warnings, and for items with a title.
        stop: returns whether the user wants to stop.
        save: tells calls to save their state and return, for which they have `SAVING` seconds, if `map` is left early.
            None ends them at once.
    """

    def __init__(
        self,
        ray: Any,
        use: ClusterUse,
        progress: Progress,
        stop: Callable[[], bool] = lambda: False,
        save: Callable[[], None] | None = None,
    ) -> None:
        self._ray, self.use, self._progress, self._stop_requested, self._save = ray, use, progress, stop, save
        self._driver, self._share = Driver(), Share()
        self._idle: list[_WorkerHandle] = []
        self._starting: dict[Any, Any] = {}  # the actor by the result of its start
        self._failures = self._waited = 0
        self._checked = False

    def check_worker_fits(self) -> None:
        """Check once that a worker for a teacher fits on a machine; see `vl2v.cluster.connection.check_worker_fits`."""
        if not self._checked:
            check_worker_fits(self._ray, self.use, self._progress)
            self._checked = True

    def map(
        self,
        function: Callable[[T], R],
        following: Callable[[], T | None],
        count: int,
        share: Share,
        title: Callable[[T], str] = lambda _: "",
    ) -> Iterator[tuple[T, R, str]]:
        """Call a function for items on the workers until `following` returns None and no call is running.

        Each result is returned once, even if a worker dies.

        Args:
            function: a function of a module of vl2v, or an object of such a class.
            following: returns the next item, small enough to be sent. It is called when a worker may be idle.
            count: the number of items, or an estimate of it; no more workers are started.
            share: resources of a worker.
            title: title of an item, with which the start of each call is reported.

        Yields:
            (item, result, name of the machine), in the order in which they finish.

        Raises:
            RunError: if a machine cannot run the function, or workers die again and again.
            Interrupted: if the user wants to stop.
            Vl2vError: an error that the function raises on this machine.
        """
        if share != self._share:  # workers with other resources are replaced
            self.close()
            self._share, self._failures = share, 0
        again, busy = list[_Task[T]](), dict[Any, tuple[_WorkerHandle, _Task[T]]]()
        task: _Task[T] | None = None
        try:
            while True:
                if self._stop_requested():
                    raise Interrupted("Stopped.")
                if task is None and again:
                    task = again.pop()
                elif task is None and (item := following()) is not None:
                    task = _Task(item, title(item))
                if task is not None and self._idle:
                    ref, worker = self._call(function, task)
                    busy[ref], task = (worker, task), None
                    continue
                if task is not None:  # one more than there is room for, so that a cluster that can grow does
                    self._start_workers(min(free_worker_slots(self._ray, share) + 1, max(1, count)) - len(busy))
                elif not busy:
                    return
                for ref in self._ready(busy):
                    if ref in self._starting:
                        self._started(ref)
                        continue
                    worker, done = busy.pop(ref)
                    if (result := self._result(ref, worker, done)) is None:
                        again.append(done)
                    else:
                        self._idle.append(worker)
                        yield done.item, result[0], worker.host
        finally:
            if busy and self._save is not None:
                self._save()
                self._ray.wait(list(busy), num_returns=len(busy), timeout=SAVING)
            for worker, _ in busy.values():  # only if the block was left early
                self._dismiss(worker.actor)

    def close(self) -> None:
        """End all workers that are not in a call."""
        for actor in (*(worker.actor for worker in self._idle), *self._starting.values()):
            self._dismiss(actor)
        self._idle.clear()
        self._starting.clear()

    def _call(self, function: Callable[[T], R], task: _Task[T]) -> tuple[Any, _WorkerHandle]:
        """Give an idle worker a task; return the reference of its result, and the worker."""
        worker = self._idle.pop()
        ref = worker.actor.call.remote(function, task.item)
        if task.title:
            runs = "runs again" if task.losses else "runs"
            self._progress.note(f"{task.title}: {runs} on {worker.host}, process {worker.pid}")
        return ref, worker

    def _start_workers(self, most: int) -> None:
        """Start workers until there are `most` that are not in a call."""
        kind = self._ray.remote(num_cpus=self._share.cpus, num_gpus=self._share.gpus, max_restarts=0)(Worker)
        while len(self._idle) + len(self._starting) < most:
            actor = kind.remote()
            self._starting[actor.start.remote(self._driver, self._share.gpus)] = actor

    def _ready(self, busy: dict[Any, Any]) -> list[Any]:
        """Wait for a second for a result; say once if there is no worker for a long time."""
        ready: list[Any] = self._ray.wait([*self._starting, *busy], timeout=1.0)[0]
        self._waited = 0 if ready or busy else self._waited + 1
        if self._waited == PATIENCE:
            text = f"no worker with {self._share} has started in {PATIENCE:g} s; the machines may be busy; waiting"
            warn(self._progress, text)
        return ready

    def _started(self, ref: Any) -> None:
        """Take up a worker that has started."""
        actor, errors = self._starting.pop(ref), self._ray.exceptions
        try:
            started = self._ray.get(ref)
        except errors.RayError as error:
            self._failures += 1
            if isinstance(error, errors.RayTaskError) or getattr(error, "actor_init_failed", False):
                raise _broken("A worker could not start.", str(error), INSTALL) from error
            if self._failures >= LOSSES:
                raise _broken("Workers die while they start.", str(error), MEMORY.format(self.use.unit)) from error
            return
        if isinstance(started, Failed):
            self._dismiss(actor)
            raise started.error
        self._failures = 0
        self._idle.append(_WorkerHandle(actor, *started))

    def _result(self, ref: Any, worker: _WorkerHandle, task: _Task[T]) -> tuple[Any] | None:
        """Return the result of a call; None if its worker died."""
        errors = self._ray.exceptions
        try:
            result = self._ray.get(ref)
        except errors.RayTaskError as error:
            self._dismiss(worker.actor)
            step = INSTALL if isinstance(error.cause, ImportError) else BUG
            raise _broken(f"A worker on {worker.host} failed.", str(error), step) from error
        except errors.RayError as error:
            self._dismiss(worker.actor)  # it may be out of reach only, and must not go on
            task.losses += 1
            if task.losses >= LOSSES:
                same = f"job, '{task.title}'" if task.title else "images"
                problem, step = f"{LOSSES} workers died at the same {same}.", MEMORY.format(self.use.unit)
                raise _broken(problem, str(error).strip(), step) from error
            return None
        if isinstance(result, Failed):
            self._idle.append(worker)
            raise _elsewhere(result.error, worker.host)
        return (result,)

    def _dismiss(self, actor: Any) -> None:
        self._ray.kill(actor, no_restart=True)


MEMORY = "if memory ran out, run fewer {0}s at once (--cpus-per-{0}); the same command continues"
INSTALL = "install vl2v and its extras on every machine, with the same version of Python"
BUG = "this is a bug in vl2v; please report it with the output above"


def _broken(problem: str, found: str, step: str) -> RunError:
    return RunError(problem, expected="workers that run until their work is done", found=found[-2000:], next_step=step)


def _elsewhere(error: Vl2vError, host: str) -> Vl2vError:
    """Return an error of a worker with the name of its machine, if it is another one."""
    if host == platform.node():
        return error
    problem = f"A worker on {host} failed: {error.problem}"
    return RunError(problem, expected=error.expected, found=error.found, next_step=error.next_step)


def other_files(host: str, path: object, found: str) -> RunError:
    """Return the error for a machine that lacks images which this machine has."""
    return RunError(
        f"The machine {host} does not see the images.",
        expected=f"{path} with the content that it has here, e.g. on a disk that all machines share",
        found=found,
        next_step="mount it there under the same path or remove that machine from the cluster; then repeat the command",
    )


def ensure_named(use: ClusterUse | None, teacher: object | None) -> None:
    """Reject a teacher that was passed as an object: the workers of a cluster open it by its name.

    Raises:
        ConfigError: if both are given.
    """
    if use is not None and teacher is not None:
        raise ConfigError(
            "The workers of a cluster cannot open this teacher.",
            expected="the name of a teacher, such as offline: or open_clip:ViT-B-16/openai",
            found=f"an object of the class {type(teacher).__name__}",
            next_step="pass the name, or omit ray; the how-to 'Add a teacher' shows how to give a teacher a name",
        )


_pool: ContextVar[WorkerPool | None] = ContextVar("vl2v_worker_pool", default=None)


def current_pool() -> WorkerPool | None:
    """Return the workers of the block, see `cluster_workers`; None outside of one."""
    return _pool.get()


@contextmanager
def cluster_workers(use: ClusterUse | None, progress: Progress) -> Iterator[None]:
    """Let scans and local teachers work on a cluster until the block ends; None changes nothing.

    Raises:
        MissingExtraError: if Ray is not installed.
        ConfigError: if there is no cluster at the address.
    """
    if use is None:
        yield
        return
    with connected(use.address) as ray, closing(WorkerPool(ray, use, progress)) as pool:
        token = _pool.set(pool)
        try:
            yield
        finally:
            _pool.reset(token)
