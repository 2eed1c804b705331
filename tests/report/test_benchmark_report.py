"""The page of a benchmark whose finished jobs are written by hand."""

from __future__ import annotations

import csv
import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report_page import read

from vl2v.api_report import make_report
from vl2v.benchmark.protocol import Grid, Origin, jobs, save_grid
from vl2v.errors import RunError
from vl2v.evaluation.evaluation import IN_DOMAIN, OUT_OF_DOMAIN, DomainScore, Evaluation
from vl2v.json_files import write_json
from vl2v.runs.folder import RunFolder
from vl2v.validation import parse

DOMAINS = ("art", "photo")
ACCURACY = {"erm": 0.60, "adip": 0.70}
SETTINGS: dict[str, Any] = {
    "data": {"root": "/nowhere/TINY"},
    "teacher": {"spec": "file:teacher.npz"},
    "student": {"spec": "timm:test_resnet", "size": 32},
}


def make_grid(out: Path, seeds: tuple[int, ...] = (0, 1, 2), finished: int | None = None) -> dict[Any, float]:
    """Write a grid with some finished jobs and return the target accuracy by method, target and seed."""
    variants = {"erm": {"title": "ERM", "settings": {"method": "erm"}}, "adip": {"title": "<b>ADiP</b>"}}
    values = {"settings": SETTINGS, "variants": variants, "domains": DOMAINS, "targets": DOMAINS, "seeds": seeds}
    grid, origin = parse(Grid, values, "the grid"), Origin("d", "t", "s")
    save_grid(out, grid, origin)
    accuracies = {}
    for job in list(jobs(grid, origin))[:finished]:
        accuracy = ACCURACY[job.method] + 0.05 * DOMAINS.index(job.target) + 0.01 * job.seed * (job.method == "adip")
        accuracies[job.method, job.target, job.seed] = accuracy
        folder = RunFolder(out / "jobs" / job.name)
        folder.create(job.config)
        rows = []
        for domain in DOMAINS:
            role, right = (OUT_OF_DOMAIN, accuracy) if domain == job.target else (IN_DOMAIN, 0.9)
            rows.append(DomainScore(domain, role, 100, right, 0.8, 0.1, 0.1))
        queries = 80 if job.method == "adip" else 0
        usage = {"image_queries": queries, "text_queries": 3, "cost": f"{queries / 1000}", "currency": "USD"}
        write_json(folder.evaluation_file, Evaluation(tuple(rows)).to_dict() | {"asked": usage})
        facts = {"method": job.method, "title": job.title, "target": job.target, "seed": job.seed, "candidate": {}}
        write_json(folder.path / "job.json", facts | {"crossed": None, "key": job.key, "seconds": 90.0})
        _write_answers(folder, job.target, accuracy)
    return accuracies


def _write_answers(folder: RunFolder, target: str, accuracy: float) -> None:
    logits = np.tile([2.0, 0.0], (100, 1)).astype(np.float16)
    label = (np.arange(100) >= round(100 * accuracy)).astype(np.int64)
    domain, role = np.full(100, target), np.full(100, OUT_OF_DOMAIN)
    path = np.array([f"{i}.png" for i in range(100)])
    np.savez(folder.predictions_file, domain=domain, role=role, path=path, label=label, student=logits)


def values(out: Path, name: str) -> list[dict[str, str]]:
    with (out / "report" / f"{name}.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_the_page_and_its_values_are_those_of_the_jobs(tmp_path: Path) -> None:
    accuracies = make_grid(tmp_path)
    first = sorted((tmp_path / "jobs").iterdir())[0]
    (first / "report.html").write_text("a page")
    page = make_report(tmp_path, tmp_path / "none.sqlite")
    reader, text = read(page)
    assert reader.outside == []
    assert "b" not in reader.tags - {"body"}
    assert f'href="jobs/{first.name}/report.html"' in page.read_text()
    assert "11 of these 12 runs have no report" in text

    table = {(r["method"], r["target"]): r for r in values(tmp_path, "table")}
    for method in ACCURACY:
        for target in DOMAINS:
            seeds = [accuracies[method, target, seed] for seed in (0, 1, 2)]
            row = table[method, target]
            assert float(row["accuracy"]) == pytest.approx(statistics.fmean(seeds))
            assert float(row["accuracy_se"]) == pytest.approx(statistics.stdev(seeds) / math.sqrt(3), abs=1e-12)
    runs = {(r["method"], r["target"], int(r["seed"])): r for r in values(tmp_path, "runs")}
    for target in DOMAINS:
        for seed in (0, 1, 2):
            expected = accuracies["adip", target, seed] - accuracies["erm", target, seed]
            assert float(runs["adip", target, seed]["against erm"]) == pytest.approx(expected)
    (pooled,) = [r for r in values(tmp_path, "reliability") if r["method"] == "erm"]
    assert int(pooled["images"]) == 600
    assert float(pooled["accuracy"]) == pytest.approx(0.625)
    assert float(pooled["mean_confidence"]) == pytest.approx(1 / (1 + math.exp(-2)), abs=1e-6)
    assert "+11.0 ± " in text
    assert "worth 0.080 USD" in text


def test_the_baseline_is_not_compared_with_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vl2v.benchmark.report.page.LEADING", "another")
    monkeypatch.setitem(ACCURACY, "erm", 0.9)
    make_grid(tmp_path)
    _, text = read(make_report(tmp_path, tmp_path / "none.sqlite"))
    assert "ERM reaches 92.5%" in text
    assert "ompared with ERM" not in text


def test_the_complete_parts_of_an_unfinished_grid_are_shown(tmp_path: Path) -> None:
    make_grid(tmp_path, finished=3)
    _, text = read(make_report(tmp_path, tmp_path / "none.sqlite"))
    assert "Unfinished grid" in text
    assert "Jobs 3 finished" in text


def test_a_grid_without_a_finished_job_is_refused(tmp_path: Path) -> None:
    make_grid(tmp_path, finished=0)
    with pytest.raises(RunError, match="no results to tabulate"):
        make_report(tmp_path, tmp_path / "none.sqlite")
    assert not (tmp_path / "report.html").exists()
    assert json.loads((tmp_path / "origin.json").read_text())["data"] == "d"
