from __future__ import annotations

from pathlib import Path

import pytest

from tiers import Tiers

SUITE = """
import subprocess, sys, time
import pytest
SPIN = "import time\\nwhile time.process_time() < 0.3: pass"

def test_spins():
    exec(SPIN.replace("process_time()", f"process_time() - {time.process_time()}"))

def test_has_a_child_that_spins():
    subprocess.run([sys.executable, "-c", SPIN], check=True)

@pytest.mark.slow
def test_may_spin():
    test_spins()

@pytest.fixture
def expensive():
    test_spins()

def test_waits(expensive):
    time.sleep(0.4)
"""


def run(folder: Path, limit: float, *more: str) -> int:
    (folder / "test_it.py").write_text(SUITE)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    options = ["-q", "-p", "no:cacheprovider", "--import-mode", "importlib"]
    return int(pytest.main([*options, str(folder), *more], plugins=[Tiers(limit)]))


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_fails_for_an_unmarked_test_that_takes_too_long(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], workers: int
) -> None:
    if workers:  # a worker finds the plugin through its conftest
        (tmp_path / "conftest.py").write_text(
            f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom tiers import Tiers\n"
            "def pytest_configure(config):\n"
            "    if hasattr(config, 'workerinput'): config.pluginmanager.register(Tiers(0.2))\n"
        )
    assert run(tmp_path, 0.2, "-n", str(workers)) == pytest.ExitCode.TESTS_FAILED
    output = capfd.readouterr().out
    assert "4 passed" in output
    named = output.partition("without a marker")[2]
    assert "test_it.py::test_spins" in named
    assert "test_it.py::test_has_a_child_that_spins" in named
    assert "test_may_spin" not in named, "it is marked"
    assert "test_waits" not in named, "neither its fixture nor waiting counts"


def test_a_run_within_the_limit_passes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, 30.0) == pytest.ExitCode.OK
    assert "without a marker" not in capfd.readouterr().out


def test_with_more_examples_property_tests_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPOTHESIS_PROFILE", "full")
    assert "hypothesis" in Tiers().exempt
    monkeypatch.setenv("HYPOTHESIS_PROFILE", "quick")
    assert "hypothesis" not in Tiers().exempt
