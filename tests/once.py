"""Folders that are slow to create, created once for all tests and workers of a run of pytest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


class Once:
    """Creates folders by name. A second worker waits for the first one and uses its folder."""

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
    """Return a folder that all workers of this run of pytest share."""
    base = factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
