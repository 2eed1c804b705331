"""Runs on datasets of other tools: trained, resumed without the source, evaluated and reported."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_dataset import TINY, Bench, bench, vl2v  # noqa: F401 - a fixture

import vl2v as api
from vl2v.commands.distill import Run
from vl2v.commands.trust import refit
from vl2v.evaluation.predictions import read_predictions
from vl2v.locations import StoragePaths
from vl2v.progress import Silent
from vl2v.runs.storage import made_here

SMALL = TINY | {"recipe": "paper", "distill": {"steps": 4, "checkpoint_every": 2, "learning_rate": 1e-3}, "seed": 1}


def shards(data: Path, to: Path) -> Path:
    """Write the dataset as a WebDataset shard."""
    with tarfile.open(to / "task.tar", "w") as archive:
        for i, file in enumerate(sorted(data.rglob("*.png"))):
            site, name = file.relative_to(data).parts[:2]
            for ending, content in (
                ("png", file.read_bytes()),
                ("cls", name.encode()),
                ("json", json.dumps({"site": site}).encode()),
            ):
                entry = tarfile.TarInfo(f"{i:05d}.{ending}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return to / "task.tar"


def export(data: Path, to: Path) -> Path:
    """Write the dataset as an export of Label Studio that refers to the existing images."""
    tasks = []
    for i, file in enumerate(sorted(data.rglob("*.png"))):
        site, name = file.relative_to(data).parts[:2]
        image = f"/data/local-files/?d={file.as_posix().lstrip('/')}"
        tasks.append({"id": i, "image": image, "site": site, "choice": name, "annotator": 1})
    (to / "export.json").write_text(json.dumps(tasks))
    return to / "export.json"


def teacher(bench: Bench, to: Path) -> str:
    """Write a teacher file that identifies images by content instead of path."""
    from hashlib import sha256

    teacher_file = dict(np.load(bench.teacher.removeprefix("file:")))
    files = [bench.data / path for path in teacher_file.pop("paths")]
    teacher_file["sha256"] = np.array([sha256(file.read_bytes()).hexdigest() for file in files])
    np.savez(to / "teacher.npz", **teacher_file)
    return f"file:{to / 'teacher.npz'}"


def distill(bench: Bench, data: Path | None, out: Path, root: Path, **more: Any) -> Run:
    arguments: dict[str, Any] = {"out": out, "storage": StoragePaths(root / "cache", root / "store" / "vectors.sqlite")}
    if data is None:
        done = api.distill(resume=True, report=False, **arguments)
    else:
        settings = SMALL | {"data": {"domain": "site"}} | more
        done = api.distill(
            data, teacher(bench, root), bench.student, held_out=["rose"], settings=settings, report=False, **arguments
        )
    assert done is not None
    return done


@pytest.fixture(scope="module")
def run(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    root = tmp_path_factory.mktemp("source")
    return distill(bench, shards(bench.data, root), root / "run", root), root


def test_shards_train_the_student_of_the_folder(bench: Bench, run: tuple[Run, Path], tmp_path: Path) -> None:
    done, root = run
    assert [(row.domain, row.role, row.images) for row in done.evaluation.rows] == [
        ("ink", "in-domain", 6),
        ("neon", "in-domain", 6),
        ("rose", "out-of-domain", 30),
    ]
    with np.load(done.folder / "predictions.npz") as arrays:
        assert all(str(name).startswith("task.tar: ") for name in arrays["name"])
    tasks = api.evaluate(done.folder, root / "task.tar", storage=StoragePaths(root / "cache", root / "store" / "v"))
    assert [(r.domain, r.role, r.student) for r in tasks.rows] == [
        (r.domain, r.role, r.student) for r in done.evaluation.rows
    ]
    answers = vl2v("predict", done.folder, bench.data / "rose" / "bar", "--format", "json")
    assert answers.returncode == 0, answers.stderr


def test_a_run_continues_without_its_source(bench: Bench, tmp_path: Path) -> None:
    from vl2v.errors import Vl2vError
    from vl2v.interrupts import stop_when

    polls, data = iter(range(100)), shards(bench.data, tmp_path)
    with pytest.raises(Vl2vError), stop_when(lambda: next(polls) >= 3):
        distill(bench, data, tmp_path / "run", tmp_path)
    data.unlink()
    assert distill(bench, None, tmp_path / "run", tmp_path).evaluation.rows


def test_images_outside_the_folder_of_the_table_are_shown_for_runs_of_this_user(bench: Bench, tmp_path: Path) -> None:
    done = distill(bench, export(bench.data, tmp_path), tmp_path / "run", tmp_path)
    assert made_here(done.folder)
    answers = read_predictions(done.folder / "predictions.npz", anywhere=True)
    assert Path(str(answers.path[0])).is_file()
    with pytest.raises(ValueError, match="is outside the folder"):
        read_predictions(done.folder / "predictions.npz")
    assert refit(done.folder, Silent()).domains
    strange = Path(shutil.copytree(done.folder, tmp_path / "strange"))
    (strange / "places.json").write_text(json.dumps({"cache": "x", "store": "y", "signature": "z"}))
    assert not made_here(strange)


@pytest.mark.slow  # writes two reports
def test_the_report_shows_images_of_a_source(bench: Bench, run: tuple[Run, Path], tmp_path: Path) -> None:
    for done in (run[0], distill(bench, export(bench.data, tmp_path), tmp_path / "run", tmp_path)):
        page = api.report(done.folder).read_text()
        assert "cannot be read" not in page
        assert "no longer at" not in page


def test_settings_in_a_file_may_name_a_source(bench: Bench, tmp_path: Path) -> None:
    data = shards(bench.data, tmp_path)
    (tmp_path / "s.yaml").write_text(json.dumps({"data": {"root": str(data), "domain": "site", "held_out": ["rose"]}}))
    flags = ["--teacher", teacher(bench, tmp_path), "--config", str(tmp_path / "s.yaml"), "--json", "-q"]
    done = vl2v("quote", data, *flags, "--cache", tmp_path / "c", "--store", tmp_path / "s" / "v.sqlite")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["data"]["root"] == str(data)
