"""Runs on data that state their split and groups: trained, resumed, quoted, evaluated and reported on as stated."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_dataset import TINY, Bench, bench  # noqa: F401 - a fixture

import vl2v as api
from vl2v.commands.distill import Run
from vl2v.commands.export import _sample
from vl2v.errors import Vl2vError
from vl2v.evaluation.predictions import read_predictions
from vl2v.interrupts import stop_when
from vl2v.locations import StoragePaths
from vl2v.progress import Silent

SMALL = TINY | {
    "recipe": "paper",
    "distill": {"steps": 4, "checkpoint_every": 2, "learning_rate": 1e-3},
    "seed": 1,
}
COLUMNS = {"image": "path", "label": "class", "domain": "site", "split": "fold", "group": "clip"}


def fold_of(number: int) -> str:
    return "train" if number < 6 else "Validation" if number < 8 else "TEST"


def rows_of(data: Path) -> list[dict[str, str]]:
    rows = []
    for file in sorted(data.rglob("*.png")):
        site, name = file.relative_to(data).parts[:2]
        clip = f"{site} {name} {int(file.stem) // 2}"
        path = file.relative_to(data).as_posix()
        rows.append({"path": path, "class": name, "site": site, "fold": fold_of(int(file.stem)), "clip": clip})
    return rows


@pytest.fixture(scope="module")
def split_bench(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    copy = bench.copy(tmp_path_factory.mktemp("table"))
    with (copy.data / "photos.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(COLUMNS.values()))
        writer.writeheader()
        writer.writerows(rows_of(copy.data))
    return copy


def storage_of_bench(split_bench: Bench) -> StoragePaths:
    return StoragePaths(split_bench.root / "cache", split_bench.root / "vectors.sqlite")


def distill(split_bench: Bench, out: Path, resume: bool = False, **more: Any) -> Run:
    arguments: dict[str, Any] = {
        "out": out,
        "storage": storage_of_bench(split_bench),
        "report": more.pop("report", False),
    }
    if resume:
        run = api.distill(resume=True, **arguments)
    else:
        settings = SMALL | {"data": COLUMNS}
        data = split_bench.data / "photos.csv"
        run = api.distill(
            data, split_bench.teacher, split_bench.student, held_out=["rose"], settings=settings, **arguments
        )
    assert run is not None
    return run


@pytest.fixture(scope="module")
def run(split_bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return distill(split_bench, tmp_path_factory.mktemp("run") / "run")


def test_test_images_are_evaluated_on_and_neither_trained_on_nor_selected_by(split_bench: Bench, run: Run) -> None:
    roles = [(row.domain, row.role, row.images) for row in run.evaluation.rows]
    assert roles == [
        ("ink", "in-domain", 6),
        ("neon", "in-domain", 6),
        ("ink", "test", 6),
        ("neon", "test", 6),
        ("rose", "out-of-domain", 30),
    ]
    assert all(row.zero_shot is not None for row in run.evaluation.rows)
    saved = json.loads((run.folder / "evaluation.json").read_text())
    assert set(saved["means"]) == {"in_domain", "test", "out_of_domain"}
    predictions = read_predictions(run.folder / "predictions.npz")
    numbers = {role: {int(Path(path).stem) for path in part.path} for role, part in predictions.roles().items()}
    assert numbers == {"in-domain": {6, 7}, "test": {8, 9}, "out-of-domain": set(range(10))}


def test_a_stopped_run_continues_and_ends_the_same(split_bench: Bench, run: Run, tmp_path: Path) -> None:
    stopped, polls = tmp_path / "stopped", iter(range(100))
    with pytest.raises(Vl2vError), stop_when(lambda: next(polls) >= 3):
        distill(split_bench, stopped)
    noted = yaml.safe_load((stopped / "config.yaml").read_text())["data"]
    assert {role: noted[role] for role in COLUMNS} == COLUMNS
    distill(split_bench, stopped, resume=True)
    student = "student/model.safetensors"
    assert (run.folder / student).read_bytes() == (stopped / student).read_bytes()


def test_evaluate_reads_the_split_of_any_table(split_bench: Bench, run: Run, tmp_path: Path) -> None:
    evaluation = api.evaluate(run.folder, split_bench.data / "photos.csv", storage=storage_of_bench(split_bench))
    assert [(r.domain, r.role, r.student) for r in evaluation.rows] == [
        (r.domain, r.role, r.student) for r in run.evaluation.rows
    ]
    rows = rows_of(split_bench.data)[:30]
    other = split_bench.data / "other.csv"
    other.write_text("path,class,site,fold\n" + "".join(f"{r['path']},{r['class']},x,{r['fold']}\n" for r in rows))
    evaluation = api.evaluate(run.folder, other, storage=storage_of_bench(split_bench))
    assert [(r.domain, r.role, r.images) for r in evaluation.rows] == [("x", "test", 6)]


def test_quote_states_split_and_groups_and_export_calibrates_on_no_test_image(split_bench: Bench, run: Run) -> None:
    settings = {"data": COLUMNS | {"held_out": ["rose"]}, "student": {"size": 32}}
    quote = api.quote(
        split_bench.data / "photos.csv", split_bench.teacher, settings=settings, storage=storage_of_bench(split_bench)
    )
    assert quote.contents is not None
    assert quote.contents.parts == (("train", 54), ("validation", 18), ("test", 18))
    assert quote.contents.groups == 45
    assert quote.images == {"training": 36, "evaluation": 12 + 12 + 30}
    sample = _sample(run.folder, api.load(run.folder), None, False, storage_of_bench(split_bench), Silent())
    assert sample.what == "validation images of the sources"


def test_folders_of_a_split_train_and_resume(split_bench: Bench, tmp_path: Path) -> None:
    data = tmp_path / "photos"
    for row in rows_of(split_bench.data):
        part = {"Validation": "val", "TEST": "test"}.get(row["fold"], "train")
        target = data / part / row["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(split_bench.data / row["path"], target)
    teacher_file = dict(np.load(split_bench.teacher.removeprefix("file:")))
    parts = {
        row["path"]: {"Validation": "val", "TEST": "test"}.get(row["fold"], "train")
        for row in rows_of(split_bench.data)
    }
    teacher_file["paths"] = np.array([f"{parts[path]}/{path}" for path in teacher_file["paths"]])
    np.savez(tmp_path / "teacher.npz", **teacher_file)
    arguments: dict[str, Any] = {
        "storage": StoragePaths(tmp_path / "cache", tmp_path / "vectors.sqlite"),
        "report": False,
    }
    polls = iter(range(100))
    out = tmp_path / "run"
    with pytest.raises(Vl2vError), stop_when(lambda: next(polls) >= 3):
        api.distill(data, f"file:{tmp_path / 'teacher.npz'}", split_bench.student, out=out, settings=SMALL, **arguments)
    done = api.distill(out=out, resume=True, **arguments)
    assert done is not None
    assert [(row.domain, row.role) for row in done.evaluation.rows] == [
        (domain, role) for role in ("in-domain", "test") for domain in ("ink", "neon", "rose")
    ]


@pytest.mark.slow  # writes a report
def test_the_report_shows_test_images(split_bench: Bench, run: Run, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run.folder, tmp_path / "run"))
    page = api.report(copy, storage=storage_of_bench(split_bench)).read_text()
    assert "on their test images" in page
    assert "ink (test)" in page
    assert "Test accuracy" in page
