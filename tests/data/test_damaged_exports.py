"""Exports and shards that are damaged or hostile: an error or a fault for the row, and no image lost without a word."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from vl2v.data.tables.base import Broken
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


def test_a_number_without_end_is_a_label_like_any_other(tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", b"9" * 6000)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert [cells for _, cells in Shards(str(tmp_path / "a.tar")).rows(["cls"])] == [("9" * 6000,)] * 4


@pytest.mark.parametrize("damage", ["cut", "noise"])
def test_a_shard_that_is_damaged_behind_its_first_files_is_refused(tmp_path: Path, damage: str) -> None:
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
    found = [cells for _, cells in open_datasets(str(tmp_path / "a.parquet")).rows(["label"])]
    assert [cells for cells in found if not isinstance(cells, Broken)] == [("cat",), ("dog",), (None,)]
    assert isinstance(found[1], Broken)
    assert found[1].problem == "the class number 7, but the file names 2 classes"
    deep = table.replace_schema_metadata({b"huggingface": b"[" * 50_000})
    parquet.write_table(deep, tmp_path / "b.parquet")
    assert "label" in open_datasets(str(tmp_path / "b.parquet")).columns
