"""`vl2v repair`: a student is adapted to a new place with a few queries, and the earlier one stays."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_dataset import TINY, Bench
from typer.testing import CliRunner

import vl2v
from once import Once
from vl2v.cli import app
from vl2v.commands.repair import k_centre, plan_repair, repair
from vl2v.errors import BudgetError, ConfigError, DataError, RunError
from vl2v.locations import StoragePaths
from vl2v.runs.folder import RunFolder
from vl2v.teacher.purchase.ledger import Ledger
from vl2v.teacher.purchase.store import EmbeddingStore

SMALL = TINY | {
    "distill": {"steps": 4, "checkpoint_every": 2, "learning_rate": 1e-3, "minutes": 0},
    "teacher": {"price_per_1000_images": "1", "zero_shot": False},
}
BRIEF = {"distill": {"steps": 3, "warmup_steps": 1, "checkpoint_every": 2}}


@pytest.fixture(scope="module")
def deployed(bench: Bench, once: Once) -> Path:
    """A folder with a run `first` on two domains, its cache and its store; the third domain is the new place."""

    def make(folder: Path) -> None:
        storage = StoragePaths(folder / "cache", folder / "vectors.sqlite")
        vl2v.distill(
            bench.data, bench.teacher, bench.student, out=folder / "first", held_out=("rose",), storage=storage,
            report=False, budget="1", settings=SMALL,
        )  # fmt: skip

    return once("repair-first", make)


@pytest.fixture
def own(deployed: Path, tmp_path: Path) -> Path:
    """A copy of the run, with a store of its own."""
    shutil.copytree(deployed / "first", tmp_path / "first")
    shutil.copy(deployed / "vectors.sqlite", tmp_path)
    return tmp_path


def storage(own: Path, deployed: Path) -> StoragePaths:
    return StoragePaths(deployed / "cache", own / "vectors.sqlite")


def bytes_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows(table: Path) -> list[str]:
    with table.open(encoding="utf-8", newline="") as file:
        return [row["image"] for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_new_run_starts_from_the_student_and_pays_for_the_selected_images_only(
    bench: Bench, own: Path, deployed: Path
) -> None:
    before = bytes_of(own / "first")
    flags = ["--queries", "10", "--budget", "0.01", "--no-report", "--json", "--quiet"]
    flags += ["--cache", str(deployed / "cache"), "--store", str(own / "vectors.sqlite")]
    flags += ["--set", "distill.steps=3", "--set", "distill.warmup_steps=1"]
    command = ["repair", str(own / "first"), str(bench.data / "rose")]
    quoted = CliRunner().invoke(app, [*command, *flags, "--quote"])
    assert json.loads(quoted.stdout)["cost"] == "0.01"
    assert not (own / "first-repaired").exists()
    done = CliRunner().invoke(app, [*command, *flags])
    assert done.exit_code == 0, done.output
    found, out = json.loads(done.stdout), own / "first-repaired"
    assert (found["image_queries"], found["spent"], found["trained"], found["checked"]) == (10, "0.010", 8, 2)
    assert bytes_of(own / "first") == before
    trained, checked = rows(out / "repair-trained.csv"), rows(out / "repair-checked.csv")
    assert (len(trained), len(checked), len({*trained, *checked})) == (8, 2, 10)
    settings = yaml.safe_load((out / "config.yaml").read_text())
    assert settings["repair"]["run"] == str((own / "first").resolve())
    assert settings["align"]["solver"] == "ridge"
    assert settings["vl2v"]["kl_weight"] == 0.1, "as in any run with images without labels"
    assert settings["distill"]["steps"] == 3
    earlier = json.loads((own / "first" / "evaluation.json").read_text())
    domains = {row["domain"]: row["student"] for row in earlier["domains"] if row["role"] == "in-domain"}
    assert {domain: row["old"] for domain, row in found["validation"]["domains"].items()} == domains
    assert json.loads((out / "repair.json").read_text())["result"] == found
    again = CliRunner().invoke(app, [*command, *flags])
    assert json.loads(again.stdout) == found, "a finished repair is reported again, and nothing is bought"
    ledger = Ledger(EmbeddingStore(own / "vectors.sqlite"))
    assert [entry.queries for entry in ledger.entries(str(out.resolve()))] in ([2, 8], [10])
