"""Lists of images to drop (`--drop`) and updated lists of suspects: odd files, and preserved decisions."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from vl2v.commands.suspects import COLUMNS, _decisions, _write_csv
from vl2v.data.drop import read_dropped, without_dropped
from vl2v.data.images import ImageDataset
from vl2v.errors import ConfigError
from vl2v.progress import Silent
from vl2v.reports.suspects import LABEL, UNLIKE, Suspect


def dataset(tmp_path: Path) -> ImageDataset:
    """A dataset of two domains with two classes of two images."""
    paths = [f"{d}/{c}/{i}.png" for d in ("day", "night") for c in ("cat", "dog") for i in range(2)]
    rows = np.arange(8)
    digests = np.arange(8 * 32, dtype=np.uint8).reshape(8, 32)
    return ImageDataset(
        tmp_path, paths, digests, rows // 2 % 2, rows // 4, ("day", "night"), ("cat", "dog"), ("cat", "dog")
    )


def test_a_class_does_not_silently_lose_its_last_image(tmp_path: Path) -> None:
    file = tmp_path / "drop.csv"
    file.write_text("path\nday/dog/0.png\nday/dog/1.png\nnight/cat/0.png\n")
    with pytest.raises(ConfigError, match="every image of a class") as caught:
        without_dropped(dataset(tmp_path), file, Silent())
    assert caught.value.found == "none of day/dog"
    assert len(without_dropped(dataset(tmp_path), file, Silent(), allow_missing_classes=True)) == 5
    file.write_text("path\nday/dog/0.png\nnight/cat/0.png\n")
    assert len(without_dropped(dataset(tmp_path), file, Silent())) == 6


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"a,b\n", "path\na.png\n".encode("utf-16")])
def test_a_file_without_the_column_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "drop.csv"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="a column path"):
        read_dropped(file)


def test_a_header_alone_drops_nothing(tmp_path: Path) -> None:
    file = tmp_path / "drop.csv"
    file.write_text("path,drop\n")
    assert read_dropped(file) == set()


@pytest.mark.skipif(os.name == "nt", reason="a named pipe")
def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="not a regular file"):
        read_dropped(tmp_path / "pipe")


def suspect(path: str, reason: str = LABEL) -> Suspect:
    return Suspect(path, "day", "cat", reason, "dog", 0.1, 0.2, 0.3)


def test_decisions_of_an_earlier_list_are_preserved(tmp_path: Path) -> None:
    out = tmp_path / "new" / "suspects.csv"
    assert _decisions(out) == {}
    assert not out.parent.exists()
    _write_csv((suspect("a.png"), suspect("b.png"), suspect("c.png", UNLIKE)), out, {})
    text = out.read_text()
    assert [row["drop"] for row in csv.DictReader(text.splitlines())] == ["yes", "yes", "no"]
    lines = text.splitlines()
    lines[1] = lines[1].removesuffix("yes") + "No"
    lines[2] = lines[2].removesuffix("yes") + "?"
    lines[3] = lines[3].removesuffix("no") + "yes"
    out.write_text("\n".join(lines) + "\n")
    _write_csv((suspect("c.png", UNLIKE), suspect("b.png"), suspect("a.png"), suspect("d.png")), out, _decisions(out))
    decisions = {row["path"]: row["drop"] for row in csv.DictReader(out.read_text().splitlines())}
    assert decisions == {"a.png": "no", "b.png": "yes", "c.png": "yes", "d.png": "yes"}


@pytest.mark.parametrize("content", [b"image,label\na.png,cat\n", b"", b"\x00\xff\x89PNG"])
def test_another_file_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    out = tmp_path / "photos.csv"
    out.write_bytes(content)
    with pytest.raises(ConfigError, match="is not replaced"):
        _decisions(out)
    assert out.read_bytes() == content


@pytest.mark.parametrize("name", ["list.html", "LIST.HTM"])
def test_the_page_does_not_replace_the_list(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="page for review would replace it"):
        _decisions(tmp_path / name)


def test_a_folder_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as caught:
        _decisions(tmp_path)
    assert caught.value.filename == str(tmp_path)
    assert len(COLUMNS) == 10
