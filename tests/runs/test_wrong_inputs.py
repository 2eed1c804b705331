"""Common mistakes give a clear message and an exit code, without a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_dataset import Bench, environment, vl2v


def refused(arguments: list[str], code: int, *messages: str) -> str:
    done = vl2v(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for text in messages:
        assert text in done.stderr
    return done.stderr


def test_wrong_data_are_refused(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "one" / "cat").mkdir(parents=True)
    (tmp_path / "one" / "cat" / "a.png").write_bytes((bench.data / "ink" / "blank" / "0.png").read_bytes())
    (tmp_path / "empty").mkdir()
    for name, messages in (("empty", "contains no images"), ("one", "the only class"), ("absent", "is not a folder")):
        refused(bench.flags("quote", str(tmp_path / name), "--teacher", bench.teacher), 3, messages)


def test_wrong_teachers_budgets_and_names_are_refused(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "run"
    store = ["--store", str(tmp_path / "new.sqlite")]
    refused([*bench.distill(out), "--teacher", "gpt-9"], 4, "Unknown teacher", "open_clip:")
    refused([*bench.distill(out), "--price-per-1000-images", "1", *store], 5, "No budget", "--budget 0.09")
    refused([*bench.distill(out), "--price-per-1000-images", "1", "--budget", "0.05", *store], 5, "does not cover")
    refused([*bench.distill(out), "--teacher", "offlin"], 4, "did you mean 'offline:'?")
    refused(bench.distill(out, held_out="roze"), 2, "Unknown domain", "ink, neon, rose", "did you mean 'rose'?")
    refused(bench.distill(out, held_out="ink,rose"), 2, "repeat --held-out for each: --held-out ink --held-out rose")
    refused(["ledger", str(out)], 8, "contains no run", "no such folder")
    refused([*bench.distill(out), "--student", "timm:nothing"], 6, "Unknown timm model")
    refused(["distill", "--out", str(out), "--resume"], 8, "contains no run")
    assert not out.exists(), "refused commands leave no files"


def test_wrong_settings_are_refused(bench: Bench, tmp_path: Path) -> None:
    broken, unknown = tmp_path / "broken.yaml", tmp_path / "unknown.yaml"
    broken.write_text("data: [\n")
    unknown.write_text("distill: {stepz: 3}\nbatches: 2\n")
    refused([*bench.distill(tmp_path / "run"), "--config", str(broken)], 2, "not valid YAML", "line")
    messages = refused([*bench.distill(tmp_path / "run"), "--config", str(unknown)], 2, "distill.stepz", "batches")
    assert "2 faults" in messages
    done = vl2v(*bench.distill(tmp_path / "run"), "--json", "--seed", "-1")
    assert json.loads(done.stderr)["error"] == "ConfigError"


def test_an_existing_folder_is_not_overwritten(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    refused(bench.distill(tmp_path), 8, "is not empty")
    refused(bench.distill(tmp_path / "mine.txt"), 8, "is not a folder", "found: a file")
    assert (tmp_path / "mine.txt").read_text() == "keep me"


def test_wrong_students_are_refused(tmp_path: Path, bench: Bench) -> None:
    refused(["predict", str(tmp_path), str(bench.data)], 6, "contains no student")


def test_all_incompatible_settings_are_reported(bench: Bench, tmp_path: Path) -> None:
    wrong = ["--student", "teacher", "--method", "erm", "--rest-unlabelled"]
    faults = ("3 faults", "VL2V-SD", "labels alone", "needs data.labels_per_class")
    messages = refused([*bench.distill(tmp_path / "run"), *wrong], 2, *faults)
    assert "found" not in messages


@pytest.mark.slow
def test_a_child_process_ends_without_a_traceback(bench: Bench, tmp_path: Path) -> None:
    """Other tests of messages and exit codes use the process of the tests; this one starts `vl2v` as a user does."""
    command = [sys.executable, "-m", "vl2v", "quote", str(tmp_path / "absent"), "--teacher", bench.teacher]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "is not a folder" in done.stderr
    assert "Traceback" not in done.stderr
    in_process = vl2v(*command[3:])
    assert (in_process.returncode, in_process.stdout, in_process.stderr) == (3, "", done.stderr)
