"""Exports written by third-party software have the images in `exports/photos`; `exports/write.py` writes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_sources import content, faults, imported, scan

from vl2v.config import DataConfig
from vl2v.data.folder import DomainFolder
from vl2v.data.images import ImageDataset
from vl2v.errors import ConfigError, DataError
from vl2v.planning.prepare import list_folder
from vl2v.sources.label_studio_files import Uploads

EXPORTS = Path(__file__).parent / "exports"
PHOTOS = EXPORTS / "photos"
STUDIO = EXPORTS / "label-studio"
CAMERA = {"domain": "camera"}
LABELLED = {"label": "animal", "domain": "camera"}
KINDS: dict[str, dict[str, Any]] = {
    "label-studio/clean.json": CAMERA,
    "label-studio/clean-min.json": LABELLED,
    "label-studio/clean.csv": LABELLED,
    "label-studio/clean.tsv": LABELLED,
    "datumaro/cvat/default.xml": CAMERA,
    "datumaro/cvat": CAMERA,
    "datumaro/cvat-subsets": {"domain": "subset"},
    "datasets/saved": CAMERA,
    "datasets/saved/data-00000-of-00001.arrow": CAMERA,
    "datasets/split": CAMERA | {"split": "none"},
    "datasets/made.parquet": CAMERA,
    "webdataset/part-{000000..000001}.tar": LABELLED,
    "webdataset": LABELLED,
}
DISTURBED = {
    "json": {
        "rows 3, 8": "several choices: cat, wild dog",
        "row 4": "no annotation",
        "row 5": "skipped by the annotator",
        "row 7": "no annotation, but a prediction",
    },
    "-min.json": {"rows 4, 9": "several choices: cat, wild dog", "rows 6, 8": "no annotation"},
    ".csv": {"rows 5, 10": "several choices: cat, wild dog", "rows 7, 9": "no annotation"},
    ".tsv": {"rows 5, 10": "several choices: cat, wild dog", "rows 7, 9": "no annotation"},
}


def usable(table: Path) -> ImageDataset:
    """Return the images that remain with --skip-bad."""
    return list_folder(DataConfig(root=table)).scan(skip_bad=True)


def test_the_software_and_its_versions_are_recorded() -> None:
    versions = json.loads((EXPORTS / "versions.json").read_text())
    assert set(versions) == {kind.partition("/")[0] for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_the_export_has_the_photos(tmp_path: Path, kind: str) -> None:
    settings = KINDS[kind]
    table = imported(str(EXPORTS / kind), tmp_path, **settings)
    assert content(scan(table)) == content(DomainFolder(PHOTOS).scan())


def test_class_numbers_alone_are_refused(tmp_path: Path) -> None:
    table = imported(str(EXPORTS / "webdataset"), tmp_path, **CAMERA)
    assert faults(table) == {"column cls": "numbers instead of class names, such as 0, 1"}


def test_an_imagenet_export_is_a_folder_of_classes() -> None:
    dataset = DomainFolder(EXPORTS / "datumaro" / "imagenet").scan()
    assert (dataset.folders, dataset.domains, len(dataset)) == (("cat", "wild dog"), ("imagenet",), 12)


@pytest.mark.parametrize("ending", DISTURBED)
def test_incomplete_annotations_are_reported_and_skipped_in_every_format(tmp_path: Path, ending: str) -> None:
    data = str(STUDIO / f"disturbed{ending if '.' in ending else '.json'}")
    table = imported(data, tmp_path, **LABELLED)
    assert faults(table) == DISTURBED[ending]
    dataset = usable(table)
    assert len(dataset) == 7
    assert sum(fault.count for fault in dataset.skipped) == (5 if ending == "json" else 4), "JSON alone lists all tasks"


def test_the_only_control_is_the_label_even_if_the_first_tasks_have_none(tmp_path: Path) -> None:
    tasks = sorted(json.loads((STUDIO / "disturbed.json").read_text()), key=lambda task: len(task["annotations"]))
    empty = [tasks[0] | {"data": tasks[0]["data"] | {"image": f"{i}.png"}} for i in range(150)]
    (tmp_path / "late.json").write_text(json.dumps([*empty, *tasks]))
    shutil.copytree(STUDIO / "upload", tmp_path / "upload")
    assert usable(imported(str(tmp_path / "late.json"), tmp_path, **CAMERA)).folders == ("cat", "wild dog")
    (tmp_path / "none.json").write_text(json.dumps(empty))
    with pytest.raises(DataError, match="no annotation"):
        imported(str(tmp_path / "none.json"), tmp_path)


def test_json_min_without_a_label_column_is_refused_with_its_columns(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are: image, camera, id, animal"):
        imported(str(STUDIO / "clean-min.json"), tmp_path)


def test_images_are_found_by_their_original_names(tmp_path: Path) -> None:
    """Label Studio replaces blanks and removes other characters in the names of uploaded files."""
    shutil.copy(STUDIO / "clean.json", tmp_path)
    for file in (STUDIO / "upload").rglob("*.png"):
        shutil.copy(file, tmp_path / file.name.partition("-")[2].replace("_", " ", 1).replace(".png", "().png"))
    (tmp_path / "clean.json").write_text((STUDIO / "clean.json").read_text())
    assert len(scan(imported(str(tmp_path / "clean.json"), tmp_path, **CAMERA))) == 12
    names = {Path(str(Uploads(tmp_path).local(f"/data/upload/3/{i:08x}-art_cat_{i}.png"))).name for i in range(3)}
    assert names == {"art cat_0().png", "art cat_1().png", "art cat_2().png"}


def test_images_are_found_in_the_data_of_label_studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(STUDIO / "upload", tmp_path / "data" / "media" / "upload")
    (tmp_path / "export").mkdir()
    for name in ("clean.json", "clean-min.json"):
        shutil.copy(STUDIO / name, tmp_path / "export")
    table = imported(str(tmp_path / "export" / "clean.json"), tmp_path, **CAMERA)
    problem = faults(table)
    assert list(problem) == ["column image"]
    assert "none of the 12 files exists" in problem["column image"]
    monkeypatch.setenv("LABEL_STUDIO_BASE_DATA_DIR", str(tmp_path / "data"))
    assert len(scan(imported(str(tmp_path / "export" / "clean-min.json"), tmp_path, **LABELLED))) == 12
