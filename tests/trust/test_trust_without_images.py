"""`vl2v trust` on a run with moved images or a damaged student does not lose paid trust data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from solved_run import make_run, trust_content
from tiny_dataset import Bench

from command_line import run_cli
from once import Once


@pytest.fixture(scope="session")
def rejecting(bench: Bench, once: Once) -> Path:
    """A run with negative texts."""

    def make(root: Path) -> None:
        make_run(bench, root / "run")
        (root / "nouns.txt").write_text("dot\ngrid\n")
        words = ("--reject", "--reject-texts", root / "nouns.txt", "--store", root / "vectors.sqlite", "--budget", "1")
        done = run_cli("trust", root / "run", *words)
        assert done.returncode == 0, done.stderr

    return once("run-with-negative-texts", make) / "run"


@pytest.fixture
def run(rejecting: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rejecting, tmp_path / "run"))


def without_images(run: Path) -> None:
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("root: ", "root: /nowhere"))


def test_data_that_need_the_images_are_preserved(run: Path) -> None:
    before = trust_content(run)
    assert before["domains"].keys() == {"ink", "neon"}
    without_images(run)
    done = run_cli("trust", run)
    assert done.returncode == 0, done.stderr
    assert trust_content(run) == before
    assert run_cli("trust", run, "--no-reject").returncode == 0
    after = trust_content(run)
    assert "negatives" not in after
    assert after["domains"] == before["domains"]


def test_thresholds_of_another_temperature_are_not_reused(run: Path) -> None:
    file = run / "student" / "trust.json"
    file.write_text(json.dumps(trust_content(run) | {"temperature": 3.5}))
    before = file.read_bytes()
    without_images(run)
    done = run_cli("trust", run)
    assert done.returncode == 8
    assert "--no-reject" in done.stderr
    assert file.read_bytes() == before


def test_the_trust_data_of_a_damaged_student_are_preserved(run: Path) -> None:
    before = trust_content(run)
    weights = run / "student" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert run_cli("trust", run).returncode == 6
    assert trust_content(run) == before


def test_damaged_trust_is_replaced_with_a_warning(run: Path) -> None:
    (run / "student" / "trust.json").write_text("{")
    done = run_cli("trust", run)
    assert done.returncode == 0, done.stderr
    assert "add them again: --reject" in " ".join(done.stderr.split())
    assert "negatives" not in trust_content(run)
