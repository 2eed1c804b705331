"""A folder that is an unpacked export of a labelling tool is never silently read as a folder of classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pictures import put
from test_sources import content, imported, scan

from vl2v.data.folder import DomainFolder
from vl2v.data.listing import FaultyDataError
from vl2v.errors import DataError
from vl2v.sources.registry import find_source

CLASSES = ("cat", "dog")


def pictures(root: Path, folder: str = "images") -> list[str]:
    """Write images into a folder per camera, named like classes. Cats have even numbers."""
    names = [f"{camera}/{i}.png" for camera in ("phone", "scanner") for i in range(4)]
    for seed, name in enumerate(names):
        put(root / folder / name, seed)
    return names


def cvat(names: list[str], attribute: str = "") -> str:
    rows = "".join(
        f'<image id="{i}" name="{name}"{attribute}><tag label="{CLASSES[int(Path(name).stem) % 2]}"/></image>'
        for i, name in enumerate(names)
    )
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{rows}</annotations>'


def studio(names: list[str]) -> str:
    def task(name: str) -> dict[str, object]:
        choice = {"from_name": "choice", "type": "choices", "value": {"choices": [CLASSES[int(Path(name).stem) % 2]]}}
        return {"data": {"image": f"images/{name}"}, "annotations": [{"result": [choice]}]}

    return json.dumps([task(name) for name in names])


@pytest.mark.parametrize("tool", ["cvat", "label studio"])
def test_an_unpacked_export_is_read_like_its_file(tmp_path: Path, tool: str) -> None:
    root = tmp_path / "export"
    names = pictures(root)
    file = root / ("annotations.xml" if tool == "cvat" else "project-1.json")
    file.write_text(cvat(names) if tool == "cvat" else studio(names))
    (root / "README.txt").write_text("notes")
    expected = scan(imported(str(file), tmp_path))
    dataset = scan(imported(str(root), tmp_path))
    assert dataset.folders == CLASSES
    assert sorted(dataset.digests.tolist()) == sorted(expected.digests.tolist())


def test_each_file_of_cvat_is_a_subset(tmp_path: Path) -> None:
    root = tmp_path / "export"
    names = pictures(root)
    (root / "phone.xml").write_text(cvat(names[:4]))
    (root / "scanner.xml").write_text(cvat(names[4:]))
    dataset = scan(imported(str(root), tmp_path, domain="subset"), domain="subset")
    assert (dataset.domains, dataset.folders, len(dataset)) == (("phone", "scanner"), CLASSES, 8)
    (root / "scanner.xml").write_text(cvat(names[4:], ' subset="flatbed"'))
    assert scan(imported(str(root), tmp_path, domain="subset"), domain="subset").domains == ("flatbed", "phone")


def test_several_exports_of_label_studio_are_refused(tmp_path: Path) -> None:
    names = pictures(tmp_path)
    for name in ("project-1.json", "project-1-min.json"):
        (tmp_path / name).write_text(studio(names))
    with pytest.raises(DataError, match=r"(?s)several exports.*project-1-min\.json, project-1\.json.*pass one"):
        imported(str(tmp_path), tmp_path)


def test_a_folder_of_classes_with_an_export_in_it_is_a_folder_of_classes(tmp_path: Path) -> None:
    for i in range(8):
        put(tmp_path / ("cat", "dog")[i % 2] / f"{i}.png", i)
    before = content(DomainFolder(tmp_path).scan())
    (tmp_path / "annotations.xml").write_text(cvat(["cat/0.png"]))
    (tmp_path / "labels.csv").write_text("path,label\ncat/0.png,cat\n")
    assert find_source(str(tmp_path)) is None
    assert content(DomainFolder(tmp_path).scan()) == before


@pytest.mark.parametrize("labels", ["labels.csv", "labels.pq", "annotations/default.json", "train.txt", "voc.xml"])
@pytest.mark.parametrize("layout", ["images/phone", "JPEGImages"])
def test_a_folder_of_images_next_to_labels_is_doubted(tmp_path: Path, labels: str, layout: str) -> None:
    for i in range(8):
        put(tmp_path / layout / f"{i}.png", i)
        put(tmp_path / layout.replace("phone", "scanner") / f"{i}.png", 8 + i)
    (tmp_path / labels).parent.mkdir(exist_ok=True)
    (tmp_path / labels).write_text("{}")
    with pytest.raises(FaultyDataError, match=rf"next to {labels.partition('/')[0]}.*\n.*pass the file of labels"):
        scan(tmp_path)
    if layout == "images/phone":
        dataset = scan(tmp_path, layout_as_found=True)
        assert (dataset.folders, dataset.domains) == (("phone", "scanner"), ("images",))
        assert "may contain the labels" in dataset.warnings[0]
    (tmp_path / labels).unlink()
    shutil.rmtree(tmp_path / "annotations", ignore_errors=True)
    (tmp_path / "README.txt").write_text("notes")
    if layout == "images/phone":
        assert scan(tmp_path).folders == ("phone", "scanner")


def test_files_instead_of_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "export.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="unpack it"):
        scan(tmp_path / "export.zip")
    (tmp_path / "coco.json").write_text('{"info": {}, "images": [], "categories": []}')
    with pytest.raises(DataError, match=r"(?s)the keys info, images, categories.*\.jsonl"):
        imported(str(tmp_path / "coco.json"), tmp_path)
