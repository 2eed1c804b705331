"""Datasets of other tools equal the folder of their images, and faults are listed with their rows."""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from pictures import encoded, folder_of, noise, put

from other_environments import python_of
from other_packages import install_package
from vl2v.commands.label_table import write_labels
from vl2v.config import DataConfig
from vl2v.data.drop import without_dropped
from vl2v.data.folder import DomainFolder
from vl2v.data.images import ImageDataset
from vl2v.data.listing import FaultyDataError
from vl2v.data.views import View
from vl2v.errors import ConfigError, DataError, MissingExtraError
from vl2v.planning.prepare import list_folder
from vl2v.progress import Silent
from vl2v.sources.importing import import_records
from vl2v.sources.label_studio import tasks
from vl2v.sources.registry import BUILT_IN, SOURCES, find_source
from vl2v.sources.webdataset import expand
from vl2v.teacher.purchase.image_set import ImageSet

CLASSES = ["cat", "wild dog"]
Settings = dict[str, Any]


def rows_of(root: Path) -> list[dict[str, Any]]:
    files = sorted(root.rglob("*.png"), reverse=True)
    return [{"path": f, "species": f.parts[-2], "camera": f.parts[-3]} for f in files]


def features() -> dict[bytes, bytes]:
    """Return the metadata that `datasets` writes for an image, a class and a text."""
    known = {
        "image": {"_type": "Image"},
        "species": {"names": CLASSES, "_type": "ClassLabel"},
        "camera": {"dtype": "string", "_type": "Value"},
    }
    return {b"huggingface": json.dumps({"info": {"features": known}}).encode()}


