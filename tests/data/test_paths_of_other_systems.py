"""Paths written by Windows, macOS and browsers are resolved in tables, frames and exports."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import put
from test_sources import imported, scan

from vl2v.data.listing import SHOWN, FaultyDataError
from vl2v.data.scan import Fault
from vl2v.data.tables.frame import write_frame
from vl2v.sources.importing import PathTable, import_records

FOLDER = "Fotos März"


def names(to: Path) -> list[str]:
    """Write eight images; names are composed Unicode in one folder and decomposed in the other."""
    paths = []
    for i in range(8):
        folder = FOLDER if i % 2 else unicodedata.normalize("NFD", FOLDER)
        name = f"Bild {i} größe.png" if i % 2 else unicodedata.normalize("NFD", f"Bild {i} größe.png")
        put(to / folder / name, i)
        paths.append(f"{folder}/{name}")
    return paths


SPELLINGS: dict[str, Callable[[str, Path], str]] = {
    "windows": lambda path, _: path.replace("/", "\\"),
    "windows with a dot": lambda path, _: ".\\" + path.replace("/", "\\"),
    "blanks": lambda path, _: f"  {path} ",
    "composed": lambda path, _: unicodedata.normalize("NFC", path),
    "decomposed": lambda path, _: unicodedata.normalize("NFD", path),
    "windows, composed": lambda path, _: unicodedata.normalize("NFC", path).replace("/", "\\"),
    "absolute": lambda path, root: f"{root}/{path}",
    "file address": lambda path, root: Path(root, path).as_uri(),
    "file address without escapes": lambda path, root: f"file://localhost{root}/{path}",
}


def write_rows(table: Path, rows: list[dict[str, str]], delimiter: str = ",", encoding: str = "utf-8") -> None:
    with table.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("kind", ["csv", "frame", "json", "addresses", "cvat"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_images_are_found(tmp_path: Path, spelling: str, kind: str) -> None:
    paths = [SPELLINGS[spelling](path, tmp_path) for path in names(tmp_path)]
    rows = [{"path": path, "label": "dog" if i < 4 else "cat"} for i, path in enumerate(paths)]
    if kind == "csv":
        table = tmp_path / "t.csv"
        write_rows(table, rows, delimiter=";", encoding="utf-8-sig")
    elif kind == "frame":
        frame = pytest.importorskip("pandas").DataFrame(rows)
        table = write_frame(frame if "file" in spelling else frame.assign(path=_above(tmp_path, paths)), tmp_path, {})
    elif kind == "json":
        (tmp_path / "t.json").write_text(json.dumps(rows))
        table = imported(str(tmp_path / "t.json"), tmp_path, label="label")
    elif kind == "addresses":
        write_rows(tmp_path / "t.csv", rows)
        table = import_records(PathTable(tmp_path / "t.csv"), "t.csv", tmp_path / "tables", {})
    else:
        images = "".join(f'<image name="{row["path"]}"><tag label="{row["label"]}"/></image>' for row in rows)
        (tmp_path / "t.xml").write_text(f"<annotations>{images}</annotations>", encoding="utf-8")
        table = imported(str(tmp_path / "t.xml"), tmp_path)
    dataset = scan(table)
    assert len(dataset) == 8
    assert np.bincount(dataset.labels).tolist() == [4, 4]


def _above(root: Path, paths: list[str]) -> list[str]:
    """Make the paths absolute, because those of a frame are relative to the current folder."""
    return [path if path.strip().startswith("/") else f"{root}/{path.strip()}" for path in paths]


def test_a_missing_file_is_reported_as_written_in_the_table(tmp_path: Path) -> None:
    names(tmp_path)
    rows = [f"{FOLDER}\\Bild {i} größe.png;{'dog' if i < 5 else 'cat'}" for i in (1, 3, 5, 7)]
    rows.insert(2, "C:\\Fotos\\Bild 9.png;cat")
    (tmp_path / "t.csv").write_text("\n".join(["path;label", *rows]), encoding="utf-8")
    with pytest.raises(FaultyDataError, match=r"row 4: C:\\Fotos\\Bild 9.png: cannot be read"):
        scan(tmp_path / "t.csv")


def test_faults_are_in_the_order_of_rows_and_every_kind_is_shown(tmp_path: Path) -> None:
    for i in range(4):
        put(tmp_path / f"{i}.png", i)
    (tmp_path / "broken.png").write_bytes(b"no image")
    gone = [f"{i:02d}.png,dog" for i in reversed(range(10, 50))]
    good = [f"{i}.png,{'dog' if i < 2 else 'cat'}" for i in range(4)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *gone, *good, "broken.png,cat", ""]))
    with pytest.raises(FaultyDataError) as caught:
        scan(tmp_path / "t.csv")
    lines = str(caught.value).splitlines()
    assert lines[1].startswith("  row 2: 49.png")
    assert lines[3].startswith("  row 3: 48.png")
    assert "row 46: broken.png" in str(caught.value)
    assert lines[-1] == "  ... and 11 more"
    same = FaultyDataError(tmp_path, [Fault(f"row {i}", "bad", "replace it") for i in range(SHOWN)])
    assert str(same).count("row ") == SHOWN
