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
from vl2v.locations import StoragePaths
from vl2v.progress import Silent
from vl2v.stopping import stopped_by

SMALL = TINY | {
    "recipe": "paper",
    "distill": {"steps": 4, "checkpoint_every": 2, "learning_rate": 1e-3},
    "seed": 1,
}
COLUMNS = {"image": "path", "label": "class", "domain": "site", "split": "fold", "group": "clip"}


def fold_of(number: int) -> str:
    return "train" if number < 6 else "Validation" if number < 8 else "TEST"


def rows_of(data: Path) -> list[dict[str, str]]:
    found = []
    for file in sorted(data.rglob("*.png")):
        site, name = file.relative_to(data).parts[:2]
        clip = f"{site} {name} {int(file.stem) // 2}"
        path = file.relative_to(data).as_posix()
        found.append({"path": path, "class": name, "site": site, "fold": fold_of(int(file.stem)), "clip": clip})
    return found


@pytest.fixture(scope="module")
def own(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    copy = bench.copy(tmp_path_factory.mktemp("table"))
    with (copy.data / "photos.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(COLUMNS.values()))
        writer.writeheader()
        writer.writerows(rows_of(copy.data))
    return copy


def places_of(own: Bench) -> StoragePaths:
    return StoragePaths(own.root / "cache", own.root / "vectors.sqlite")


def distill(own: Bench, out: Path, resume: bool = False, **more: Any) -> Run:
    given: dict[str, Any] = {"out": out, "storage": places_of(own), "report": more.pop("report", False)}
    if resume:
        run = api.distill(resume=True, **given)
    else:
        settings = SMALL | {"data": COLUMNS}
        data = own.data / "photos.csv"
        run = api.distill(data, own.teacher, own.student, held_out=["rose"], settings=settings, **given)
    assert run is not None
    return run


@pytest.fixture(scope="module")
def run(own: Bench, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return distill(own, tmp_path_factory.mktemp("run") / "run")


def test_test_images_are_evaluated_on_and_neither_trained_on_nor_selected_by(own: Bench, run: Run) -> None:
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
    found = read_predictions(run.folder / "predictions.npz")
    numbers = {role: {int(Path(path).stem) for path in part.path} for role, part in found.roles().items()}
    assert numbers == {"in-domain": {6, 7}, "test": {8, 9}, "out-of-domain": set(range(10))}


def test_a_stopped_run_goes_on_and_ends_the_same(own: Bench, run: Run, tmp_path: Path) -> None:
    stopped, asked = tmp_path / "stopped", iter(range(100))
    with pytest.raises(Vl2vError), stopped_by(lambda: next(asked) >= 3):
        distill(own, stopped)
    noted = yaml.safe_load((stopped / "config.yaml").read_text())["data"]
    assert {role: noted[role] for role in COLUMNS} == COLUMNS
    distill(own, stopped, resume=True)
    student = "student/model.safetensors"
    assert (run.folder / student).read_bytes() == (stopped / student).read_bytes()


def test_evaluate_knows_the_split_of_its_own_table_and_of_another(own: Bench, run: Run, tmp_path: Path) -> None:
    found = api.evaluate(run.folder, own.data / "photos.csv", storage=places_of(own))
    assert [(r.domain, r.role, r.student) for r in found.rows] == [
        (r.domain, r.role, r.student) for r in run.evaluation.rows
    ]
    rows = rows_of(own.data)[:30]
    other = own.data / "other.csv"
    other.write_text("path,class,site,fold\n" + "".join(f"{r['path']},{r['class']},x,{r['fold']}\n" for r in rows))
    found = api.evaluate(run.folder, other, storage=places_of(own))
    assert [(r.domain, r.role, r.images) for r in found.rows] == [("x", "test", 6)]


def test_quote_states_split_and_groups_and_export_calibrates_on_no_test_image(own: Bench, run: Run) -> None:
    settings = {"data": COLUMNS | {"held_out": ["rose"]}, "student": {"size": 32}}
    quote = api.quote(own.data / "photos.csv", own.teacher, settings=settings, storage=places_of(own))
    assert quote.contents is not None
    assert quote.contents.parts == (("train", 54), ("validation", 18), ("test", 18))
    assert quote.contents.groups == 45
    assert quote.images == {"training": 36, "evaluation": 12 + 12 + 30}
    sample = _sample(run.folder, api.load(run.folder), None, False, places_of(own), Silent())
    assert sample.what == "validation images of the sources"


def test_folders_of_a_split_train_and_resume(own: Bench, tmp_path: Path) -> None:
    data = tmp_path / "photos"
    for row in rows_of(own.data):
        part = {"Validation": "val", "TEST": "test"}.get(row["fold"], "train")
        target = data / part / row["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(own.data / row["path"], target)
    kept = dict(np.load(own.teacher.removeprefix("file:")))
    parts = {row["path"]: {"Validation": "val", "TEST": "test"}.get(row["fold"], "train") for row in rows_of(own.data)}
    kept["paths"] = np.array([f"{parts[path]}/{path}" for path in kept["paths"]])
    np.savez(tmp_path / "teacher.npz", **kept)
    given: dict[str, Any] = {"storage": StoragePaths(tmp_path / "cache", tmp_path / "vectors.sqlite"), "report": False}
    asked = iter(range(100))
    out = tmp_path / "run"
    with pytest.raises(Vl2vError), stopped_by(lambda: next(asked) >= 3):
        api.distill(data, f"file:{tmp_path / 'teacher.npz'}", own.student, out=out, settings=SMALL, **given)
    done = api.distill(out=out, resume=True, **given)
    assert done is not None
    assert [(row.domain, row.role) for row in done.evaluation.rows] == [
        (domain, role) for role in ("in-domain", "test") for domain in ("ink", "neon", "rose")
    ]


@pytest.mark.slow  # writes a report
def test_the_report_shows_test_images(own: Bench, run: Run, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run.folder, tmp_path / "run"))
    page = api.report(copy, storage=places_of(own)).read_text()
    assert "on their test images" in page
    assert "ink (test)" in page
    assert "Test accuracy" in page
