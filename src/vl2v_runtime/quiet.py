"""Silence the warnings of Pillow in all threads that decode images."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class _Quiet:
    """Silence Pillow's warnings while at least one thread decodes.

    With `warnings.catch_warnings` alone, the last thread to leave restores the filters that it found, which may be
    those that another thread had changed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._caught = warnings.catch_warnings()

    def enter(self) -> None:
        with self._lock:
            if not self._inside:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._caught.__exit__(None, None, None)


_quiet = _Quiet()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings about broken metadata and large images. `imaging` rejects what matters itself."""
    if getattr(sys.flags, "context_aware_warnings", False):  # each thread then has filters of its own
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
        return
    _quiet.enter()
    try:
        yield
    finally:
        _quiet.leave()
