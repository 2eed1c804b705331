"""Run the jobs of a grid on this machine, one after another or in parallel processes.

Several jobs with one thread each are faster than one job with several threads, which wait for each other at each layer.
"""

from __future__ import annotations

from functools import partial

from vl2v.benchmark.protocol import Job
from vl2v.benchmark.purchase import teacher_of
from vl2v.benchmark.schedule import Schedule
from vl2v.benchmark.sweep import Sweep, SweepStatus
from vl2v.interrupts import stop_requests
from vl2v.planning.models import open_student
from vl2v.progress import Progress
from vl2v.teacher.base import TeacherCard
from vl2v.threads import cores, free_memory, peak_memory, requested_threads, using_threads
from vl2v.training.duration import Rates
from vl2v.training.process import make_accelerator
from vl2v.training.thread_count import training_threads
from vl2v.training.workers import Workers

WORTH = 60.0  # seconds of training in total that make it worthwhile to start more processes
SPARE = 1.25  # memory of a job relative to that of its training step: pixels, embeddings, validation


def _do(sweep: Sweep, card: TeacherCard, job: Job, progress: Progress) -> bool:
    """Run one job in a separate process; return False if another command is working on it."""
    sweep.teacher = teacher_of(card, job)
    return sweep.do(job.with_settings(budget=None), progress)


def run_locally(sweep: Sweep, count: int, progress: Progress) -> SweepStatus:
    """Run all jobs of a grid on this machine, `count` at a time. The students are identical, bit for bit.

    Args:
        count: number of jobs that run in parallel. A single one runs in this process.

    Raises:
        Interrupted: if the user interrupts; another call continues.
        RunError: if a process died.
    """
    schedule = Schedule(sweep, progress)
    if count == 1:
        return schedule.run(lambda following: ((j, partial(sweep.do, j, progress)) for j in iter(following, None)))
    do = partial(_do, Sweep(sweep.grid, sweep.out, sweep.storage, origin=sweep.origin), schedule.bought.card)
    with stop_requests() as stop, Workers(count, stop) as workers:
        return schedule.run(lambda following: workers.map(do, following, progress, Job.describe))


def jobs_at_once(sweep: Sweep) -> int:
    """Choose how many jobs of a grid to run in parallel on this machine, at least 1.

    On a CPU, it is the number that cores and memory allow, if the work is long enough. One training step of the first
    job is measured for its time and memory.
    """
    jobs = sweep.unfinished()
    if len(jobs) < 2:
        return 1
    config = jobs[0].config
    room = cores() // (config.threads or requested_threads() or 1)
    accelerator = make_accelerator(config)
    if room < 2 or accelerator.device.type != "cpu" or accelerator.num_processes > 1:
        return 1
    images = config.batch_per_domain * max(1, len(sweep.grid.domains) - 1)
    with using_threads(1):
        rates = Rates.measure(config, open_student(config), images, accelerator, tries=1)
    if images * (rates.training or rates.passing) * config.distill.steps * len(jobs) < WORTH:
        return 1
    return max(1, min(room, len(jobs), int(free_memory() / (peak_memory() * SPARE))))


def resolve_threads(sweep: Sweep, count: int) -> None:
    """Choose the number of threads of all jobs, once for the whole grid: one each if several jobs run in parallel.

    Args:
        sweep: the opened grid. A number in its settings, or from an earlier call, is not changed.
        count: number of jobs that run in parallel.
    """
    jobs = sweep.unfinished()
    if not jobs or jobs[0].config.threads is not None:
        return
    if count > 1:
        sweep.use_threads(requested_threads() or 1)
        return
    config = jobs[0].config
    accelerator = make_accelerator(config)
    images = config.batch_per_domain * max(1, len(sweep.grid.domains) - 1)
    if (threads := training_threads(config, open_student(config), images, accelerator)) is not None:
        sweep.use_threads(threads)
