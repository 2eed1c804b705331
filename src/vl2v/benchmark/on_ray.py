"""Run the jobs of a grid on a Ray cluster, or in several local Ray processes."""

from __future__ import annotations

import math
import os
import platform
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from vl2v.benchmark.protocol import Job
from vl2v.benchmark.purchase import GridPurchase, copy_once
from vl2v.benchmark.ray_worker import RUNNING, VECTORS, Assignment, work
from vl2v.benchmark.schedule import Schedule
from vl2v.benchmark.sweep import Sweep, SweepStatus
from vl2v.cluster.connection import LOCAL, ClusterUse, Share, check_worker_fits, connected
from vl2v.cluster.pool import WorkerPool
from vl2v.interrupts import stop_requests
from vl2v.progress import Progress


def run_on_ray(
    sweep: Sweep, address: str, progress: Progress, *, cpus_per_job: float = 1.0, gpus_per_job: float = 0.0
) -> SweepStatus:
    """Run all jobs of a grid on a Ray cluster, as `vl2v.benchmark.local_jobs.run_locally` does on this machine.

    This process buys all embeddings first, so the workers need neither key nor budget. If a worker or a machine dies,
    another worker resumes its job from the saved state.

    Args:
        sweep: the opened grid. All machines must see its folder under the same path.
        address: ``local`` to start a cluster of processes on this machine, or the address of a running cluster:
            ``auto`` or ``host:port`` from a machine that belongs to it, ``ray://host:10001`` from any other machine.
        cpus_per_job: cores per job, above 0; also the number of torch threads of the worker.
        gpus_per_job: GPUs per job, at least 0.

    Raises:
        MissingExtraError: if Ray is not installed.
        ConfigError: if the cluster cannot be reached, or a local cluster is too small for one job.
        BudgetError: if the budget does not cover the grid; nothing has been sent.
        RunError: if a machine has other files than the driver, or the workers of one job died too often.
        Interrupted: if the user interrupts; another call continues.
    """
    use = ClusterUse(address, Share(cpus_per_job, gpus_per_job), "job")
    with connected(address) as ray:
        check_worker_fits(ray, use, progress)
        schedule = Schedule(sweep, progress)
        with (
            _marked(sweep.out) as mark,
            stop_requests() as stop,
            closing(WorkerPool(ray, use, progress, stop, partial(mark.unlink, missing_ok=True))) as pool,
        ):
            return schedule.run(partial(_ended, schedule, pool, mark.name, progress))


def _ended(
    schedule: Schedule, pool: WorkerPool, mark: str, progress: Progress, following: Callable[[], Job | None]
) -> Iterator[tuple[Job, Callable[[], bool]]]:
    """Run jobs on the workers, see `vl2v.benchmark.schedule.Executor`."""

    def assigned() -> tuple[Assignment, Job] | None:
        job = following()
        return None if job is None else (_assign(schedule.sweep, schedule.bought, pool.use, mark), job)

    count = len(schedule.sweep.unfinished())
    for (_, job), outcome, _ in pool.map(work, assigned, count, pool.use.share, lambda item: item[1].describe()):
        for note in outcome.notes:
            progress.note(f"{job.describe()}: {note}")
        yield job, outcome.result


def _assign(sweep: Sweep, bought: GridPurchase, use: ClusterUse, mark: str) -> Assignment:
    """Copy the purchased embeddings to where all machines can read them."""
    assignment = Assignment(
        grid=sweep.grid,
        origin=sweep.origin,
        card=bought.card,
        out=sweep.out.resolve(),
        cache=sweep.storage.cache.resolve(),
        vectors=f"{bought.key}.sqlite",
        mark=mark,
        threads=max(1, math.floor(use.share.cpus)),
        local=use.address == LOCAL,
    )
    assignment.copy.parent.mkdir(parents=True, exist_ok=True)
    bought.write(sweep.storage.store, assignment.copy)
    copy_once(assignment.copy, assignment.out / VECTORS / assignment.vectors)
    return assignment


@contextmanager
def _marked(out: Path) -> Iterator[Path]:
    """Create a marker file in the folder of the benchmark, by which workers recognise the folder."""
    mark = out / RUNNING / f"driver-{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)