def arrow(rows: list[dict[str, Any]]) -> pa.Table:
    image = [{"bytes": row["path"].read_bytes(), "path": row["path"].name} for row in rows]
    columns = {
        "image": pa.array(image, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "species": pa.array([CLASSES.index(row["species"]) for row in rows], pa.int64()),
        "camera": pa.array([row["camera"] for row in rows]),
    }
    return pa.table(columns).replace_schema_metadata(features())


def parquet_file(root: Path, to: Path) -> str:
    parquet.write_table(arrow(rows_of(root)), to / "train.parquet")
    return str(to / "train.parquet")


def parquet_folder(root: Path, to: Path) -> str:
    table = arrow(rows_of(root))
    (to / "set" / "data").mkdir(parents=True)
    parquet.write_table(table.slice(0, 5), to / "set" / "data" / "train-00000-of-00002.parquet", row_group_size=2)
    parquet.write_table(table.slice(5), to / "set" / "data" / "train-00001-of-00002.parquet")
    return str(to / "set")


def saved(root: Path, to: Path) -> str:
    """Write the files of `Dataset.save_to_disk`; another test uses the package itself."""
    folder = to / "saved"
    folder.mkdir()
    table = arrow(rows_of(root))
    for i, part in enumerate((table.slice(0, 3), table.slice(3))):
        with (
            pa.OSFile(str(folder / f"data-{i:05d}-of-00002.arrow"), "wb") as file,
            pa.ipc.new_stream(file, part.schema) as out,
        ):
            out.write_table(part)
    files = [{"filename": f"data-{i:05d}-of-00002.arrow"} for i in range(2)]
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_split": "train"}))
    return str(folder)


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def shards(root: Path, to: Path, classes: bool = True) -> str:
    rows = rows_of(root)
    for i, part in enumerate((rows[:3], rows[3:])):
        with tarfile.open(to / f"part-{i:03d}.tar", "w") as archive:
            for j, row in enumerate(part):
                add(archive, f"{i}/{j:05d}.png", row["path"].read_bytes())
                add(archive, f"{i}/{j:05d}.cls", str(CLASSES.index(row["species"])).encode())
                add(archive, f"{i}/{j:05d}.json", json.dumps({"camera": row["camera"], "box": [1, 2]}).encode())
    if classes:
        (to / "classnames.txt").write_text("\n".join(CLASSES))
    return str(to / "part-{000..001}.tar")


def copied(root: Path, to: Path) -> list[dict[str, Any]]:
    """Copy every image under another name into one folder, as labelling tools do."""
    rows = []
    for i, row in enumerate(rows_of(root)):
        to.mkdir(parents=True, exist_ok=True)
        name = f"{i:08x}-photo {i}.png"
        shutil.copy(row["path"], to / name)
        rows.append(row | {"name": name})
    return rows


def dataset_of(i: int, row: dict[str, Any], *choices: str) -> dict[str, Any]:
    results = [
        {"id": "x", "type": "choices", "from_name": "choice", "to_name": "image", "value": {"choices": [choice]}}
        for choice in choices or (row["species"],)
    ]
    annotation = {"id": i, "was_cancelled": False, "result": results, "completed_by": 1, "lead_time": 2.5}
    data = {"image": f"/data/upload/7/{row['name']}", "camera": row["camera"]}
    return {"id": i, "annotations": [annotation], "data": data, "meta": {}, "file_upload": row["name"], "project": 7}


def studio_json(root: Path, to: Path) -> str:
    rows = copied(root, to / "images")
    (to / "project-7.json").write_text(json.dumps([dataset_of(i, row) for i, row in enumerate(rows)], indent=1))
    return str(to / "project-7.json")


def studio_min(root: Path, to: Path) -> str:
    rows = copied(root, to / "upload" / "7")
    result = [
        {"image": f"/data/upload/7/{r['name']}", "camera": r["camera"], "id": i, "choice": r["species"], "annotator": 1}
        for i, r in enumerate(rows)
    ]
    (to / "min.json").write_text(json.dumps(result))
    return str(to / "min.json")


def studio_csv(root: Path, to: Path) -> str:
    rows = copied(root, to / "local")
    names = ["camera", "image", "id", "choice", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"]
    with (to / "project-7.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="1")
        writer.writeheader()
        for row in rows:
            image = f"/data/local-files/?d=local/{row['name'].replace(' ', '%20')}"
            writer.writerow({"camera": row["camera"], "image": image, "choice": row["species"]})
    return str(to / "project-7.csv")


def cvat(root: Path, to: Path) -> str:
    images = []
    for i, row in enumerate(copied(root, to / "images" / "Train")):
        tag = (
            f'<tag label="{row["species"]}" source="manual"><attribute name="camera">{row["camera"]}</attribute></tag>'
        )
        head = f'<image id="{i}" name="{row["name"]}" subset="Train" task_id="1" width="12" height="10">'
        images.append(f"  {head}\n    {tag}\n  </image>")
    text = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta><job/></meta>\n'
    (to / "annotations.xml").write_text(text + "\n".join(images) + "\n</annotations>\n")
    return str(to / "annotations.xml")


KINDS: dict[str, tuple[Callable[[Path, Path], str], Settings]] = {
    "parquet file": (parquet_file, {"label": "species"}),
    "parquet folder": (parquet_folder, {}),
    "saved by datasets": (saved, {}),
    "webdataset": (shards, {}),
    "label studio json": (studio_json, {}),
    "label studio min": (studio_min, {}),
    "label studio csv": (studio_csv, {}),
    "cvat": (cvat, {}),
}


def imported(data: str, folder: Path, **settings: Any) -> Path:
    source = find_source(data)
    assert source is not None
    return import_records(source.open(data), data, folder / "tables", settings)


def scan(table: Path, **settings: Any) -> ImageDataset:
    return list_folder(DataConfig.model_validate({"root": table} | settings)).scan()


def content(dataset: ImageDataset) -> set[tuple[bytes, str, str]]:
    return {
        (digest.tobytes(), dataset.folders[label], dataset.domains[domain])
        for digest, label, domain in zip(dataset.digests, dataset.labels, dataset.domain_of, strict=True)
    }


def faults(table: Path, **settings: Any) -> dict[str, str]:
    with pytest.raises(FaultyDataError) as caught:
        scan(table, **settings)
    return {fault.where: fault.problem for fault in caught.value.faults}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_equals_the_folder(tmp_path: Path, kind: str) -> None:
    root = folder_of(tmp_path / "photos", classes=("cat", "wild dog"), each=4)
    make, settings = KINDS[kind]
    (tmp_path / "given").mkdir()
    data = make(root, tmp_path / "given")
    table = imported(data, tmp_path, domain="camera", **settings)
    listing = list_folder(DataConfig(root=table, domain="camera"))
    assert listing.source == Path(data)
    dataset = listing.scan()
    assert content(dataset) == content(DomainFolder(root).scan())
    assert imported(data, tmp_path, domain="camera", **settings) == table
    again = imported(data, tmp_path / "elsewhere", domain="camera", **settings)
    assert scan(again, domain="camera").digest() == dataset.digest(), "wherever it is imported to"


def test_an_unchanged_source_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_of(tmp_path / "photos", classes=("cat", "wild dog"))
    (tmp_path / "given").mkdir()
    data = parquet_file(root, tmp_path / "given")
    table = imported(data, tmp_path)
    monkeypatch.setattr("vl2v.sources.columnar.Columnar.rows", lambda *_: 1 / 0)
    assert imported(data, tmp_path) == table
    with pytest.raises(ZeroDivisionError):
        imported(data, tmp_path, domain="none")
    for image in (tmp_path / "tables" / "images").rglob("*.png"):
        image.unlink()
    with pytest.raises(ZeroDivisionError):
        imported(data, tmp_path)


def test_without_pyarrow_a_folder_of_parquet_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_of(tmp_path / "photos", classes=("cat", "wild dog"))
    data = parquet_folder(root, tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"vl2v\[parquet\]"):
        imported(data, tmp_path, domain="camera")
    shutil.copy(Path(data) / "data" / "train-00000-of-00002.parquet", root / "teacher.parquet")
    assert find_source(str(root)) is None, "a folder of images"


def test_a_copy_of_an_image_in_another_split_can_be_skipped(tmp_path: Path) -> None:
    table = arrow(rows_of(folder_of(tmp_path / "photos", classes=("cat", "wild dog"), each=4)))
    (tmp_path / "set").mkdir()
    parquet.write_table(table, tmp_path / "set" / "train-0.parquet")
    parquet.write_table(pa.concat_tables([table.slice(9, 1), table.slice(2, 1)]), tmp_path / "set" / "test-0.parquet")
    result = imported(str(tmp_path / "set"), tmp_path, domain="camera")
    assert faults(result, domain="camera") == {
        "rows 5, 12": "a copy of the image of an earlier row, with different splits",
    }
    dataset = list_folder(DataConfig(root=result, domain="camera")).scan(skip_bad=True)
    assert dataset.parts is not None
    assert np.bincount(dataset.parts).tolist() == [14, 0, 2]
    assert sum(fault.count for fault in dataset.skipped) == 2


def test_splits_of_files_and_shards_are_used(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos", classes=("cat", "wild dog"), each=4)
    table = arrow(rows_of(root))
    for name, part in (("train", table.slice(0, 8)), ("test", table.slice(8))):
        (tmp_path / "set" / "default" / name).mkdir(parents=True)
        parquet.write_table(part, tmp_path / "set" / "default" / name / "0000.parquet")
    result = imported(str(tmp_path / "set"), tmp_path)
    dataset = scan(result, allow_missing_classes=True)
    assert dataset.parts is not None
    assert np.bincount(dataset.parts).tolist() == [8, 0, 8]
    plain = imported(str(tmp_path / "set"), tmp_path, split="none")
    assert "split" not in plain.read_text()
    (tmp_path / "tar").mkdir()
    shards(root, tmp_path / "tar")
    for i, name in enumerate(("train-0.tar", "val-0.tar")):
        (tmp_path / "tar" / f"part-{i:03d}.tar").rename(tmp_path / "tar" / name)
    assert '"split": "val"' in imported(str(tmp_path / "tar"), tmp_path).read_text()


def test_faults_have_the_numbers_of_rows_and_the_name_of_the_source(tmp_path: Path) -> None:
    rows = copied(folder_of(tmp_path / "photos", classes=("cat", "wild dog"), each=4), tmp_path / "images")
    result = [dataset_of(i, row) for i, row in enumerate(rows)]
    result[1] = dataset_of(1, rows[1], "cat", "wild dog")
    result[4]["annotations"] = []
    result[6]["data"]["image"] = "/data/upload/7/00000000-gone.png"
    (tmp_path / "images" / rows[8]["name"]).write_bytes(b"no image")
    (tmp_path / "export.json").write_text(json.dumps(result))
    table = imported(str(tmp_path / "export.json"), tmp_path)
    with pytest.raises(FaultyDataError, match=r"4 faults in .*export\.json") as caught:
        scan(table)
    problems = {fault.where.partition(":")[0]: fault.problem for fault in caught.value.faults}
    assert problems["row 2"] == "several choices: cat, wild dog"
    assert problems["row 5"] == "no annotation"
    assert problems["row 7"].startswith("cannot be read")
    assert problems["row 9"].startswith("not a JPEG")
    dataset = list_folder(DataConfig(root=table)).scan(skip_bad=True)
    assert (len(dataset), len(dataset.skipped)) == (12, 4)


def test_the_control_of_label_studio_may_have_any_name(tmp_path: Path) -> None:
    rows = copied(folder_of(tmp_path / "photos", classes=("cat", "wild dog"), each=4), tmp_path / "images")
    result = [dataset_of(i, row) for i, row in enumerate(rows)]
    for dataset in result:
        dataset["annotations"][0]["result"][0]["from_name"] = "animal"
        other = {"type": "choices", "from_name": "quality", "value": {"choices": ["sharp"]}}
        dataset["annotations"].append({"result": [other], "skipped": True})
    (tmp_path / "one.json").write_text(json.dumps(result))
    assert scan(imported(str(tmp_path / "one.json"), tmp_path)).folders == ("cat", "wild dog")
    for dataset in result:
        dataset["annotations"][1]["skipped"] = False
    (tmp_path / "two.json").write_text(json.dumps(result))
    with pytest.raises(ConfigError, match="name it with --label"):
        imported(str(tmp_path / "two.json"), tmp_path)
    assert scan(imported(str(tmp_path / "two.json"), tmp_path, label="animal")).folders == ("cat", "wild dog")
    least = [
        {"image": f"/data/upload/7/{row['name']}", "animal": row["species"], "id": i} for i, row in enumerate(rows)
    ]
    least[2]["animal"] = ["cat", "wild dog"]
    (tmp_path / "min.json").write_text(json.dumps(least))
    names = ["annotator", "annotation_id", "image", "animal"]
    with (tmp_path / "min.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="1", extrasaction="ignore", quoting=csv.QUOTE_NONNUMERIC)
        writer.writeheader()
        writer.writerows(row | {"animal": json.dumps(row["animal"])} if i == 2 else row for i, row in enumerate(least))
    for name in ("min.json", "min.csv"):
        number = "row 3" if name == "min.json" else "row 4"
        assert faults(imported(str(tmp_path / name), tmp_path, label="animal")) == {
            number: "several choices: cat, wild dog"
        }


def test_broken_samples_of_shards_are_faults_of_their_rows(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos", classes=("cat", "wild dog"), each=4)
    shards(root, tmp_path)
    with tarfile.open(tmp_path / "part-001.tar", "a") as archive:
        add(archive, "9/1.png", b"nothing")
        add(archive, "9/1.cls", b"0")
        add(archive, "9/1.json", b'{"camera": "art"}')
        add(archive, "9/2.cls", b"0")
        add(archive, "9/2.json", b'{"camera": "art"}')
        add(archive, "9/3.png", encoded(noise(99)))
        add(archive, "9/3.cls", b"0")
        add(archive, "9/3.json", b"{broken")
        add(archive, "9/4.png", encoded(noise(98)))
        add(archive, "9/4.cls", b"0")
        add(archive, "9/4.json", b'{"camera": "art", "camera": "photo"}')
    result = faults(imported(str(tmp_path / "part-*.tar"), tmp_path, domain="camera"), label="cls", domain="camera")
    assert {where: problem[:30] for where, problem in result.items()} == {
        "row 17: part-001.tar: 9/1": "not a JPEG, PNG, WebP, BMP, TI",
        "row 18": "no image in the column image",
        "row 19 (part-001.tar: 9/3)": "a .json file that is not JSON ",
        "row 20 (part-001.tar: 9/4)": "the key camera twice",
    }


@pytest.mark.parametrize(("kind", "first"), [("webdataset", "part-000.tar: 0/00000"), ("parquet file", "row 1")])
def test_copies_have_the_names_that_the_user_knows(tmp_path: Path, kind: str, first: str) -> None:
    root = folder_of(tmp_path / "photos", classes=("cat", "wild dog"), each=4)
    make, settings = KINDS[kind]
    (tmp_path / "given").mkdir()
    dataset = scan(imported(make(root, tmp_path / "given"), tmp_path, domain="camera", **settings), domain="camera")
    digest = hashlib.sha256(rows_of(root)[0]["path"].read_bytes()).digest()
    (row,) = [i for i in range(len(dataset)) if dataset.digests[i].tobytes() == digest]
    assert dataset.known_as([row, row]) == [first, first]
    assert dataset.paths[row].startswith("images/"), "runs use the path"
    images = ImageSet.of(dataset.digests[[row]], lambda _: View(dataset.file(row), 1, 0), "training")
    assert images.named([0]) == [first]
    write_labels(tmp_path / "labels.csv", dataset, ["cat"] * 16, np.ones(16), None, False, Silent())
    with (tmp_path / "labels.csv").open() as file:
        labelled = list(csv.DictReader(file))
    assert labelled[row]["name"] == first
    assert (tmp_path / labelled[row]["image"]).read_bytes() == rows_of(root)[0]["path"].read_bytes()
    for entry in (first, dataset.paths[row]):
        (tmp_path / "drop.csv").write_text(f"path\n{entry}\n")
        assert first not in (left := without_dropped(dataset, tmp_path / "drop.csv", Silent())).known_as(range(15))
        assert len(left) == 15
    names = dataset.known_as(range(len(dataset)))
    assert len(set(names)) == len(dataset)
    assert not any(name.startswith("images/") for name in names)


def test_truncated_or_missing_shards_are_reported(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos", classes=("cat", "wild dog"), each=4)
    data = shards(root, tmp_path)
    complete = (tmp_path / "part-001.tar").read_bytes()
    (tmp_path / "part-001.tar").write_bytes(complete[:2000])
    with pytest.raises(DataError, match=r"part-001\.tar cannot be read"):
        imported(data, tmp_path)
    assert not list((tmp_path / "tables").glob("tmp*")), "it leaves no files"
    (tmp_path / "part-001.tar").unlink()
    with pytest.raises(DataError, match=r"part-001\.tar: no such file"):
        imported(data, tmp_path)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for i in range(200):
            add(archive, f"{i}.png", i.to_bytes(2) * 50_000)
            add(archive, f"{i}.cls", CLASSES[i % 2].encode())
    tracemalloc.start()
    imported(str(tmp_path / "a.tar"), tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000, "of 20 MB"


def test_a_tar_of_class_folders_has_its_classes_in_the_column_folder(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos", classes=("cat", "wild dog"))
    with tarfile.open(tmp_path / "photos.tar.gz", "w:gz") as archive:
        archive.add(root, "photos")
    with pytest.raises(ConfigError, match="there are: image, folder"):
        imported(str(tmp_path / "photos.tar.gz"), tmp_path)
    dataset = scan(imported(str(tmp_path / "photos.tar.gz"), tmp_path, label="folder"), label="folder")
    assert (len(dataset), dataset.folders, dataset.domains) == (8, ("cat", "wild dog"), ("photos",))


def test_braces_are_expanded() -> None:
    assert list(expand("a{08..11}.tar")) == ["a08.tar", "a09.tar", "a10.tar", "a11.tar"]
    assert list(expand("{train,val}-{0..1}")) == ["train-0", "train-1", "val-0", "val-1"]
    assert list(expand("plain.tar")) == ["plain.tar"]


def test_a_member_of_a_shard_is_never_written_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "a.tar", "w") as archive:
        for i, name in enumerate(("../../evil", "/etc/evil", "ok")):
            add(archive, f"{name}.png", encoded(noise(i)))
            add(archive, f"{name}.cls", CLASSES[i % 2].encode())
    table = imported(str(tmp_path / "in" / "a.tar"), tmp_path)
    assert len(list((tmp_path / "tables" / "images").rglob("*.png"))) == 3
    assert not list(tmp_path.glob("evil*"))
    records = [json.loads(line) for line in table.read_text().splitlines()]
    assert not any("evil" in record["image"] for record in records)
    assert [record["@name"] for record in records] == ["a.tar: ../../evil", "a.tar: etc/evil", "a.tar: ok"]


def test_an_export_is_read_one_task_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    text = ",\n".join(json.dumps({"id": i, "text": "ü" * 50, "n": 12345}) for i in range(5000))
    path.write_text(f"  [{text}]\n", encoding="utf-8")
    assert [dataset["id"] for dataset in tasks(path) if isinstance(dataset, dict)] == list(range(5000))
    for broken in ("{}", "", "[1, 2", '[{"a": 1} {', "[" * 100_000):
        path.write_text(broken)
        with pytest.raises(DataError, match=r"long\.json cannot be read"):
            list(tasks(path))


def test_a_document_type_in_xml_is_refused(tmp_path: Path) -> None:
    bomb = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
    text = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "ha">{bomb}]><annotations>&a9;</annotations>'
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DataError, match="document type"):
        imported(str(tmp_path / "a.xml"), tmp_path)
    (tmp_path / "a.xml").write_text("<annotations><image")
    with pytest.raises(DataError, match=r"a\.xml cannot be read"):
        imported(str(tmp_path / "a.xml"), tmp_path)


def test_names_in_a_saved_folder_cannot_leave_it(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../secret.arrow"}]}))
    with pytest.raises(DataError, match="names of files in it"):
        imported(str(tmp_path), tmp_path)


def test_classes_can_be_described_next_to_the_source(tmp_path: Path) -> None:
    data = shards(folder_of(tmp_path / "photos", classes=("cat", "wild dog"), each=4), tmp_path)
    (tmp_path / "classes.yaml").write_text("wild dog: a dingo\n")
    assert scan(imported(data, tmp_path), label="cls").phrases == ("cat", "a dingo")


def test_equal_data_in_two_folders_have_separate_names_and_descriptions(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos", classes=("cat", "wild dog"), each=4)
    data = []
    for name, description in (("one", "a dingo"), ("two", "a wolf")):
        (tmp_path / name).mkdir()
        data.append(shards(root, tmp_path / name))
        (tmp_path / name / "classes.yaml").write_text(f"wild dog: {description}\n")
    first, second = (imported(path, tmp_path) for path in data)
    for path, table, phrase in ((data[0], first, "a dingo"), (data[1], second, "a wolf")):
        assert imported(path, tmp_path) == table
        listing = list_folder(DataConfig(root=table, label="cls"))
        assert (listing.source, listing.phrases) == (Path(path), ("cat", phrase))


def test_folders_and_plain_tables_are_not_imported(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos")
    parquet.write_table(pa.table({"path": ["a.png"], "label": ["cat"]}), tmp_path / "paths.parquet")
    (tmp_path / "t.csv").write_text("path,label\na.png,cat\n")
    for data in (root, tmp_path / "paths.parquet", tmp_path / "t.csv", tmp_path / "none.parquet", tmp_path / "gone"):
        assert find_source(str(data)) is None
    put(root / "art" / "cat" / "x.png", 99)
    parquet.write_table(pa.table({"v": [1.0]}), root / "vectors.parquet")
    assert find_source(str(root)) is None


def test_the_cache_of_the_hub_is_used_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_of(tmp_path / "photos", classes=("cat", "wild dog"), each=4)
    commit, store = "a" * 40, tmp_path / "hub" / "datasets--user--set"
    (store / "snapshots" / commit / "data").mkdir(parents=True)
    (store / "refs").mkdir()
    (store / "refs" / "main").write_text(commit)
    table = arrow(rows_of(root))
    for name, part in (("train", table.slice(0, 8)), ("validation", table.slice(8))):
        parquet.write_table(part, store / "snapshots" / commit / "data" / f"{name}-00000-of-00001.parquet")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    result = imported("hf:user/set", tmp_path, domain="camera")
    dataset = scan(result, domain="camera", allow_missing_classes=True)
    assert content(dataset) == content(DomainFolder(root).scan())
    with pytest.raises(DataError, match="hf:user/other cannot be downloaded"):
        imported("hf:user/other", tmp_path)
    with pytest.raises(DataError, match="not available"):
        imported("hf:no name", tmp_path)


def example() -> str:
    """Return the source that the page on tables shows."""
    page = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "tables.md"
    (code,) = re.findall(r"```python\n(from pathlib.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return str(code)


def test_another_package_adds_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    points = install_package(site, "twins_source", example(), "[vl2v.sources]\ntwins = twins_source:TWINS\n")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    for i, name in enumerate(("cat", "cat", "dog", "dog")):
        put(tmp_path / "in" / f"{name}.{i}.png", i)
    dataset = scan(imported(f"twins:{tmp_path / 'in'}", tmp_path), label="kind")
    assert dataset.folders == ("cat", "dog")
    assert dataset.domains == ("in",)
    assert len(dataset) == 4
    for value, problem in (("twins_source:GONE", "AttributeError"), ("twins_source:Twins", "found: type")):
        points.write_text(f"[vl2v.sources]\ntwins = {value}\n")
        SOURCES._loaded.pop("twins", None)
        with pytest.raises(ConfigError, match=f"source twins of twins-source cannot be used(.|\n)*{problem}"):
            find_source("twins:x")
    assert set(BUILT_IN) == {"hub", "datasets", "webdataset", "label-studio", "cvat"}


@pytest.mark.system
def test_files_of_third_party_software_are_read(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos", classes=("cat", "wild dog"), each=4)
    code = """
import sys
from pathlib import Path
import datasets, webdataset
root, out = Path(sys.argv[1]), Path(sys.argv[2])
files = sorted(root.rglob("*.png"))
kinds = datasets.Features({"image": datasets.Image(), "species": datasets.ClassLabel(names=["cat", "wild dog"]),
                           "camera": datasets.Value("string")})
made = datasets.Dataset.from_dict({"image": [{"bytes": f.read_bytes(), "path": f.name} for f in files],
                                   "species": [f.parts[-2] for f in files],
                                   "camera": [f.parts[-3] for f in files]}, features=kinds)
made.save_to_disk(str(out / "one"))
parts = made.train_test_split(test_size=0.25, seed=0)
parts.save_to_disk(str(out / "two"))
made.to_parquet(str(out / "made.parquet"))
with webdataset.ShardWriter(str(out / "shard-%03d.tar"), maxcount=5, verbose=0) as sink:
    for i, f in enumerate(files):
        sink.write({"__key__": f"{i:05d}", "png": f.read_bytes(), "cls": f.parts[-2], "json": {"camera": f.parts[-3]}})
"""
    out = tmp_path / "given"
    out.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [str(python_of("writers")), "-c", code, str(root), str(out)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = content(DomainFolder(root).scan())
    for data in (out / "one", out / "two", out / "made.parquet", out / "shard-{000..003}.tar"):
        dataset = scan(imported(str(data), tmp_path, domain="camera"), domain="camera", allow_missing_classes=True)
        assert content(dataset) == expected, data
    assert '"split": "test"' in imported(str(out / "two"), tmp_path).read_text()


@pytest.mark.parametrize("kind", [str, lambda address: str(Path(address))])
def test_a_url_is_shown_unchanged(kind: Callable[[str], str]) -> None:
    with pytest.raises(DataError, match=r"the address s3://bucket/table\.csv"):
        find_source(kind("s3://bucket/table.csv"))
