from __future__ import annotations

import os
from pathlib import Path

import pytest


def find_shared() -> Path | None:
    """The maintainers' folder of golden numbers and benchmark data, beside the checkout; users do not have it."""
    named = os.environ.get("VL2V_SHARED")
    path = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    return path if path.is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    path = find_shared()
    if path is None:
        pytest.skip("the maintainers' folder 'shared' with golden numbers is not beside the checkout")
    return path


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a maintainer with keys ask real vendors."""
    parser.addoption("--live", action="store_true", help="ask real vendors whose keys are in the environment")
