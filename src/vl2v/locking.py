"""One process at a time, among all that use the same files of this machine."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Hold a lock file until the block ends, or this process does, however it ends; wait for whoever holds it.

    Args:
        file: made if missing, in a folder that exists; it stays, empty.
    """
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
