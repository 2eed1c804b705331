"""Frames whose cells are not texts: refused where the table is read, never turned into names of classes."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vl2v
from vl2v.data.tables.frame import plain, write_frame
from vl2v.errors import ConfigError
from vl2v.locations import StoragePaths


class Columns:
    """The interface of a frame that vl2v uses. Like pandas, it allows numbers as column names."""

    def __init__(self, columns: dict[Any, list[Any]]) -> None:
        self._columns = columns
        self.columns = list(columns)

    def __getitem__(self, column: Any) -> list[Any]:
        return self._columns[column]


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{number}.png" for number in range(8)]
    for number, path in enumerate(paths):
        Image.new("RGB", (8, 8), (30 * number, 0, 90)).save(path)
    return [str(path) for path in paths]


def quote(tmp_path: Path, frame: object, settings: Any = None) -> Any:
    storage = StoragePaths(tmp_path / "cache", tmp_path / "store.sqlite")
    return vl2v.quote(frame, "offline:", storage=storage, settings=settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (b"cat", "an image's bytes in the column label"),
        ({"name": "cat"}, "an image's bytes in the column label"),
        (["cat"], "a list in the column label"),
        (("cat", "dog"), "a list in the column label"),
        (np.array([1, 2]), "a list in the column label"),
    ],
)
def test_a_container_is_not_the_name_of_a_class(tmp_path: Path, photos: list[str], label: object, message: str) -> None:
    frame = Columns({"image": photos, "label": ["dog"] * 4 + [label] * 4})
    with pytest.raises(vl2v.Vl2vError, match="write its label as a text") as error:
        quote(tmp_path, frame)
    assert message in str(error.value)


@pytest.mark.parametrize("image", [b"\x89PNG", np.zeros((4, 4, 3), np.uint8), Image.new("RGB", (4, 4)), {"path": "x"}])
def test_an_image_is_not_the_path_of_an_image(tmp_path: Path, photos: list[str], image: object) -> None:
    frame = Columns({"image": [image, *photos[1:]], "label": ["cat", "dog"] * 4})
    with pytest.raises(vl2v.Vl2vError, match="write the path of its file as a text") as error:
        quote(tmp_path, frame)
    assert "line 1" in str(error.value)


def test_paths_and_numbers_are_read_as_texts(tmp_path: Path) -> None:
    frame = Columns({"image": [Path("a.png")], "label": [np.int64(3)], "domain": [float("nan")]})
    row = json.loads(write_frame(frame, tmp_path, {}).read_text())
    assert (Path(row["image"]).name, row["label"], row["domain"]) == ("a.png", "3", None)
    assert plain(None) is None


@pytest.mark.parametrize(
    "missing",
    [Decimal("sNaN"), Decimal("NaN"), np.datetime64("NaT"), np.timedelta64("NaT"), complex("nan"), np.float32("nan")],
    ids=repr,
)
@pytest.mark.parametrize("role", ["image", "label", "domain"])
def test_nan_is_a_missing_cell(tmp_path: Path, photos: list[str], role: str, missing: object) -> None:
    columns = {"image": photos, "label": ["cat", "dog"] * 4, "domain": ["a"] * 8}
    frame = Columns(columns | {role: [missing, *columns[role][1:]]})
    with pytest.raises(vl2v.Vl2vError, match=f"no {role} in the column {role}"):
        quote(tmp_path, frame)


def test_numbers_are_accepted_as_column_names(tmp_path: Path) -> None:
    frame = Columns({0: ["a.png"], 1: ["cat"]})
    row = json.loads(write_frame(frame, tmp_path, {"image": 0, "label": "1"}).read_text())
    assert row["1"] == "cat"


@pytest.mark.parametrize("settings", [[1], "x", {"data": 5}, {"teacher": ["a"]}])
def test_settings_that_are_not_mappings_are_refused(tmp_path: Path, photos: list[str], settings: object) -> None:
    frame = Columns({"image": photos, "label": ["cat", "dog"] * 4})
    with pytest.raises(ConfigError, match="not a mapping"):
        quote(tmp_path, frame, settings)
