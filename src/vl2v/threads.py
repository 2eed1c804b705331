"""The number of CPU threads, and how they wait for each other.

OpenMP divides every layer of a network among its threads, and all of them wait for the slowest. By default they spin
while they wait. If another process is busy, one thread is late at every layer, and two threads can be ten times slower
than one. Threads that sleep while they wait lose little. On two hyperthreads of one core, a second thread gains little
even on an idle machine, so the number of threads is measured and not derived from the number of cores.

If a network processes each image independently, threads compute parts of a batch instead; see `vl2v.shards`.

The last bits of results depend on the number of threads, because sums are divided differently.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from math import ceil, inf
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

FEW_CORES = 4
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
# How often a waiting thread spins before it sleeps. With 0, an idle machine loses a sixth to a quarter of its speed.
# With 10,000 on few cores, two threads next to a busy process are 40% slower than one.
SPINS_ON_FEW, SPINS = "1000", "2000"
CLEARLY = 1.1  # minimum speed-up of several threads over one, since the machine may be busy later
AGAIN = 1.05  # minimum speed-up over a smaller number of several threads
SHORT = 3.0  # seconds; shorter work of one thread is not worth a measurement
AT_ONCE = 1.0  # seconds; a longer call is measured with fewer images, from which several threads gain less
PATIENCE = 4.0  # seconds after which no further round of measurements begins
ROUNDS = 3

Work = Callable[[int], object]


def cores() -> int:
    """Return the number of cores that this process may use, at least 1; hyperthreads count."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:  # the limit of a container: microseconds of CPU time in a period
        quota, period = CPU_LIMIT.read_text().split()
        return min(count, ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no container, or "max", which is no limit
        return count


def free_memory() -> int:
    """Return the available memory of the machine or the container in bytes."""
    info = Path("/proc/meminfo")
    if info.exists():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    else:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if hasattr(os, "sysconf") else 4 * 2**30
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and (text := limit.read_text().strip()).isdecimal():
        free = min(free, int(text) - int(used.read_text()))
    return max(0, free)


def peak_memory() -> int:
    """Return the peak memory of this process in bytes; an estimate if the system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return 2 * 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def requested_threads() -> int | None:
    """Return the number of threads in ``OMP_NUM_THREADS``; None if it is not set."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdigit() and int(first) > 0 else None


def sleep_while_waiting() -> None:
    """Make OpenMP threads sleep while they wait for each other, after tens of microseconds.

    It only has an effect before torch is loaded, and it affects the whole process and its children. Therefore only
    commands call it. Settings of the user in the environment take precedence.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        return
    few = cores() <= FEW_CORES
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS_ON_FEW if few else SPINS)  # GNU OpenMP, in torch's wheels
    os.environ.setdefault("KMP_BLOCKTIME", "0" if few else "1")  # LLVM's and Intel's, in milliseconds


@contextmanager
def using_threads(threads: int | None) -> Iterator[None]:
    """Set the number of threads of torch and numpy until the block ends; None changes nothing."""
    if threads is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with _libraries().limit(limits=threads, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@cache
def _libraries() -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()  # created once, since it inspects all loaded libraries


def choose(work: Work, images: int, total: int) -> int:
    """Measure the best number of threads for some work: one, unless more are clearly faster.

    Nothing is measured if ``OMP_NUM_THREADS`` is set, or if one thread needs only a few seconds.

    Args:
        work: processes a number of images; called several times.
        images: number of images per call, above 0.

    Returns:
        From 1 to the current number of threads of torch.
    """
    import torch

    most = torch.get_num_threads()
    if most == 1 or requested_threads() is not None:
        return most
    seconds = measured(work, images, total, most, torch.set_num_threads)
    torch.set_num_threads(most)
    return preferred(seconds)


def measured(work: Work, images: int, total: int, most: int, use: Callable[[int], None]) -> dict[int, float]:
    """Return the seconds per call with one thread, with half of `most`, and with `most`, by number of threads.

    Args:
        total: see `choose`; if one thread needs only a few seconds, no other number is measured.
        most: largest number of threads, above 0.
        use: sets the number of threads.
    """
    use(1)
    work(images)  # warm-up: allocation, and compilation for this number of threads
    one = _timed(work, images)
    if one * total / images < SHORT:
        return {1: one}
    part = images if one <= AT_ONCE else max(min(2, images), round(images * AT_ONCE / one))
    counts = sorted({1, max(1, most // 2), most})
    for count in counts:
        use(count)
        work(part)
    best, started = dict.fromkeys(counts, inf), time.perf_counter()
    for _ in range(ROUNDS):  # in turn, so that other processes affect all of them
        for count in counts:
            use(count)
            best[count] = min(best[count], _timed(work, part))
        if time.perf_counter() - started > PATIENCE:
            break
    return best


def preferred(seconds: Mapping[int, float]) -> int:
    """Select a number of threads from the seconds that the same work takes with each number."""
    best = min(seconds)
    for count in sorted(seconds)[1:]:
        if seconds[count] * (CLEARLY if best == min(seconds) else AGAIN) <= seconds[best]:
            best = count
    return best


def _timed(work: Work, images: int) -> float:
    started = time.perf_counter()
    work(images)
    return time.perf_counter() - started
