"""The worker of a grid on Ray: check that the machine has the same files, and run one job."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from vl2v.benchmark.protocol import Grid, Job, Origin
from vl2v.benchmark.purchase import PurchasedTeacher, copy_once, teacher_of
from vl2v.benchmark.results import JOBS
from vl2v.benchmark.sweep import Sweep, identify
from vl2v.errors import RunError, Vl2vError
from vl2v.faults.system import disk_full
from vl2v.interrupts import stop_when
from vl2v.locations import StoragePaths
from vl2v.progress import Silent
from vl2v.runs.storage import FILE as STORAGE
from vl2v.teacher.base import TeacherCard
from vl2v.training.workers import Notes

RUNNING, VECTORS = "running", "vectors"  # subfolders of a benchmark
CHECK_SECONDS = 1.0  # seconds between two checks for the mark of the driver
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "beegfs", "ceph", "gpfs", "afs", "9p", "fuse.sshfs")


@dataclass(frozen=True)
class Assignment:
    """The inputs that all jobs of a grid share.

    Attributes:
        origin: content of data, teacher and student on the driver.
        out: absolute path of the benchmark's folder, on a disk that all machines see.
        cache: absolute path of the cache of each machine, for pixels, features and a copy of the embeddings.
        vectors: name of the file with the purchased embeddings.
        mark: name of a marker file that the driver created in `out`; jobs stop when it is missing.
        threads: number of torch threads.
        local: whether all workers run on the machine of the driver.
    """

    grid: Grid
    origin: Origin
    card: TeacherCard
    out: Path
    cache: Path
    vectors: str
    mark: str
    threads: int
    local: bool

    @property
    def copy(self) -> Path:
        """Path of the local copy of the embeddings."""
        return self.cache / VECTORS / self.vectors


@dataclass
class Outcome:
    """The outcome of a job.

    Attributes:
        finished: false if another process is working on the job, or there is an error.
        error: why the job is not finished.
        notes: messages of the job.
    """

    finished: bool = False
    error: Vl2vError | None = None
    notes: list[str] = field(default_factory=list)

    def result(self) -> bool:
        """Return whether the job is finished, or raise its error."""
        if self.error is not None:
            raise self.error
        return self.finished


def work(assigned: tuple[Assignment, Job]) -> Outcome:
    """Run or resume one job; errors for users are returned, not raised."""
    assignment, job = assigned
    notes, outcome = Notes(), Outcome()
    torch.set_num_threads(assignment.threads)
    try:
        _check_folder(assignment)
        with stop_when(_gone(assignment.out / RUNNING / assignment.mark)):
            sweep = _sweep(assignment)
            sweep.teacher = teacher_of(assignment.card, job)
            threads = job.config.threads or assignment.threads  # one per core, unless the settings state the number
            outcome.finished = sweep.do(job.with_settings(threads=threads, budget=None), notes)
            if outcome.finished:  # its store is a copy on this machine, without a ledger
                (sweep.out / JOBS / job.name / STORAGE).unlink(missing_ok=True)
    except Vl2vError as error:
        outcome.error = error
    except Exception as error:
        outcome.error = disk_full(error)
        if outcome.error is None:
            raise
    outcome.notes = [line for line in notes.lines if line != job.describe()]
    return outcome


_sweeps: dict[tuple[str, str], Sweep] = {}  # a process runs many jobs of a grid, and scans the data once


def _sweep(assignment: Assignment) -> Sweep:
    copy_once(assignment.out / VECTORS / assignment.vectors, assignment.copy)
    key = assignment.mark, assignment.vectors
    if key not in _sweeps:
        _sweeps[key] = _opened(assignment)
    return _sweeps[key]


def _opened(assignment: Assignment) -> Sweep:
    """Open the grid on this machine, and check that its content is that on the driver."""
    here = f"The machine {platform.node()}"
    step = "make it equal there or remove that machine from the cluster; then repeat the command"
    if not assignment.local and (kind := file_system(assignment.cache)) in NETWORK:
        problem = f"{here} has its cache on a network file system."
        change = "choose another with --cache: SQLite files must not be shared between machines"
        raise RunError(problem, expected=f"{assignment.cache} on a local disk", found=kind, next_step=change)
    sweep = Sweep(assignment.grid, assignment.out, StoragePaths(assignment.cache, assignment.copy))
    try:
        sweep.origin = identify(assignment.grid, PurchasedTeacher(assignment.card), sweep.storage, Silent())
    except Vl2vError as error:
        problem = f"{here} cannot read the data of the benchmark: {error.problem}"
        raise RunError(problem, expected=error.expected, found=error.found, next_step=step) from error
    if sweep.origin != assignment.origin:
        problem, found = f"{here} has other images or another student.", _difference(sweep.origin, assignment.origin)
        raise RunError(problem, expected="the same files as on the driver", found=found, next_step=step)
    return sweep


def _gone(mark: Path) -> Callable[[], bool]:
    """Return a function that checks, at most once per second, whether the driver removed its mark to stop the jobs."""
    last_check, gone = time.monotonic(), False

    def stopped() -> bool:
        nonlocal last_check, gone
        if time.monotonic() - last_check > CHECK_SECONDS:
            last_check, gone = time.monotonic(), not mark.exists()
        return gone

    return stopped


def _difference(actual: Origin, expected: Origin) -> str:
    parts = (("data", actual.data, expected.data), ("student", actual.student, expected.student))
    return "; ".join(f"{name} {a}, not {b}" for name, a, b in parts if a != b)


def _check_folder(assignment: Assignment) -> None:
    if not (assignment.out / RUNNING / assignment.mark).is_file():
        found = "another folder with that name" if assignment.out.is_dir() else "no such folder"
        raise RunError(
            f"The machine {platform.node()} does not see the benchmark's folder.",
            expected=f"{assignment.out} on a disk that all machines share, under the same path",
            found=found,
            next_step="mount it there or remove that machine from the cluster; then repeat the command",
        )


def file_system(path: Path) -> str:
    """Return the type of the file system of a path, e.g. ext4 or nfs4; empty if unknown."""
    table = Path("/proc/self/mounts")
    if not table.exists():
        return ""
    best, kind = "", ""
    for line in table.read_text().splitlines():
        mount, name = line.split(" ")[1:3]
        mount = mount.encode().decode("unicode_escape")  # a space is written \040
        if path.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, name
    return kind
