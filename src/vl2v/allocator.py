"""Keep freed memory in the process, for work on a CPU.

By default glibc gives every large block back to the kernel when it is freed, and the next step has all its pages zeroed
anew. A network's activations are such blocks: this can be a third of the time of a forward pass.
"""

from __future__ import annotations

import ctypes
import os
import sys

# Of malloc.h; glibc has no other way to set them in a running process.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER = 2**31 - 1  # bytes free at the heap's end before it shrinks
PAD = 64 * 2**20  # bytes more than needed whenever the heap grows


def hold_memory() -> bool:
    """Let this process keep the memory that it frees, in huge pages where the kernel has them.

    Call it before torch allocates anything. It holds for the whole process, so only commands do it, no library call:
    the memory that a process takes stays at its peak.

    Returns:
        False where there is no glibc, and nothing was changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's own switch for huge pages
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, NEVER), mallopt(M_TOP_PAD, PAD)])
