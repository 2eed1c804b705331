"""A grid in its folder: its jobs, their results, and the run of one job."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from vl2v.benchmark.protocol import Grid, Job, Origin, jobs, load_grid, make_job, save_grid, student_name
from vl2v.benchmark.results import JOBS, Record, candidate_key, is_finished, job_file, once, records_of
from vl2v.commands.distill import run
from vl2v.config import RunConfig, merge
from vl2v.data.caches import open_index
from vl2v.errors import ConfigError, RunError
from vl2v.faults import reading
from vl2v.hints import did_you_mean
from vl2v.json_files import read_json, write_json
from vl2v.locations import StoragePaths
from vl2v.locking import try_file_lock
from vl2v.planning.models import stated_price
from vl2v.planning.prepare import list_folder, read_datasets
from vl2v.progress import Progress
from vl2v.purchase import BudgetAccount
from vl2v.runs.folder import RunFolder
from vl2v.runs.start_checks import ensure_outside
from vl2v.teacher.base import Teacher
from vl2v.teacher.purchase.spending import Spending
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.teacher.registry import open_teacher
from vl2v.tracking.base import check_installed
from vl2v.validation import parse


@dataclass(frozen=True)
class SweepStatus:
    """Progress of a grid.

    Attributes:
        finished: finished jobs, including those of other processes.
        failed: jobs that failed, with the reason.
    """

    finished: tuple[Job, ...]
    failed: dict[str, str]

    def to_dict(self, out: Path) -> dict[str, Any]:
        """Convert to plain values for JSON; `out` is the folder of the benchmark."""
        return {"benchmark": str(out), "finished": [job.name for job in self.finished], "failed": self.failed}

    def text(self, out: Path) -> str:
        """Return lines for a terminal; `out` is the folder of the benchmark."""
        failed = [f"failed: {name}\n    {reason}" for name, reason in self.failed.items()]
        done = f"{len(self.finished)} jobs finished in {out}"
        return "\n".join([done, *failed, f"its table:  vl2v benchmark table {out}"])


class Sweep:
    """A grid in its folder: lists its jobs, and runs one.

    Args:
        out: folder of the benchmark, with `benchmark.yaml` and a folder per job.
        storage: paths of cache and store, shared by all jobs.
        budget: maximum amount that all jobs together may spend; None rejects a teacher that charges.
        teacher: an open teacher that replaces the one in the settings.
        origin: the content of data, teacher and student; `open` determines it.
    """

    def __init__(
        self,
        grid: Grid,
        out: Path,
        storage: StoragePaths,
        budget: Decimal | None = None,
        teacher: Teacher | None = None,
        origin: Origin = Origin("", "", ""),  # noqa: B008 - immutable
    ) -> None:
        self.grid, self.out, self.storage, self.budget = grid, out, storage, budget
        self.teacher, self.origin = teacher, origin

    @classmethod
    def load(cls, out: Path) -> Sweep:
        """Load the grid in a folder to read its finished jobs; data, teacher and student are not needed.

        Raises:
            ConfigError: if the folder contains no benchmark.
        """
        grid, origin = load_grid(out)
        return cls(grid, out, StoragePaths(), origin=origin)

    def open(self, progress: Progress, write: bool = True) -> None:
        """Scan the data and identify teacher and student by content.

        Args:
            write: whether to write `benchmark.yaml`.

        Raises:
            Vl2vError: lists all errors that can be detected before the first job.
        """
        config = parse(RunConfig, self.grid.settings, "the grid's settings")
        ensure_outside(self.out, Path(config.data.root))
        if RunFolder(self.out).config_file.exists():
            expected, step = "the folder of a benchmark, new or to be continued", "choose another folder: --out FOLDER"
            raise RunError(f"{self.out} contains a run.", expected=expected, found="config.yaml", next_step=step)
        check_installed(config.tracking)
        self.teacher = self.teacher or open_teacher(
            config.teacher.spec, price=stated_price(config), batch_api=config.teacher.batch_api
        )
        self.origin = identify(self.grid, self.teacher, self.storage, progress)
        list(jobs(self.grid, self.origin))  # raises for errors in the settings
        if write:
            before = load_grid(self.out)[0].settings if (self.out / "benchmark.yaml").is_file() else {}
            threads = config.threads or before.get("threads")
            save_grid(self.out, self.grid, self.origin)
            if threads is not None:
                self.use_threads(threads)

    def use_threads(self, threads: int) -> None:
        """Set the number of threads of all jobs, also for later calls of the benchmark.

        The last bits of results depend on this number, so it never changes within a benchmark.
        """
        settings = merge(self.grid.settings, {"threads": threads})
        self.grid = self.grid.model_copy(update={"settings": settings})
        save_grid(self.out, self.grid, self.origin)

    def jobs(self) -> list[Job]:
        """Return the jobs that are known so far; with ``first-seed``, later seeds follow when the first is finished."""
        every = list(jobs(self.grid, self.origin))
        if not self._inherits:
            return every
        first = [job for job in every if job.seed == self.grid.seeds[0]]
        groups: dict[tuple[str, str], list[Job]] = {}
        for job in first:
            if job.crossed is None:
                groups.setdefault((job.method, job.target), []).append(job)
        later = []
        for (method, target), candidates in groups.items():
            if all(is_finished(self.out, job) for job in candidates):
                in_order = sorted(candidates, key=lambda job: candidate_key(job.candidate))
                candidate = max(in_order, key=self._validation_accuracy).candidate  # as in `select`
                later += [make_job(self.grid, self.origin, method, target, s, candidate) for s in self.grid.seeds[1:]]
        order = {seed: i for i, seed in enumerate(self.grid.seeds)}
        return first + sorted(later, key=lambda job: order[job.seed])

    def expected(self) -> list[Job]:
        """Return as many jobs as the whole grid has, with the first candidate where the selection is not known yet."""
        all_jobs = self.jobs()
        have = {(job.method, job.target, job.seed) for job in all_jobs}
        for job in jobs(self.grid.model_copy(update={"vary": {}, "crossed": False}), self.origin):
            if (job.method, job.target, job.seed) not in have:
                first = self.grid.candidates()[0]
                all_jobs.append(make_job(self.grid, self.origin, job.method, job.target, job.seed, first))
        return all_jobs

    def is_locked(self, job: Job) -> bool:
        """Return whether a process is working on a job."""
        with self._lock(job) as acquired:
            return not acquired

    def do(self, job: Job, progress: Progress) -> bool:
        """Run or resume one job; return False if another process is working on it.

        Raises:
            TrainingError: if the training of this job fails.
            Vl2vError: for an error that concerns all jobs.
        """
        with self._lock(job) as acquired:
            if acquired and not is_finished(self.out, job):
                progress.note(job.describe())
                self._do(job, progress)
            return acquired

    def _lock(self, job: Job) -> AbstractContextManager[bool]:
        locks = self.out / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        return try_file_lock(locks / job.name)

    def _do(self, job: Job, progress: Progress) -> None:
        folder = RunFolder(self.out / JOBS / job.name)
        clock = folder.path / "clock.json"
        with reading(clock, "delete it: it only contains the time that the job has taken"):
            before = float(read_json(clock)["seconds"]) if clock.exists() else 0.0
        resume = folder.config_file.exists()
        started = time.monotonic()
        try:
            run(
                self.affordable(job).config,
                folder.path,
                resume=resume,
                storage=self.storage,
                progress=progress,
                teacher=self.teacher,
                account=None if self.budget is None else self.account,
                report=False,  # vl2v report writes the report of the grid or of a job
            )
        finally:
            seconds = before + time.monotonic() - started
            if folder.config_file.exists():
                write_json(clock, {"seconds": seconds})
        facts = {"method": job.method, "title": job.title, "target": job.target, "seed": job.seed}
        facts |= {"candidate": dict(job.candidate), "crossed": job.crossed, "key": job.key, "seconds": seconds}
        write_json(job_file(self.out, job), facts)
        for part in (folder.state_file, folder.path / "state.json", clock):
            part.unlink(missing_ok=True)

    def unfinished(self) -> list[Job]:
        """Return the other jobs of the whole grid; see `expected`."""
        return [job for job in self.expected() if not is_finished(self.out, job)]

    def finished(self) -> list[Job]:
        """Return the finished jobs."""
        return [job for job in self.jobs() if is_finished(self.out, job)]

    def records(self) -> list[Record]:
        """Return the records of the finished jobs; jobs of other settings in the same folder are ignored."""
        records: list[Record] = []
        for job in self.finished():
            file = job_file(self.out, job)
            inherited = self._inherits and job.seed != self.grid.seeds[0]
            records += (replace(record, inherited=inherited) for record in records_of(file))
        return list(once(records))

    @property
    def _inherits(self) -> bool:
        return self.grid.tune == "first-seed" and len(self.grid.candidates()) > 1

    def _validation_accuracy(self, job: Job) -> float:
        records = records_of(job_file(self.out, job))
        return next(r for r in records if r.saved and r.method == job.method).validation_accuracy

    def run_name(self, job: Job) -> str:
        """Return the name of a job in the ledger: its folder."""
        return str((self.out / JOBS / job.name).resolve())

    @property
    def account(self) -> BudgetAccount:
        """Return the account of the budget: all jobs together."""
        home = f"{(self.out / JOBS).resolve()}/"
        return BudgetAccount(self.out, lambda run: run.startswith(home))

    def spent(self) -> Decimal:
        """Return the amount that all jobs have spent so far, from any store."""
        with closing(EmbeddingStore(self.storage.store)) as store:
            return Spending(self.account.folder, store, self.account.mine).total

    def affordable(self, job: Job) -> Job:
        """Return the job with the budget of the whole grid, which all jobs share."""
        return job if self.budget is None else job.with_settings(budget=self.budget)


def identify(grid: Grid, teacher: Teacher, storage: StoragePaths, progress: Progress) -> Origin:
    """Identify data, teacher and student of a grid by content.

    Raises:
        ConfigError: if a target is not a domain of the data.
        Vl2vError: if data, teacher or student is unusable.
    """
    config = parse(RunConfig, grid.settings, "the grid's settings")
    folder = list_folder(config.data)
    if unknown := [target for target in grid.targets if target not in folder.domains]:
        expected = f"all, or among {', '.join(folder.domains)}"
        step = "correct --targets" + did_you_mean(unknown[0], ("all", *folder.domains))
        raise ConfigError("Unknown domain.", expected=expected, found=", ".join(unknown), next_step=step)
    with open_index(storage.cache) as index:
        dataset, *_ = read_datasets(folder, config.data, index, None, progress)
    card = teacher.describe()
    return Origin(dataset.digest(), f"{card.identity}@{card.revision}", student_name(config.student.spec))


def records_in(out: Path) -> list[Record]:
    """Read the records of the finished jobs in a folder; see `Sweep.load`."""
    return Sweep.load(out).records()
