"""Damaged or hostile exports and shards give an error or a fault of the row, and no image is silently lost."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from vl2v import parquet_files
from vl2v.data.tables.base import Broken
from vl2v.datasets.unpack import members
from vl2v.errors import DataError
from vl2v.sources.columnar import open_datasets
from vl2v.sources.cvat import CvatImages
from vl2v.sources.label_studio import LabelStudio
from vl2v.sources.webdataset import Shards


@pytest.mark.parametrize(
    "annotations",
    [5, True, "no", {"a": 1}, [7], [{"result": 7}], [{"result": True}], [{"result": {"a": 1}}], [{"result": [3]}]],
)
def test_annotations_of_another_type_are_a_fault_of_their_row(tmp_path: Path, annotations: object) -> None:
    def task(value: object) -> dict[str, Any]:
        return {"data": {"image": "a.png"}, "annotations": value}

    good = [{"result": [{"from_name": "choice", "type": "choices", "value": {"choices": ["cat"]}}]}]
    file = tmp_path / "export.json"
    file.write_text(json.dumps([task(annotations), task(good)]))
    (_, first), (_, second) = LabelStudio(str(file)).rows(["image", "choice"])
    assert isinstance(first, Broken)
    assert first.problem == "no annotation"
    assert second == (str(tmp_path / "a.png"), "cat")


def test_an_unknown_encoding_of_xml_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "export.xml"
    file.write_text('<?xml version="1.0" encoding="x-none"?><annotations/>')
    with pytest.raises(DataError, match="unknown encoding"):
        CvatImages(str(file))


def test_a_name_that_is_too_long_is_one_row(tmp_path: Path) -> None:
    file = tmp_path / "export.xml"
    names = ("a" * 5000, "b.png")
    images = "".join(f'<image name="{name}"><tag label="cat"/></image>' for name in names)
    file.write_text(f"<annotations>{images}</annotations>")
    assert len(list(CvatImages(str(file)).rows(["image", "label"]))) == 2
    file = tmp_path / "export.json"
    file.write_text(json.dumps([{"data": {"image": f"/data/upload/1/{names[0]}"}}, {"data": {"image": "b.png"}}]))
    assert len(list(LabelStudio(str(file)).rows(["image"]))) == 2


def shard(file: Path, text: bytes = b"cat", samples: int = 4) -> bytes:
    with tarfile.open(file, "w") as archive:
        for i in range(samples):
            for ending, content in (("png", b"\x89PNG" * 300), ("cls", text)):
                member = tarfile.TarInfo(f"{i}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return file.read_bytes()


def test_a_very_long_number_is_a_valid_label(tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", b"9" * 6000)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert [cells for _, cells in Shards(str(tmp_path / "a.tar")).rows(["cls"])] == [("9" * 6000,)] * 4


@pytest.mark.parametrize("damage", ["cut", "noise"])
def test_a_shard_that_is_damaged_after_its_first_files_is_refused(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "a.tar"
    content = bytearray(shard(file))
    start = 2 * (512 + 1536) + 2 * 1024  # the header of the third sample
    assert bytes(content[start : start + 5]) == b"2.png"
    if damage == "cut":
        del content[start + 100 :]
    else:
        content[start : start + 512] = b"x" * 512
    file.write_bytes(content)
    with pytest.raises(DataError, match="damaged after"):
        list(Shards(str(file)).rows(["image"]))


def test_numbers_beyond_the_named_classes_are_faults_of_their_rows(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    names = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    table = pa.table({"image": [{"bytes": b"x", "path": None}] * 4, "label": [0, 7, 1, -1]})
    table = table.replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": names}}).encode()})
    parquet.write_table(table, tmp_path / "a.parquet")
    labels = [cells for _, cells in open_datasets(str(tmp_path / "a.parquet")).rows(["label"])]
    assert [cells for cells in labels if not isinstance(cells, Broken)] == [("cat",), ("dog",), (None,)]
    assert isinstance(labels[1], Broken)
    assert labels[1].problem == "the class number 7, but the file names 2 classes"
    deep = table.replace_schema_metadata({b"huggingface": b"[" * 50_000})
    parquet.write_table(deep, tmp_path / "b.parquet")
    assert "label" in open_datasets(str(tmp_path / "b.parquet")).columns


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def global_header(key: str) -> bytes:
    record = f"{len(key) + 7:03d} {key}=x\n".encode()
    return header("pax", len(record), tarfile.XGLTYPE) + record + bytes(-len(record) % 512)


BOMB = 64 * 2**20
SIZE, TEXTS, FOLDER = "announces 67,108,864 bytes", "bytes of texts in the sample", header("d/", 0, tarfile.DIRTYPE)
BOMBS = {
    "long name": (header("././@LongLink", BOMB, tarfile.GNUTYPE_LONGNAME), SIZE),
    "attributes": (header("pax", BOMB, tarfile.XHDTYPE), SIZE),
    "attributes of all": (header("pax", BOMB, tarfile.XGLTYPE), SIZE),
    "many attributes": (b"".join(global_header(f"{i:06d}") + FOLDER for i in range(1500)), "global headers"),
    "headers of headers": (header("././@LongLink", 0, tarfile.GNUTYPE_LONGNAME) * 3000, "too many headers"),
    "texts of a sample": (b"".join(header(f"1.{i}.txt", 0) for i in range(20_000)), TEXTS),
    "large texts": (b"".join(header(f"1.{i}.txt", 2**20) + b"x" * 2**20 for i in range(20)), TEXTS),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_shard_cannot_exhaust_the_memory(tmp_path: Path, bomb: str) -> None:
    content, message = BOMBS[bomb]
    with gzip.open(tmp_path / "a.tar.gz", "wb", 1) as file:
        file.write(content)
        for _ in range(64):
            file.write(bytes(2**20))
    tracemalloc.start()
    with pytest.raises(DataError, match=message):
        list(Shards(str(tmp_path / "a.tar.gz")).rows(["image"]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < BOMB // 2


def test_members_of_archives_are_not_accumulated_in_memory(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(header("a.png", 0) * 5000 + bytes(1024))
    tracemalloc.start()
    assert sum(1 for _ in members(tmp_path / "a.tar")) == 5000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.skipif(os.name == "nt", reason="no such files there")
@pytest.mark.parametrize("kind", ["pipe", "device", "large"])
@pytest.mark.parametrize("name", ["state.json", "a.arrow", "a.parquet"])
def test_files_of_a_dataset_are_regular_and_of_limited_size(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    listed = "a.parquet" if name == "a.parquet" else "a.arrow"
    (tmp_path / "train" / "state.json").write_text(json.dumps({"_data_files": [{"filename": listed}]}))
    path = tmp_path / "train" / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(2**31)
    with pytest.raises(DataError, match="cannot be read"):
        open_datasets(str(tmp_path))


def test_a_cell_that_is_not_a_path_is_a_fault_of_its_row(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"image": [{"bytes": 1, "path": 2}]}), tmp_path / "a.parquet")
    assert list(open_datasets(str(tmp_path / "a.parquet")).rows(["image"])) == [(1, (2,))]


def test_a_value_in_every_row_does_not_exhaust_the_memory(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 4096, pa.int32()), pa.array(["x" * 2**19]))
    parquet.write_table(pa.table({"image": long}), tmp_path / "a.parquet")
    with parquet_files.open_parquet(tmp_path / "a.parquet") as file:
        sizes = [batch.num_rows for batch in parquet_files.batches_of(file, ["image"], 4096)]
    assert sum(sizes) == 4096
    assert max(sizes) * 2**19 <= parquet_files.BATCH_BYTES
    parquet.write_table(pa.table({"image": ["a", "b"] * 4096}), tmp_path / "b.parquet")
    with parquet_files.open_parquet(tmp_path / "b.parquet") as file:
        assert [batch.num_rows for batch in parquet_files.batches_of(file, ["image"], 4096)] == [4096, 4096]
