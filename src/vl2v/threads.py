"""Number of CPU threads, and how they wait for each other.

OpenMP divides every layer of a network among its threads, and all of them wait for the slowest. By default they spin
while they wait: next to another busy process, which makes one of them late at every layer, two threads can be ten
times slower than one. Threads that sleep while they wait lose little there. On two hyperthreads of one core, a second
thread gains little even on an idle machine, so the number is measured, not taken from the number of cores.

Where a network treats every image by itself, threads compute parts of a batch instead; see `vl2v.shards`.

Results depend on the number of threads in their last bits, as sums are divided differently.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

FEW_CORES = 4
# How often a waiting thread looks before it sleeps. With none, an idle machine loses a sixth to a quarter of the speed;
# with 10,000 on few cores, two threads next to a busy process lose 40% against one.
SPINS_ON_FEW, SPINS = "1000", "2000"
CLEARLY = 1.1  # how much faster than one thread more must be; what is measured idle may run next to other work
AGAIN = 1.05  # how much faster than a smaller number of several threads
SHORT = 3.0  # seconds; for work that one thread does in less, measuring is not worth it
AT_ONCE = 1.0  # seconds; a call that takes longer is measured with fewer images, of which several threads gain less
PATIENCE = 4.0  # seconds after which no further round of measurements begins
ROUNDS = 3

Work = Callable[[int], object]


def cores() -> int:
    """How many cores this process may use, at least 1; hyperthreads count."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory() -> int:
    """Bytes of memory that programs may still take, of this machine or of the container."""
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
    """Bytes of memory that this process took at most so far; a guess where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 2 * 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def stated() -> int | None:
    """The number of threads that the user set in the environment, as OpenMP reads it; None if there is none."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdigit() and int(first) > 0 else None


def sleep_while_waiting() -> None:
    """Let OpenMP threads sleep while they wait for each other, after tens of microseconds.

    It has an effect only before torch is loaded, and it holds for the whole process and its children. So only commands
    call it. What the user set in the environment stays.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        return
    few = cores() <= FEW_CORES
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS_ON_FEW if few else SPINS)  # GNU's OpenMP, which torch's wheels bring
    os.environ.setdefault("KMP_BLOCKTIME", "0" if few else "1")  # LLVM's and Intel's, in milliseconds


@contextmanager
def computing(threads: int | None) -> Iterator[None]:
    """While open, torch and numpy's linear algebra compute with `threads` threads; None changes nothing."""
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

    return ThreadpoolController()  # looks through all loaded libraries, so once


def choose(work: Work, images: int, total: int) -> int:
    """The number of threads for some work: one, unless more are clearly faster.

    Nothing is measured where the user set ``OMP_NUM_THREADS``, or where one thread does all of it in a few seconds.

    Args:
        work: computes a number of images, in any state of the process but the number of threads; called some times.
        images: how many it will compute at once, above 0.
        total: how many it will compute altogether.

    Returns:
        At least 1, at most the number that torch computes with now.
    """
    import torch

    most = torch.get_num_threads()
    if most == 1 or stated() is not None:
        return most
    seconds = measured(work, images, total, most, torch.set_num_threads)
    torch.set_num_threads(most)
    return preferred(seconds)


def measured(work: Work, images: int, total: int, most: int, use: Callable[[int], None]) -> dict[int, float]:
    """Seconds of a call by number of threads: of one, of half of `most`, and of `most`.

    Args:
        work: see `choose`.
        images: see `choose`.
        total: see `choose`; if one thread is done in a few seconds, no other number is measured.
        most: the largest number of threads, above 0.
        use: sets the number of threads.
    """
    use(1)
    work(images)  # allocates, and compiles what is compiled for a number of threads
    one = _timed(work, images)
    if one * total / images < SHORT:
        return {1: one}
    part = images if one <= AT_ONCE else max(min(2, images), round(images * AT_ONCE / one))
    counts = sorted({1, max(1, most // 2), most})
    for count in counts:
        use(count)
        work(part)
    best, started = dict.fromkeys(counts, inf), time.perf_counter()
    for _ in range(ROUNDS):  # in turn, so that other work on the machine meets all of them
        for count in counts:
            use(count)
            best[count] = min(best[count], _timed(work, part))
        if time.perf_counter() - started > PATIENCE:
            break
    return best


def preferred(seconds: Mapping[int, float]) -> int:
    """The number of threads to take, from the seconds that each number needs for the same work."""
    chosen = min(seconds)
    for count in sorted(seconds)[1:]:
        if seconds[count] * (CLEARLY if chosen == min(seconds) else AGAIN) <= seconds[chosen]:
            chosen = count
    return chosen


def _timed(work: Work, images: int) -> float:
    started = time.perf_counter()
    work(images)
    return time.perf_counter() - started
