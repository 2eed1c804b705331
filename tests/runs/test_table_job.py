"""Runs on a table equal those on the same images in folders bit for bit, and every command finds the images."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from tiny_dataset import TINY, Bench, bench, vl2v  # noqa: F401 - a fixture

import vl2v as api
from vl2v.commands import trust as trusting
from vl2v.commands.distill import Run
from vl2v.commands.export import _sample
from vl2v.errors import Vl2vError
from vl2v.interrupts import stop_when
from vl2v.locations import StoragePaths
from vl2v.progress import Silent
from vl2v.runs.storage import storage_of

SMALL = TINY | {
    "recipe": "paper",
    "distill": {"steps": 6, "checkpoint_every": 2, "learning_rate": 1e-3},
    "seed": 1,
}


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows_of(data: Path) -> list[dict[str, str]]:
    files = (file.relative_to(data) for file in sorted(data.rglob("*.png"), reverse=True))
    return [{"where": f.as_posix(), "species": f.parts[1], "camera": f.parts[0]} for f in files]


def distill(bench: Bench, root: Path | None, out: Path, resume: bool = False, **more: Any) -> Run:
    arguments: dict[str, Any] = {
        "out": out,
        "storage": StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite"),
    }
    arguments["report"] = more.pop("report", False)
    if resume:
        run = api.distill(resume=True, **arguments)
    else:
        run = api.distill(root, bench.teacher, bench.student, held_out=["rose"], settings=SMALL | more, **arguments)
    assert run is not None
    return run


@pytest.fixture(scope="module")
def table_bench(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    copy = bench.copy(tmp_path_factory.mktemp("table"))
    write(copy.data / "photos.csv", rows_of(copy.data))
    return copy


@pytest.fixture(scope="module")
def run(table_bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = {"image": "where", "label": "species", "domain": "camera"}
    return distill(
        table_bench, table_bench.data / "photos.csv", tmp_path_factory.mktemp("run") / "run", data=data
    ).folder


def test_the_student_is_that_of_the_folder_bit_for_bit(table_bench: Bench, run: Path, tmp_path: Path) -> None:
    folder = distill(table_bench, table_bench.data, tmp_path / "folder").folder
    for name in ("student/model.safetensors", "student/trust.json"):
        assert (run / name).read_bytes() == (folder / name).read_bytes(), name
    answers = [dict(np.load(each / "predictions.npz")) for each in (run, folder)]
    assert all((answers[0][key] == answers[1][key]).all() for key in answers[0])
    configs = [yaml.safe_load((each / "config.yaml").read_text())["data"] for each in (run, folder)]
    assert configs[0]["root"] == str(table_bench.data / "photos.csv")
    assert [configs[0][key] for key in ("image", "label", "domain")] == ["where", "species", "camera"]
    different = {key for key in configs[0] if configs[0][key] != configs[1][key]}
    assert different == {"root", "image", "label", "domain"}
    provenance = [api.load(each).provenance["data"]["digest"] for each in (run, folder)]
    assert provenance[0] == provenance[1]


def test_a_stopped_run_continues_and_ends_the_same(table_bench: Bench, run: Path, tmp_path: Path) -> None:
    stopped, polls = tmp_path / "stopped", iter(range(100))
    renamed = table_bench.data / "guessed.csv"  # columns found by common names are noted, and then no longer guessed
    write(
        renamed, [{"path": r["where"], "class": r["species"], "site": r["camera"]} for r in rows_of(table_bench.data)]
    )
    with pytest.raises(Vl2vError), stop_when(lambda: next(polls) >= 4):
        distill(table_bench, renamed, stopped)
    noted = yaml.safe_load((stopped / "config.yaml").read_text())["data"]
    assert [noted[key] for key in ("image", "label", "domain")] == ["path", "class", "site"]
    distill(table_bench, None, stopped, resume=True)
    assert (run / "student/model.safetensors").read_bytes() == (stopped / "student/model.safetensors").read_bytes()


def test_changed_data_are_refused_on_resume(table_bench: Bench, run: Path, tmp_path: Path) -> None:
    stopped, polls, rows = tmp_path / "stopped", iter(range(100)), rows_of(table_bench.data)
    table = write(table_bench.data / "changing.csv", rows)
    data = {"image": "where"}
    with pytest.raises(Vl2vError), stop_when(lambda: next(polls) >= 4):
        distill(table_bench, table, stopped, data=data)
    write(table, [row | {"species": "bar"} if row["where"] == "ink/blank/3.png" else row for row in rows])
    with pytest.raises(Vl2vError, match="The data has changed"):
        distill(table_bench, None, stopped, resume=True)
    write(table, rows)
    with np.load(run / "predictions.npz") as arrays:
        name = str(arrays["path"][arrays["role"] == "in-domain"][0])
    validation, other = table_bench.data / name, table_bench.data / rows[0]["where"]
    content = validation.read_bytes()
    try:
        validation.write_bytes(other.read_bytes())
        with pytest.raises(Vl2vError, match="The data has changed"):
            distill(table_bench, None, stopped, resume=True)
    finally:
        validation.write_bytes(content)


def test_a_student_is_evaluated_on_tables(table_bench: Bench, run: Path, tmp_path: Path) -> None:
    storage = StoragePaths(table_bench.root / "cache", table_bench.root / "vectors.sqlite")
    on_folder = api.evaluate(run, table_bench.data, storage=storage)
    on_table = api.evaluate(run, table_bench.data / "photos.csv", storage=storage)
    assert on_table.to_dict() == on_folder.to_dict(), "the validation images of the run, with its columns"
    assert [row.role for row in on_table.rows] == ["in-domain", "in-domain", "out-of-domain"]
    frame = pa.Table.from_pylist(
        [row | {"where": str(table_bench.data / row["where"])} for row in rows_of(table_bench.data)]
    )
    of_frame = api.evaluate(
        run, frame, domains=["rose"], storage=StoragePaths(table_bench.root / "cache", tmp_path / "v.sqlite")
    )
    assert of_frame.rows[0].student == on_folder.rows[2].student
    other = write(
        table_bench.data / "other.csv", [{"f": r["where"], "k": r["species"]} for r in rows_of(table_bench.data)[:40]]
    )
    evaluation = api.evaluate(run, other, columns={"image": "f", "label": "k"}, storage=storage)
    assert [(row.domain, row.images) for row in evaluation.rows] == [("data", 40)]
    flags = ["--image", "f", "--label", "k", "--cache", str(table_bench.root / "cache"), "--json"]
    done = vl2v("evaluate", run, other, *flags)
    assert json.loads(done.stdout) == evaluation.to_dict(), done.stderr
    assert "image: column f, label: column k; no column of domains, so one domain" in done.stderr


def test_every_command_finds_the_images_by_the_table(
    table_bench: Bench, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    sought: list[Path] = []
    monkeypatch.setattr(trusting, "embed_images", lambda _, paths, *__: sought.extend(paths))
    assert trusting.refit(copy, Silent()).domains
    assert sought
    assert all(path.is_file() for path in sought)
    sample = _sample(
        copy, api.load(copy), None, False, StoragePaths(table_bench.root / "cache", table_bench.root / "v"), Silent()
    )
    assert sample.what == "validation images of the sources"
    for data in (table_bench.data, table_bench.data / "photos.csv"):
        sample = _sample(
            copy,
            api.load(copy),
            data,
            False,
            StoragePaths(table_bench.root / "cache", table_bench.root / "v"),
            Silent(),
        )
        assert sample.what == "validation images of the sources", data


@pytest.mark.slow  # writes a report
def test_the_report_shows_images_of_a_table(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    page = api.report(copy, storage=storage_of(run)).read_text()
    assert "photos.csv" in page
    assert "no longer at" not in page


def test_quote_states_the_columns(table_bench: Bench) -> None:
    arguments = ["quote", str(table_bench.data / "photos.csv"), "--teacher", table_bench.teacher, "--image", "where"]
    done = vl2v(*table_bench.flags(*arguments, "--domain", "camera", "--held-out", "rose"))
    assert done.returncode == 0, done.stderr
    assert "image: column where, label: column species, domain: column camera" in done.stdout
    quoted = json.loads(vl2v(*table_bench.flags(*arguments, "--domain-column", "none", "--json")).stdout)
    assert quoted["data"]["columns"] == {"image": "where", "label": "species"}
    assert [domain["name"] for domain in quoted["data"]["domains"]] == ["data"]
    lacking = vl2v(*table_bench.flags(*arguments[:-2]))
    assert lacking.returncode == 2
    assert "name it with --image" in lacking.stderr
    assert "there are: where, species, camera" in lacking.stderr


def test_a_frame_is_saved_for_the_run(table_bench: Bench, tmp_path: Path) -> None:
    frame = pa.Table.from_pylist(
        [row | {"where": str(table_bench.data / row["where"])} for row in rows_of(table_bench.data)]
    )
    store = tmp_path / "store" / "vectors.sqlite"
    digests = dict(np.load(table_bench.teacher.removeprefix("file:")))
    digests["paths"] = np.array([str(table_bench.data / path) for path in digests["paths"]])
    np.savez(tmp_path / "teacher.npz", **digests)
    settings = {"data": {"image": "where", "held_out": ["rose"]}, "student": {"size": 32}}
    estimate = api.quote(
        frame, f"file:{tmp_path / 'teacher.npz'}", settings=settings, storage=StoragePaths(tmp_path, store)
    )
    assert estimate.contents is not None
    assert estimate.contents.images == 90
    assert dict(estimate.contents.columns) == {"image": "where", "label": "species", "domain": "camera"}
    (saved,) = (store.parent / "tables").iterdir()
    assert saved.suffix == ".jsonl"
