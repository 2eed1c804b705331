from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import settings
from tiny_dataset import bench, runs

from once import Once, shared_root
from tiers import Tiers

__all__ = ["bench", "runs"]  # fixtures
settings.register_profile("quick", max_examples=50, deadline=None, derandomize=True)
settings.register_profile("full", max_examples=1000, deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

POSIX = re.compile(r"^import (fcntl|resource)$|os\.fork|fork_server|mkfifo|AF_UNIX|SIGKILL", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Ignore test files that need POSIX on a system without it (Windows)."""
    if hasattr(os, "fork") or collection_path.suffix != ".py":
        return None
    return POSIX.search(collection_path.read_text(encoding="utf-8")) is not None or None


def find_shared() -> Path | None:
    """The folder of the maintainers with golden numbers and benchmark data, next to the checkout."""
    named = os.environ.get("VL2V_SHARED")
    path = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    return path if path.is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    path = find_shared()
    if path is None:
        pytest.skip("the maintainers' folder 'shared' with golden numbers is not next to the checkout")
    return path


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Creates folders once for all workers."""
    return Once(shared_root(tmp_path_factory))


def pytest_configure(config: pytest.Config) -> None:
    """Measure the CPU time of tests."""
    config.pluginmanager.register(Tiers(), "tiers")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add an option with which maintainers test real vendors."""
    parser.addoption("--live", action="store_true", help="ask real vendors whose keys are in the environment")
