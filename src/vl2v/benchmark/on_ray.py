"""Run the jobs of a grid on a Ray cluster, or in several local Ray processes."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vl2v.benchmark.protocol import Job
from vl2v.benchmark.purchase import Bought, buy_ahead, copy_once, purchase_key
from vl2v.benchmark.ray_cluster import LOCAL, Share, check_room, connected
from vl2v.benchmark.ray_worker import RUNNING, VECTORS, Assignment, Outcome, work
from vl2v.benchmark.results import is_finished
from vl2v.benchmark.sweep import PAUSE, Progressed, Sweep
from vl2v.errors import ConfigError, Interrupted, RunError, TrainingError, Vl2vError
from vl2v.progress import Advance, Progress
from vl2v.training.process import stop_asked
from vl2v_runtime import strict_json

SAVING = 60.0  # seconds that jobs which are told to stop get to save their state


def run_on_ray(
    sweep: Sweep,
    address: str,
    progress: Progress,
    *,
    cpus_per_job: float = 1.0,
    gpus_per_job: float = 0.0,
    max_retries: int = 3,
    local_cpus: int | None = None,
) -> Progressed:
    """Do every job of a grid on a Ray cluster, as `Sweep.run` does in this process.

    Everything is bought first, here (`buy_ahead`), so the workers need neither key nor budget. A job whose worker or
    machine dies is run again by Ray and goes on from its saved state.

    Args:
        sweep: the grid, opened; its folder has to be on a disk that all machines see under the same path.
        address: ``local`` starts a cluster in processes of this machine; otherwise a running one's: ``auto``,
            ``host:port`` from a machine that is part of it, ``ray://host:10001`` from one that is not.
        progress: told of jobs that begin, where, and that end.
        cpus_per_job: cores, above 0; torch in the worker gets as many threads.
        gpus_per_job: graphics cards, at least 0.
        max_retries: how often a job is run again after its worker died.
        local_cpus: cores of a ``local`` cluster; None takes all.

    Raises:
        MissingExtraError: if Ray is not installed.
        ConfigError: if the cluster cannot be reached, or a local one has no room for a single job.
        BudgetError: before anything is sent, if the budget does not cover the grid.
        RunError: if a machine does not see what the others see, or a job's worker died too often.
        Interrupted: if the user asked to stop; called again, it goes on.
    """
    share = Share(cpus_per_job, gpus_per_job)
    if cpus_per_job <= 0 or gpus_per_job < 0 or max_retries < 0:
        found = f"{share}, {max_retries} retries"
        raise ConfigError(
            "The resources per job are not valid.", expected="CPUs above 0, the rest at least 0", found=found
        )
    with connected(address, local_cpus) as ray:
        check_room(ray, share, address, progress)
        bought = buy_ahead(sweep, progress)
        with _marked(sweep.out) as mark, stop_asked() as stop:
            return _Driver(ray, sweep, progress, share, max_retries, mark, address == LOCAL).run(bought, stop)


class _Driver:
    """Submits jobs as they become known, and collects how they end."""

    def __init__(
        self, ray: Any, sweep: Sweep, progress: Progress, share: Share, retries: int, mark: str, local: bool
    ) -> None:
        self._ray, self._sweep, self._progress = ray, sweep, progress
        self._share, self._mark, self._local = share, mark, local
        options = {"num_cpus": share.cpus, "num_gpus": share.gpus, "max_retries": retries}
        self._work = ray.remote(**options)(work)
        self._pending: dict[Any, Job] = {}
        self._not_before: dict[str, float] = {}  # jobs that another process is at, by name
        self._told: dict[str, tuple[str, int]] = {}  # where each job was last seen
        self._failed: dict[str, str] = {}
        self._bought: Bought | None = None
        self._assignment: Any = None

    def run(self, bought: Bought, stop: Callable[[], bool]) -> Progressed:
        """Until no job is left."""
        sweep = self._sweep
        done, total = len(sweep.finished()), len(sweep.expected())
        self._assign(bought)
        self._told = {job.name: place for job in sweep.jobs() if (place := self._seen(job))}  # left by killed workers
        with self._progress.stage("jobs", total, done) as advance, self._stopping():
            self._submit()
            while self._pending or self._not_before:
                ready, _ = self._ray.wait(list(self._pending), timeout=1.0) if self._pending else ([], [])
                if stop():
                    raise Interrupted(
                        f"Stopped with {len(sweep.finished())} of {total} jobs done; the state of the others is saved.",
                        next_step=f"the same command continues (--out {sweep.out})",
                    )
                self._tell()
                for ref in ready:
                    self._collect(ref)
                if not self._pending:
                    time.sleep(PAUSE)
                if ready or self._not_before:
                    done = self._advanced(done, advance)
                    self._submit()
        return Progressed(tuple(sweep.finished()), self._failed)

    def _advanced(self, before: int, advance: Advance) -> int:
        now = len(self._sweep.finished())
        if now > before:
            advance(now - before)
        return now

    def _submit(self) -> None:
        """Send every job that is known and in nobody's hands; buy first where later seeds ask something new."""
        busy = {job.name for job in self._pending.values()} | set(self._failed)
        now = time.monotonic()
        todo = [j for j in self._sweep.jobs() if j.name not in busy and not is_finished(self._sweep.out, j)]
        self._not_before = {j.name: t for j in todo if (t := self._not_before.get(j.name, 0.0)) > now}
        todo = [job for job in todo if job.name not in self._not_before]
        assert self._bought is not None
        if any(purchase_key(job) not in self._bought.covers for job in todo):
            self._assign(buy_ahead(self._sweep, self._progress))
        for job in todo:
            self._pending[self._work.options(name=job.describe()).remote(self._assignment, job)] = job

    def _assign(self, bought: Bought) -> None:
        """Lay the bought vectors where all machines find them."""
        sweep = self._sweep
        assignment = Assignment(
            grid=sweep.grid,
            origin=sweep.origin,
            card=bought.card,
            out=sweep.out.resolve(),
            cache=sweep.storage.cache.resolve(),
            vectors=f"{bought.key}.sqlite",
            mark=self._mark,
            cwd=Path.cwd(),
            version=importlib.metadata.version("vl2v"),
            threads=max(1, math.floor(self._share.cpus)),
            gpus=self._share.gpus,
            local=self._local,
        )
        assignment.copy.parent.mkdir(parents=True, exist_ok=True)
        bought.write(sweep.storage.store, assignment.copy)
        copy_once(assignment.copy, assignment.out / VECTORS / assignment.vectors)
        self._bought, self._assignment = bought, self._ray.put(assignment)

    def _collect(self, ref: Any) -> None:
        """Take a job's end.

        Raises:
            Vl2vError: if it ended with more than a training that fails.
        """
        job = self._pending.pop(ref)
        try:
            outcome: Outcome = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            raise _lost(self._ray, job, error) from error
        if outcome.mine:
            self._say_where(job, (outcome.host, outcome.pid))
        for note in outcome.notes:
            self._progress.note(f"{job.describe()}: {note}")
        if isinstance(outcome.error, TrainingError):
            self._failed[job.name] = str(outcome.error)
        elif outcome.error is not None:
            raise outcome.error
        elif not outcome.mine:
            self._not_before[job.name] = time.monotonic() + PAUSE

    def _tell(self) -> None:
        """Say which jobs began to run, and where; also when one begins again."""
        for job in self._pending.values():
            if place := self._seen(job):
                self._say_where(job, place)

    def _say_where(self, job: Job, place: tuple[str, int]) -> None:
        before = self._told.get(job.name)
        if place != before:
            self._told[job.name] = place
            again = "" if before is None else " again"
            self._progress.note(f"{job.describe()}: runs{again} on {place[0]}, process {place[1]}")

    def _seen(self, job: Job) -> tuple[str, int] | None:
        """Host and process of a job that runs, as its worker wrote them down."""
        try:
            found = strict_json.read(self._sweep.out / RUNNING / f"{job.name}.json")
        except FileNotFoundError:
            return None
        return str(found["host"]), int(found["pid"])

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """Where this ends with an error, jobs that wait are dropped, and those that run get time to save their state.

        Those are asked by the missing mark, since Ray's own way, an exception at any point of the program, gets lost.
        """
        try:
            yield
        except BaseException:
            (self._sweep.out / RUNNING / self._mark).unlink(missing_ok=True)
            for ref, job in self._pending.items():
                if not self._seen(job):
                    self._ray.cancel(ref)
            if self._pending:
                self._ray.wait(list(self._pending), num_returns=len(self._pending), timeout=SAVING)
            raise


def _lost(ray: Any, job: Job, error: Exception) -> Vl2vError:
    """What to say of a job that brought no outcome."""
    problem = f"The job '{job.describe()}' was not finished."
    if isinstance(error, ray.exceptions.RayTaskError):
        step = "this is a bug in vl2v; please report it with the output above"
        if isinstance(error.cause, ImportError):
            step = "install vl2v and the extras of the benchmark on every machine"
        return RunError(problem, expected="a result", found=str(error), next_step=step)
    return RunError(
        problem,
        expected="a worker that runs until its job, or one of the retries, is finished",
        found=f"{type(error).__name__}: {str(error).splitlines()[0]}",
        next_step="if memory ran out, run fewer jobs at once (--cpus-per-job); the same command continues",
    )


@contextmanager
def _marked(out: Path) -> Iterator[str]:
    """A file in the benchmark's folder by which a worker knows that it sees the same one."""
    folder = out / RUNNING
    folder.mkdir(parents=True, exist_ok=True)
    mark = f"driver-{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    (folder / mark).touch()
    try:
        yield mark
    finally:
        (folder / mark).unlink(missing_ok=True)
