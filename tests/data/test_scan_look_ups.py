"""A scan looks up many files at once and reads the changed ones. The order of faults does not change."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vl2v.data.pixels import PixelCache
from vl2v.data.scan import CHUNK, FileIndex, read_all
from vl2v.progress import Silent
from vl2v.sqlite import NamedConnection, open_file, rows_of
from vl2v.teacher.base import TeacherCard
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v_runtime.regular import BLOCK, read_regular

COUNT = 2 * CHUNK + 7


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    for i in range(COUNT):
        Image.new("RGB", (16, 16), (i % 256, i // 256, 7)).save(tmp_path / f"{i:04}.png")
    return [f"{i:04}.png" for i in range(COUNT)]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    queries: list[str] = []
    real = NamedConnection.execute

    def execute(self: NamedConnection, *args: Any) -> Any:
        queries.append(args[0])
        return real(self, *args)

    monkeypatch.setattr(NamedConnection, "execute", execute)
    return queries


def test_a_scan_queries_its_databases_once_per_chunk(
    tmp_path: Path, images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(FileIndex(tmp_path / "c" / "files.sqlite")) as index, closing(PixelCache(tmp_path / "c", 16)) as cache:
        first, faults = read_all(tmp_path, images, index=index, cache=cache)
        (tmp_path / images[CHUNK]).write_bytes(b"broken")
        os.utime(tmp_path / images[3], (1, 1))
        queries = counted(monkeypatch)
        second, later = read_all(tmp_path, images, index=index, cache=cache)
        slots = cache.slots(second)
    assert (faults, [fault.where for fault in later]) == ([], [images[CHUNK]])
    same = np.arange(COUNT) != CHUNK
    assert (first[same] == second[same]).all()
    assert not second[CHUNK].any()
    assert slots[CHUNK] == -1
    assert sorted(slots[same]) == sorted(set(range(COUNT)) - {CHUNK})
    assert len(queries) < 60  # four per chunk and some to open and close, instead of one for each of the 519 files


def test_files_without_pixels_are_read_by_path_and_faults_have_the_order_of_the_list(
    tmp_path: Path, images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = [images[i] for i in (COUNT - 1, 5, CHUNK)]
    for name in bad:
        (tmp_path / name).write_bytes(b"broken")
    listed = [*bad[:1], *images[:3], *bad[1:2], *reversed(images[6:CHUNK]), *bad[2:]]
    looked_up: list[str] = []
    find_all = FileIndex.find_all

    def recording(index: FileIndex, paths: Sequence[str]) -> Any:
        looked_up.extend(paths)
        return find_all(index, paths)

    monkeypatch.setattr(FileIndex, "find_all", recording)
    with closing(FileIndex(tmp_path / "c" / "files.sqlite")) as index:
        digests, faults = read_all(tmp_path, listed, index=index)
    assert [fault.where for fault in faults] == bad
    contents = [b"" if name in bad else (tmp_path / name).read_bytes() for name in listed]
    expected = [hashlib.sha256(content).digest() if content else bytes(32) for content in contents]
    assert [digest.tobytes() for digest in digests] == expected
    assert looked_up == sorted(str(tmp_path / name) for name in listed)


def test_files_read_by_an_interrupted_scan_are_recorded(tmp_path: Path, images: list[str]) -> None:
    class Interrupting(Silent):
        @contextmanager
        def stage(self, title: str, total: int, done: int = 0) -> Iterator[Any]:
            yield self.stop

        def stop(self, steps: int) -> None:
            raise KeyboardInterrupt

    path = tmp_path / "c" / "files.sqlite"
    with (
        closing(FileIndex(path)) as index,
        closing(PixelCache(tmp_path / "c", 16)) as cache,
        pytest.raises(KeyboardInterrupt),
    ):
        read_all(tmp_path, images, index=index, cache=cache, progress=Interrupting())
    with closing(FileIndex(path)) as index:
        read = [str(tmp_path / images[i]) for i in (0, CHUNK - 1, CHUNK)]
        assert set(index.find_all(read)) == set(read[:2])


def test_a_long_scan_is_recorded_periodically(
    tmp_path: Path, images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds, commits in ((0.0, 3), (1000.0, 1)):
        monkeypatch.setattr("vl2v.data.scan.SAVING", seconds)
        with (
            closing(FileIndex(tmp_path / f"{seconds}.sqlite")) as index,
            closing(PixelCache(tmp_path / f"{seconds}", 16)) as cache,
            monkeypatch.context() as patch,
        ):
            read_all(tmp_path, images, cache=cache)
            queries = counted(patch)
            read_all(tmp_path, images, index=index, cache=cache)
        assert queries.count("COMMIT") == commits


def test_the_store_looks_up_many_images_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = np.random.default_rng(0).integers(0, 256, (1003, 32), dtype=np.uint8)
    card = TeacherCard("t", "1", 2, 100.0)
    with closing(EmbeddingStore(tmp_path / "store.sqlite")) as store:
        store.keep_images(card, digests[::2], np.ones((len(digests[::2]), 2), np.float32))
        queries = counted(monkeypatch)
        known = store.knows_images(card, digests[[*range(len(digests)), 0]])
        assert not store.knows_images(card, digests, view=1).any()
    assert known.tolist() == [i % 2 == 0 for i in range(len(digests))] + [True]
    assert len(queries) < 20


def test_looking_up_no_values_returns_no_rows(tmp_path: Path) -> None:
    with closing(open_file(tmp_path / "x.sqlite")) as db:
        db.execute("CREATE TABLE t (k, v)")
        db.execute("INSERT INTO t VALUES (1, 2)")
        assert list(rows_of(db, "SELECT v FROM t WHERE k IN", [])) == []
        assert list(rows_of(db, "SELECT v FROM t WHERE v = ? AND k IN", [1, 5], 2)) == [(2,)]


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_a_file_of_any_size_is_read_completely(tmp_path: Path, size: int) -> None:
    path, data = tmp_path / "x", os.urandom(size)
    path.write_bytes(data)
    assert read_regular(path, size) == data
    if size:
        with pytest.raises(OSError, match="bytes"):
            read_regular(path, size - 1)
