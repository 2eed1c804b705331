"""Run the jobs of a grid on a Ray cluster, or in several local Ray processes."""

from __future__ import annotations

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
from vl2v.benchmark.ray_worker import RUNNING, VECTORS, Assignment, Outcome, work
from vl2v.benchmark.results import is_finished
from vl2v.benchmark.schedule import PAUSE
from vl2v.benchmark.sweep import Progressed, Sweep
from vl2v.cluster.connection import LOCAL, Share, check_room, connected
from vl2v.cluster.worker import Driver
from vl2v.errors import ConfigError, Interrupted, RunError, TrainingError, Vl2vError
from vl2v.progress import Progress
from vl2v.stopping import stop_asked
from vl2v_runtime import strict_json

SAVING = 60.0  # seconds that jobs have to save their state when they are stopped


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
    """Run all jobs of a grid on a Ray cluster, as `Sweep.run` does in this process.

    This process buys all embeddings first (`buy_ahead`), so the workers need neither key nor budget. If a worker or a
    machine dies, Ray starts its job again, which resumes from the saved state.

    Args:
        sweep: the opened grid. All machines must see its folder under the same path.
        address: ``local`` to start a cluster of processes on this machine, or the address of a running cluster:
            ``auto`` or ``host:port`` from a machine that belongs to it, ``ray://host:10001`` from any other machine.
        cpus_per_job: cores per job, above 0; also the number of torch threads of the worker.
        gpus_per_job: GPUs per job, at least 0.
        max_retries: maximum number of retries of a job whose worker died.
        local_cpus: cores of a ``local`` cluster; None uses all.

    Raises:
        MissingExtraError: if Ray is not installed.
        ConfigError: if the cluster cannot be reached, or a local cluster is too small for one job.
        BudgetError: if the budget does not cover the grid; nothing has been sent.
        RunError: if a machine has other files than the driver, or a worker died too often.
        Interrupted: if the user interrupts; another call continues.
    """
    share = Share(cpus_per_job, gpus_per_job)
    if cpus_per_job <= 0 or gpus_per_job < 0 or max_retries < 0:
        found = f"{share}, {max_retries} retries"
        raise ConfigError(
            "The resources per job are not valid.",
            expected="CPUs above 0, the rest at least 0",
            found=found,
            next_step="correct --cpus-per-job or --gpus-per-job",
        )
    with connected(address, local_cpus) as ray:
        check_room(ray, share, address, progress)
        bought = buy_ahead(sweep, progress)
        with _marked(sweep.out) as mark, stop_asked() as stop:
            return _Driver(ray, sweep, progress, share, max_retries, mark, address == LOCAL).run(bought, stop)


class _Driver:
    """Submits jobs as they become known, and collects their outcomes."""

    def __init__(
        self, ray: Any, sweep: Sweep, progress: Progress, share: Share, retries: int, mark: str, local: bool
    ) -> None:
        self._ray, self._sweep, self._progress = ray, sweep, progress
        self._share, self._mark, self._local = share, mark, local
        options = {"num_cpus": share.cpus, "num_gpus": share.gpus, "max_retries": retries}
        self._work = ray.remote(**options)(work)
        self._pending: dict[Any, Job] = {}
        self._not_before: dict[str, float] = {}  # by name: jobs on which another process is working
        self._reported: dict[str, tuple[str, int]] = {}  # host and process that were last reported for each job
        self._failed: dict[str, str] = {}
        self._bought: Bought | None = None
        self._assignment: Any = None

    def run(self, bought: Bought, stop: Callable[[], bool]) -> Progressed:
        """Run until no job is left."""
        sweep = self._sweep
        done, total = len(sweep.finished()), len(sweep.expected())
        self._assign(bought)
        seen = {job.name: self._seen(job) for job in sweep.jobs()}  # left by killed workers
        self._reported = {name: location for name, location in seen.items() if location}
        with self._progress.stage("jobs", total, done) as advance, self._stopping():
            self._submit()
            while self._pending or self._not_before:
                ready, _ = self._ray.wait(list(self._pending), timeout=1.0) if self._pending else ([], [])
                if stop():
                    raise Interrupted(
                        f"Stopped with {len(sweep.finished())} of {total} jobs done; the state of the others is saved.",
                        next_step=f"the same command continues (--out {sweep.out})",
                    )
                self._report_starts()
                for ref in ready:
                    self._collect(ref)
                if not self._pending:
                    time.sleep(PAUSE)
                if ready or self._not_before:
                    before, done = done, len(sweep.finished())
                    advance(done - before)
                    self._submit()
        return Progressed(tuple(sweep.finished()), self._failed)

    def _submit(self) -> None:
        """Submit all jobs that are neither running nor finished; first buy what jobs of later seeds lack."""
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
        """Copy the purchased embeddings to where all machines can read them."""
        sweep = self._sweep
        assignment = Assignment(
            grid=sweep.grid,
            origin=sweep.origin,
            card=bought.card,
            out=sweep.out.resolve(),
            cache=sweep.storage.cache.resolve(),
            vectors=f"{bought.key}.sqlite",
            mark=self._mark,
            driver=Driver(),
            threads=max(1, math.floor(self._share.cpus)),
            gpus=self._share.gpus,
            local=self._local,
        )
        assignment.copy.parent.mkdir(parents=True, exist_ok=True)
        bought.write(sweep.storage.store, assignment.copy)
        copy_once(assignment.copy, assignment.out / VECTORS / assignment.vectors)
        self._bought, self._assignment = bought, self._ray.put(assignment)

    def _collect(self, ref: Any) -> None:
        job = self._pending.pop(ref)
        try:
            outcome: Outcome = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            raise _lost(self._ray, job, error) from error
        if outcome.mine:
            self._report_location(job, (outcome.host, outcome.pid))
        for note in outcome.notes:
            self._progress.note(f"{job.describe()}: {note}")
        if isinstance(outcome.error, TrainingError):
            self._failed[job.name] = str(outcome.error)
        elif outcome.error is not None:
            raise outcome.error
        elif not outcome.mine:
            self._not_before[job.name] = time.monotonic() + PAUSE

    def _report_starts(self) -> None:
        """Report which jobs have started or restarted, and where."""
        for job in self._pending.values():
            if location := self._seen(job):
                self._report_location(job, location)

    def _report_location(self, job: Job, location: tuple[str, int]) -> None:
        before = self._reported.get(job.name)
        if location != before:
            self._reported[job.name] = location
            again = "" if before is None else " again"
            self._progress.note(f"{job.describe()}: runs{again} on {location[0]}, process {location[1]}")

    def _seen(self, job: Job) -> tuple[str, int] | None:
        """Return host and process of a running job, as recorded by its worker."""
        try:
            found = strict_json.read(self._sweep.out / RUNNING / f"{job.name}.json")
        except FileNotFoundError:
            return None
        return str(found["host"]), int(found["pid"])

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """If the block raises, cancel waiting jobs, and give running jobs time to save their state.

        Running jobs notice that the mark is missing. The exception that Ray would raise in them can get lost.
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
    """Create a marker file in the folder of the benchmark, by which workers recognise the folder."""
    folder = out / RUNNING
    folder.mkdir(parents=True, exist_ok=True)
    mark = f"driver-{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    (folder / mark).touch()
    try:
        yield mark
    finally:
        (folder / mark).unlink(missing_ok=True)
