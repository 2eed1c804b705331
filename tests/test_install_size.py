"""The script that measures an installation follows requirements, extras and markers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import PurePosixPath
from types import SimpleNamespace

import pytest

import install_size

PACKAGES: dict[str, tuple[Sequence[str], int]] = {
    "vl2v": (["Torch_Like>=2", "figures", 'tool; extra == "dev"', 'other; sys_platform == "nowhere"'], 1_000_000),
    "torch-like": (["cuda[all]", "numbers"], 40_000_000),
    "cuda": (['blas; extra == "all"', 'tool; extra == "dev"'], 500_000),
    "blas": ([], 9_000_000),
    "figures": (["numbers", "fonts"], 2_000_000),
    "fonts": (["figures"], 3_000_000),  # a cycle
    "numbers": ([], 7_000_000),
    "tool": ([], 1),
    "other": ([], 1),
}


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def distribution(name: str) -> SimpleNamespace:
        key = name.lower().replace("_", "-")
        if key not in PACKAGES:
            raise PackageNotFoundError(name)
        requires, size = PACKAGES[key]
        files = [SimpleNamespace(path=PurePosixPath("a"), size=size), SimpleNamespace(path="b", size=None)]
        return SimpleNamespace(requires=requires, files=files)

    monkeypatch.setattr(install_size, "distribution", distribution)
    monkeypatch.setattr(install_size, "USES", {"figures": ("figures",), "training": ("torch-like",)})


def test_a_closure_has_only_the_requested_extras() -> None:
    assert install_size.closure("vl2v") == {"vl2v", "torch-like", "cuda", "blas", "figures", "fonts", "numbers"}
    assert install_size.closure("vl2v", without=("torch-like",)) == {"vl2v", "figures", "fonts", "numbers"}


def test_shared_packages_count_for_no_use_alone() -> None:
    sizes = install_size.measure()
    assert sizes["total_mb"] == 62.5
    assert sizes["needed_only_for_mb"] == {"figures": 5.0, "training": 49.5}
    assert list(sizes["largest_mb"])[:2] == ["torch-like", "blas"]
