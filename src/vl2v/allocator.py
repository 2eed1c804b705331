"""Keep freed memory in the process, for work on a CPU.

By default glibc returns every large block to the kernel when it is freed. The kernel then zeroes all pages of the next
block again. The activations of a network are such blocks, so this can take a third of the time of a forward pass.
"""

from __future__ import annotations

import ctypes
import os
import sys

# Constants of malloc.h. In a running process, glibc accepts these settings only through mallopt.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER = 2**31 - 1  # bytes free at the heap's end before it shrinks
PAD = 64 * 2**20  # bytes more than needed whenever the heap grows


def keep_freed_memory() -> bool:
    """Make this process reuse the memory that it frees, in huge pages if supported. Return False without glibc.

    Call it before torch allocates memory. It affects the whole process, whose memory use then stays at its peak.
    Therefore only commands call it, not library functions.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's own switch for huge pages
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, NEVER), mallopt(M_TOP_PAD, PAD)])
