"""Folders that are expensive to make, made once for all tests and all workers of a run of pytest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


class Once:
    """Makes folders by name; a second worker waits for the first one, and finds the folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return the folder of this name, after `make` has been called with its path, once in the whole run.

        Tests must not change the folder: they copy what they change. If `make` fails, the next caller tries again.
        """
        folder, done = self.root / name, self.root / f"{name}.done"
        with FileLock(self.root / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder


def shared_root(factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run of pytest have in common."""
    base = factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
