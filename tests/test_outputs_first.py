"""Outputs that cannot be written are refused before anything is bought, and named as stated by the user."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest
from tiny_dataset import Bench

from vl2v.api_report import make_report
from vl2v.commands.export import export
from vl2v.commands.label import label
from vl2v.errors import AccessError
from vl2v.locations import StoragePaths
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.writing import atomic_write, ensure_writable

CLASSES = "bar,blank,zebra stripe"
DATA = {"data": {"layout_as_found": True}}


def test_an_error_names_the_file_instead_of_its_temporary_part(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing, atomic_write(tmp_path / "no" / "a.csv") as fresh:
        fresh.write_text("x")
    assert missing.value.filename == str(tmp_path / "no" / "a.csv")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as folder, atomic_write(tmp_path / "folder") as fresh:
        fresh.write_text("x")
    assert folder.value.filename == str(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_file_can_be_written_or_not(tmp_path: Path) -> None:
    ensure_writable(tmp_path / "new" / "deep" / "a.csv")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "a.csv", Path("/proc/none/a.csv")):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - of several kinds
            ensure_writable(path)
        assert caught.value.filename == str(path)


@pytest.mark.skipif(os.name == "nt", reason="paths of Linux")
def test_labels_are_not_bought_for_a_table_that_cannot_be_written(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    storage = StoragePaths(tmp_path / "cache", tmp_path / "vectors.sqlite")
    with pytest.raises(AccessError, match=r"labels\.csv cannot be used"):
        label(bench.data, bench.teacher, CLASSES, tmp_path / "file" / "labels.csv", storage=storage, settings=DATA)
    with closing(EmbeddingStore(storage.store)) as store:
        assert not store.entries()
    labels = label(bench.data, bench.teacher, CLASSES, tmp_path / "new" / "l.csv", storage=storage, settings=DATA)
    assert labels.written == 90
    assert (tmp_path / "new" / "l.csv").is_file()


@pytest.mark.skipif(os.name == "nt", reason="paths of Linux")
def test_the_folder_of_an_export_or_a_report_is_checked_before_the_run_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for write in (
        lambda out: export(tmp_path / "no run", out=out),
        lambda out: make_report(tmp_path / "no run", tmp_path / "vectors.sqlite", out=out),
    ):
        with pytest.raises(NotADirectoryError):
            write(tmp_path / "file" / "out")
