"""Inputs of `predict`, `expect` and `repair`: tables with their rows, datasets of other tools, and folders."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from exported import picture
from tiny_dataset import Bench
from torch import nn

from command_line import Done, run_cli
from vl2v.commands.given_images import find_images
from vl2v.config import RunConfig
from vl2v.errors import ConfigError
from vl2v.locations import StoragePaths
from vl2v.runs.folder import RunFolder
from vl2v.student.backbones import load_backbone
from vl2v.student.model import Student
from vl2v.validation import parse

ROWS = (
    "id,foto,path\n1,a.png,b.png\n2,,b.png\n\n3,sub\\b.png,b.png\n4,gone.png,b.png\n5,a.png,b.png\n6,s3:/x.png,b.png\n"
)


@pytest.fixture
def folder(tmp_path: Path, bench: Bench) -> Path:
    """A table of photos, and a student whose run recorded the column."""
    (tmp_path / "sub").mkdir()
    for seed, name in enumerate(("a.png", "b.png", "sub/b.png")):
        picture(seed).save(tmp_path / name)
    (tmp_path / "photos.csv").write_text(ROWS)
    backbone, made = load_backbone(bench.student, size=32), {"config": {"data": {"image": "foto"}}}
    projection = nn.Linear(backbone.features, 16)
    Student(backbone, projection, torch.randn(3, 16), ["cat", "cow", "dog"], 20.0, made).save(tmp_path / "student")
    return tmp_path


def predict(folder: Path, *words: str) -> Done:
    return run_cli("predict", folder / "student", *words, "--format", "csv")


def rows_of(done: Done) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_predictions_have_the_order_and_numbers_of_the_rows(folder: Path) -> None:
    done = predict(folder, str(folder / "photos.csv"))
    assert done.returncode == 3
    rows = rows_of(done)
    assert [row["row"] for row in rows] == ["2", "3", "5", "6", "7", "8"]
    assert [row["path"] for row in rows] == ["a.png", "", "sub\\b.png", "gone.png", "a.png", "s3:/x.png"]
    assert [bool(row["label"]) for row in rows] == [True, False, True, False, True, False]
    assert rows[1]["fault"] == "no image in the column foto"
    assert rows[0]["confidence"] == rows[4]["confidence"]
    assert rows[1]["confidence"] == rows[3]["confidence"] == ""
    assert "table" not in rows[0]
    alone = rows_of(predict(folder, str(folder / "sub" / "b.png")))[0]
    assert alone["label"] == rows[2]["label"]
    assert float(alone["confidence"]) == pytest.approx(float(rows[2]["confidence"]), abs=1e-5)
    assert "row" not in alone


def test_rows_of_several_tables_have_the_name_of_their_table(folder: Path) -> None:
    (folder / "more.csv").write_text("path\nb.png\n")
    inputs = [str(folder / name) for name in ("photos.csv", "more.csv", "a.png")]
    rows = rows_of(predict(folder, *inputs))
    assert [row["table"] for row in rows] == [inputs[0]] * 6 + [inputs[1], ""]
    assert [row["row"] for row in rows[-2:]] == ["2", ""]
    shown = run_cli("predict", folder / "student", *inputs).stdout
    assert [name.strip() for name in shown.splitlines()[1].split("┃")[1:4]] == ["table", "row", "image"]
    listed = json.loads(run_cli("predict", folder / "student", *inputs, "--format", "json").stdout)
    assert [answer.get("table", "") for answer in listed] == [row["table"] for row in rows]
    assert listed[1]["confidence"] is None
    assert listed[0]["confidence"] == pytest.approx(float(rows[0]["confidence"]), abs=1e-6)


def test_a_table_without_rows_needs_no_class(folder: Path) -> None:
    (folder / "photos.csv").write_text("path\n")
    done = predict(folder, str(folder / "photos.csv"))
    assert done.returncode == 3
    assert "a row for every image" in done.stderr
    assert "class" not in done.stderr.replace("classify", "")


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".tsv"])
def test_tables_of_every_format_name_their_column(folder: Path, suffix: str) -> None:
    table = folder / f"photos{suffix}"
    if suffix == ".jsonl":
        table.write_text("\n".join(json.dumps({"p": name}) for name in ("a.png", "b.png")))
    elif suffix == ".tsv":
        table.write_text("p\ta\na.png\tx\nb.png\ty\n")
    else:
        arrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(arrow.table({"p": ["a.png", "b.png"]}), table)
    named = rows_of(predict(folder, str(table), "--image", "p"))
    assert [row["path"] for row in named] == ["a.png", "b.png"]
    refused = predict(folder, str(table))  # this table has no column foto, and none with a common name
    assert refused.returncode == 2
    assert "no column is recognised as the image" in refused.stderr
    assert "--label" not in refused.stderr


def test_a_column_has_no_effect_on_images(folder: Path) -> None:
    done = predict(folder, str(folder / "a.png"), "--image", "foto")
    assert done.returncode == 2
    assert "only a table has columns" in done.stderr
    assert not done.stdout


def test_a_misspelt_column_is_not_replaced_by_another(folder: Path) -> None:
    with pytest.raises(ConfigError, match="missing or ambiguous") as caught:
        find_images([folder / "photos.csv"], "fotos", run_data={"image": "foto"})
    assert "no such column; foto?" in str(caught.value)


def test_the_column_of_the_run_is_used_only_in_tables_that_have_it(folder: Path) -> None:
    images, _ = find_images([folder / "photos.csv"], run_data={"image": "other"})
    assert {image.name for image in images} == {"b.png"}  # recognised: path


def test_samples_of_shards_are_named_by_shard_and_key(folder: Path) -> None:
    with tarfile.open(folder / "photos.tar", "w") as archive:
        archive.add(folder / "a.png", "day/7.png")
        archive.add(folder / "sub" / "b.png", "8.png")
    found, _ = find_images([folder / "photos.tar"], storage=StoragePaths(folder / "cache", folder / "vectors.sqlite"))
    assert [image.name for image in found] == ["photos.tar: day/7", "photos.tar: 8"]
    assert all(image.path and image.path.is_file() for image in found)
    parquet.write_table(
        pa.table({"image": [(folder / name).read_bytes() for name in ("a.png", "b.png")]}), folder / "p.pq"
    )
    found, _ = find_images([folder / "p.pq"], storage=StoragePaths(folder / "cache", folder / "vectors.sqlite"))
    assert [(image.name, image.row) for image in found] == [("row 1", 1), ("row 2", 2)]
    assert all(image.path and image.path.is_file() for image in found)


def test_images_at_addresses_are_named_as_in_the_table(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from vl2v.sources.remote import Fetcher

    address = "https://photos.example.org/a.png?key=1"
    (folder / "photos.csv").write_text(f"path\n{address}\nb.png\n")
    monkeypatch.setattr(Fetcher, "fetch", lambda self, some: dict.fromkeys(some, str(folder / "a.png")))
    storage = StoragePaths(cache=tmp_path / "cache", store=tmp_path / "s.sqlite")
    images, _ = find_images([folder / "photos.csv"], storage=storage)
    assert [(image.name, image.row) for image in images] == [(address, 2), ("b.png", 3)]
    assert [image.path for image in images] == [folder / "a.png", folder / "b.png"]


def test_a_dataset_of_another_tool_is_predicted(folder: Path) -> None:
    (folder / "export.json").write_text(
        json.dumps([{"id": 1, "data": {"image": str(folder / "a.png")}, "annotations": []}] * 2)
    )
    rows = rows_of(predict(folder, str(folder / "export.json")))
    assert [row["path"] for row in rows] == [str(folder / "a.png")] * 2


def test_suspects_of_data_other_than_the_table_of_the_run(folder: Path, bench: Bench) -> None:
    """The run was trained on a table. The folder has no columns."""
    run = RunFolder(folder / "run")
    data = {"root": str(folder / "photos.csv"), "image": "foto", "label": "id"}
    settings = {"data": data, "teacher": {"spec": bench.teacher}, "student": {"spec": bench.student, "size": 32}}
    run.create(parse(RunConfig, settings, "made"))
    words = bench.with_separate_storage(folder).flags(
        "--run", str(run.path), "--out", str(folder / "suspects.csv"), "-q"
    )
    done = run_cli("data", "suspects", bench.data, *words)
    assert done.returncode == 0, done.stderr
    assert "90 labelled images" in done.stdout
