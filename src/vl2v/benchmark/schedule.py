"""Hand out the jobs of a grid one by one; several commands can work on the same grid."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from vl2v.benchmark.protocol import Job
from vl2v.benchmark.purchase import buy_ahead, purchase_key
from vl2v.benchmark.results import is_finished
from vl2v.benchmark.sweep import Sweep, SweepStatus
from vl2v.errors import Interrupted, TrainingError
from vl2v.progress import Progress

PAUSE = 2.0  # seconds between two checks for the jobs of other commands

# Runs the jobs that a function returns until it returns None and none is running. It yields each job that has ended,
# with a function that returns whether the job is finished, or raises its error.
Executor = Callable[[Callable[[], Job | None]], Iterator[tuple[Job, Callable[[], bool]]]]


class Schedule:
    """The jobs of a grid, for any executor. All embeddings are bought first, within the budget of the grid.

    Args:
        sweep: the opened grid.
    """

    def __init__(self, sweep: Sweep, progress: Progress) -> None:
        self.sweep, self._progress = sweep, progress
        self.bought = buy_ahead(sweep, progress)
        self._running: set[str] = set()
        self._failed: dict[str, str] = {}

    def run(self, executor: Executor) -> SweepStatus:
        """Run all jobs, and wait for those on which other commands are working.

        Raises:
            Interrupted: if the user interrupts; another call continues.
        """
        total, done = len(self.sweep.expected()), len(self.sweep.finished())
        with self._progress.stage("jobs", total, done) as advance:
            try:
                while self._left():
                    for job, result in executor(self._next):
                        self._end(job, result)
                        before, done = done, len(self.sweep.finished())
                        advance(done - before)
                    if self._left():
                        time.sleep(PAUSE)
            except Interrupted as error:
                done = len(self.sweep.finished())
                raise Interrupted(
                    f"Stopped with {done} of {total} jobs done; the states of the others are saved.",
                    next_step="continue with the same command",
                ) from error
        return SweepStatus(tuple(self.sweep.finished()), self._failed)

    def _left(self) -> list[Job]:
        """Return the jobs that are neither finished nor failed nor running here."""
        without = self._running | self._failed.keys()
        return [j for j in self.sweep.jobs() if j.name not in without and not is_finished(self.sweep.out, j)]

    def _next(self) -> Job | None:
        """Return a job on which no other command is working; None if there is none now."""
        jobs = self._left()
        if any(purchase_key(job) not in self.bought.covers for job in jobs):  # further jobs are known after a selection
            self.bought = buy_ahead(self.sweep, self._progress)
        job = next((job for job in jobs if not self.sweep.is_locked(job)), None)
        if job is not None:
            self._running.add(job.name)
        return job

    def _end(self, job: Job, result: Callable[[], bool]) -> None:
        self._running.discard(job.name)
        try:
            result()
        except TrainingError as error:
            self._failed[job.name] = str(error)
