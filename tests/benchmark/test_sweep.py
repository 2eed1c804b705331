from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from tiny_dataset import Bench, vl2v

from fork_server import fork_vl2v
from once import Once
from vl2v.benchmark.results import ZERO_SHOT
from vl2v.benchmark.sweep import records_in
from vl2v.errors import RunError

QUICK = ("student.size=32", "align.steps=20", "align.learning_rate=1e-2", "distill.steps=8", "device=cpu", "workers=0")
MORE = ("distill.checkpoint_every=4", "distill.learning_rate=1e-3", "batch_per_domain=4")


def command(bench: Bench, out: Path, *more: str) -> list[str]:
    base = ["benchmark", "run", "--data", str(bench.data), "--teacher", bench.teacher, "--student", bench.student]
    sets = [part for item in (*QUICK, *MORE) for part in ("--set", item)]
    return bench.flags(*base, "--out", str(out), *sets, *more)


def finished(out: Path) -> dict[str, int]:
    """Return when each job was finished."""
    return {file.parent.name: file.stat().st_mtime_ns for file in (out / "jobs").glob("*/job.json")}


@pytest.fixture(scope="session")
def grid(bench: Bench, once: Once) -> Path:
    """A finished grid, which tests must not change."""

    def make(folder: Path) -> None:
        done = vl2v(*command(bench, folder / "main", "--methods", "erm,adip", "--seeds", "2", "-q"))
        assert done.returncode == 0, done.stderr

    return once("grid", make) / "main"


def test_a_grid_has_a_job_for_each_method_target_and_seed(grid: Path) -> None:
    records = records_in(grid)
    keys = {(r.method, r.target, r.seed) for r in records}
    assert keys == {(m, t, s) for m in ("erm", "adip", ZERO_SHOT) for t in ("ink", "neon", "rose") for s in (0, 1)}
    assert len(records) == len(keys), "the teacher's answers count once"
    adip = next(r for r in records if (r.method, r.target) == ("adip", "rose"))
    assert (adip.image_queries, adip.text_queries) == (2 * 24, 3), "training images of two domains, and the prompts"
    assert set(adip.validation) == {"ink", "neon"}
    assert adip.test.images == 30
    assert next(r for r in records if r.method == "erm").image_queries == 0


def test_a_finished_grid_is_not_run_again(bench: Bench, grid: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(grid, tmp_path / "main"))
    before = finished(out)
    done = vl2v(*command(bench, out, "--methods", "erm,adip", "--seeds", "2", "-q"))
    assert done.returncode == 0, done.stderr
    assert finished(out) == before == finished(grid)
    assert "12 jobs finished" in done.stdout


@pytest.mark.system
def test_a_killed_grid_continues_without_repeating_a_finished_job(bench: Bench, grid: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    arguments = command(bench, out, "--methods", "erm,adip", "--seeds", "2", "-q")
    process = fork_vl2v(*arguments)
    while len(finished(out)) < 3:
        assert process.poll() is None, process.stderr
        time.sleep(0.02)
    process.kill()
    before = finished(out)
    assert len(before) < 12
    assert vl2v(*arguments).returncode == 0
    after = finished(out)
    assert {name: after[name] for name in before} == before
    assert after.keys() == finished(grid).keys()
    for name in after:
        one, other = (json.loads((at / "jobs" / name / "evaluation.json").read_text()) for at in (out, grid))
        assert one == other, "a job that was stopped ends as one that was not"


@pytest.mark.system
def test_two_processes_share_a_grid(bench: Bench, grid: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared"
    arguments = command(bench, out, "--methods", "erm,adip", "--seeds", "2")
    both = [fork_vl2v(*arguments) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0], [process.stderr for process in both]
    logs = [process.stderr for process in both]
    begun = [line for text in logs for line in text.splitlines() if ", target " in line]
    assert len(begun) == len(set(begun)) == 12, "no job is started twice"
    assert finished(out).keys() == finished(grid).keys()


@pytest.mark.slow
def test_the_choice_of_the_first_seed_is_used_for_the_others(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    vary = ("--vary", "distill.learning_rate=1e-6,1e-3", "--tune", "first-seed")
    done = vl2v(*command(bench, out, "--methods", "adip", "--targets", "rose", "--seeds", "3", "-q", *vary))
    assert done.returncode == 0, done.stderr
    records = [r for r in records_in(out) if r.method == "adip"]
    first = [r for r in records if r.seed == 0]
    best = max(first, key=lambda r: r.validation_accuracy)
    assert len(first) == 2
    assert [dict(r.candidate) for r in records if r.seed > 0] == [dict(best.candidate)] * 2
    assert [r.inherited for r in records] == [False, False, True, True]


@pytest.mark.slow
def test_a_plan_spends_nothing_and_lists_the_purchase(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "planned"
    store = ["--store", str(tmp_path / "vectors.sqlite")]  # the last option applies
    priced = command(bench, out, "--methods", "erm,adip", "--seeds", "1", "--json")
    priced += [*store, "--set", "teacher.price_per_1000_images=1.00"]
    plan = json.loads(vl2v(*priced, "--plan").stdout)
    assert (plan["jobs"], plan["finished"], plan["image_queries"], plan["text_queries"]) == (6, 0, 90, 3)
    assert float(plan["cost"]) == 0.09
    assert plan["hours"] > 0
    assert not out.exists()
    refused = vl2v(*priced)
    assert refused.returncode != 0
    assert "budget" in refused.stderr
    done = vl2v(*priced, "--budget", "0.09")
    assert done.returncode == 0, done.stderr
    spent = json.loads(vl2v("ledger", *store, "--json").stdout)
    assert sum(entry["queries"] for entry in spent if entry["kind"] == "image") == 90


def test_a_table_of_unfinished_jobs_names_them(grid: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(grid, tmp_path / "unfinished"))
    for file in out.glob("jobs/*/job.json"):
        file.unlink()
    done = vl2v("benchmark", "table", str(out))
    assert done.returncode == RunError.exit_code
    assert "12 unfinished jobs, such as" in done.stderr
