from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, folder_of, noise, put
from PIL import Image

from vl2v.data import scan as files
from vl2v.data.folder import DomainFolder, FaultyDataError
from vl2v.data.images import ImageDataset
from vl2v.data.pixels import PixelCache
from vl2v.data.scan import FileIndex, read_all
from vl2v.errors import DiskFullError
from vl2v.faults.system import disk_full
from vl2v_runtime.imaging import ImageLike, Pixels, decode, square

SIZE = 8


@pytest.fixture
def index(tmp_path: Path) -> Iterator[FileIndex]:
    opened = FileIndex(tmp_path / "cache" / "files.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[PixelCache]:
    opened = PixelCache(tmp_path / "cache", SIZE)
    yield opened
    opened.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "data")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record every image that a scan decodes from now on."""
    calls: list[int] = []
    monkeypatch.setattr(files, "certainly_readable", lambda data: False)  # which decodes as well

    def counting(source: ImageLike, *, draft: bool = False) -> Image.Image:
        calls.append(1)
        return decode(source, draft=draft)

    monkeypatch.setattr(files, "decode", counting)
    return calls


def entry(seed: int) -> tuple[bytes, Pixels]:
    pixels = square(noise(seed), SIZE)
    return hashlib.sha256(pixels.tobytes()).digest(), pixels


def digests_of(*entries: tuple[bytes, Pixels]) -> np.ndarray:
    return np.stack([np.frombuffer(digest, np.uint8) for digest, _ in entries])


def assert_pixels_are_the_files(dataset: ImageDataset, cache: PixelCache) -> None:
    slots = cache.slots(dataset.digests)
    assert (slots >= 0).all()
    pixels = cache.map()
    for path, slot in zip(dataset.paths, slots, strict=True):
        assert np.array_equal(pixels[slot], square(decode(dataset.root / path), SIZE)), path


def test_pixels_are_those_of_the_files(root: Path, index: FileIndex, cache: PixelCache) -> None:
    assert_pixels_are_the_files(DomainFolder(root).scan(index=index, cache=cache), cache)


def test_a_second_scan_decodes_nothing(root: Path, index: FileIndex, cache: PixelCache, decoded: list[int]) -> None:
    first = DomainFolder(root).scan(index=index, cache=cache)
    assert len(decoded) == 8
    second = DomainFolder(root).scan(index=index, cache=cache)
    assert len(decoded) == 8
    assert np.array_equal(first.digests, second.digests)


def test_a_second_scan_after_reopening_decodes_nothing(tmp_path: Path, root: Path, decoded: list[int]) -> None:
    for _ in range(2):
        index, cache = FileIndex(tmp_path / "c" / "files.sqlite"), PixelCache(tmp_path / "c", SIZE)
        dataset = DomainFolder(root).scan(index=index, cache=cache)
        assert_pixels_are_the_files(dataset, cache)
        index.close()
        cache.close()
    assert len(decoded) == 8


def test_without_an_index_every_file_is_read_again(root: Path, decoded: list[int]) -> None:
    DomainFolder(root).scan()
    DomainFolder(root).scan()
    assert len(decoded) == 16


def test_a_file_indexed_without_pixels_is_decoded_once_a_cache_needs_them(
    root: Path, index: FileIndex, cache: PixelCache, decoded: list[int]
) -> None:
    DomainFolder(root).scan(index=index)
    dataset = DomainFolder(root).scan(index=index, cache=cache)
    assert len(decoded) == 16
    assert_pixels_are_the_files(dataset, cache)


def test_the_pixels_of_a_changed_file_are_updated(root: Path, index: FileIndex, cache: PixelCache) -> None:
    before = DomainFolder(root).scan(index=index, cache=cache)
    put(root / before.paths[0], 500)
    after = DomainFolder(root).scan(index=index, cache=cache)
    assert not np.array_equal(before.digests[0], after.digests[0])
    assert np.array_equal(before.digests[1:], after.digests[1:])
    assert_pixels_are_the_files(after, cache)


def test_a_change_with_the_same_size_and_time_is_detected(root: Path, index: FileIndex, cache: PixelCache) -> None:
    path = root / "art" / "cat" / "0.png"
    flat = encoded(Image.new("RGB", (12, 10), (1, 2, 3)), "BMP"), encoded(Image.new("RGB", (12, 10), (9, 9, 9)), "BMP")
    path.write_bytes(flat[0])
    status = path.stat()
    DomainFolder(root).scan(index=index, cache=cache)
    path.write_bytes(flat[1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert_pixels_are_the_files(DomainFolder(root).scan(index=index, cache=cache), cache)


def test_equal_contents_share_a_slot(root: Path, index: FileIndex, cache: PixelCache) -> None:
    copy = root / "photo" / "dog" / "copy.png"
    copy.write_bytes((root / "art" / "cat" / "0.png").read_bytes())
    dataset = DomainFolder(root).scan(index=index, cache=cache)
    slots = cache.slots(dataset.digests)
    assert slots[dataset.paths.index("photo/dog/copy.png")] == slots[dataset.paths.index("art/cat/0.png")]
    assert len(dataset) == 9
    assert len(cache.map()) == 8


def test_unknown_contents_have_no_slot(cache: PixelCache) -> None:
    one, two = entry(1), entry(2)
    cache.add([one])
    assert cache.slots(digests_of(two, one)).tolist() == [-1, 0]
    assert cache.known(one[0])
    assert not cache.known(two[0])


def test_the_map_is_read_only(cache: PixelCache) -> None:
    cache.add([entry(1)])
    with pytest.raises(ValueError, match="read-only"):
        cache.map()[0] = 0


@pytest.mark.parametrize("written", [0, 100])
def test_a_full_disk_leaves_the_index_consistent(
    cache: PixelCache, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    one, two, three = entry(1), entry(2), entry(3)
    cache.add([one])
    real, calls = os.write, []

    def full(descriptor: int, data: bytes) -> int:
        """Write a few bytes, then fail as on a full disk."""
        calls.append(1)
        if written and len(calls) == 1:
            return real(descriptor, data[:written])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left") as caught:
            cache.add([two, three])
    assert isinstance(disk_full(caught.value), DiskFullError)
    assert cache.slots(digests_of(one, two, three)).tolist() == [0, -1, -1]
    cache.add([three, two])
    slots = cache.slots(digests_of(one, two, three))
    for (_, pixels), slot in zip((one, two, three), slots, strict=True):
        assert np.array_equal(cache.map()[slot], pixels)


def test_two_caches_of_one_folder_do_not_overwrite_each_other(tmp_path: Path) -> None:
    first, second = PixelCache(tmp_path, SIZE), PixelCache(tmp_path, SIZE)
    entries = [entry(i) for i in range(6)]
    for i in range(0, 6, 2):
        first.add([entries[i]])
        second.add([entries[i + 1], entries[i]])
    slots = first.slots(digests_of(*entries))
    assert sorted(slots.tolist()) == list(range(6))
    for (_, pixels), slot in zip(entries, slots, strict=True):
        assert np.array_equal(second.map()[slot], pixels)
    first.close()
    second.close()


def test_the_index_stores_faults(root: Path, index: FileIndex, cache: PixelCache, decoded: list[int]) -> None:
    broken = root / "art" / "cat" / "broken.png"
    put(broken, 300)
    broken.write_bytes(broken.read_bytes()[:60])
    for _ in range(2):
        with pytest.raises(FaultyDataError) as caught:
            DomainFolder(root).scan(index=index, cache=cache)
        assert [fault.where for fault in caught.value.faults] == ["art/cat/broken.png"]
        assert len(decoded) == 9
    put(broken, 300)
    assert_pixels_are_the_files(DomainFolder(root).scan(index=index, cache=cache), cache)


def test_a_file_that_breaks_after_a_scan_is_a_fault(root: Path, index: FileIndex, cache: PixelCache) -> None:
    DomainFolder(root).scan(index=index, cache=cache)
    (root / "art" / "cat" / "0.png").write_bytes(b"")
    with pytest.raises(FaultyDataError, match="empty file"):
        DomainFolder(root).scan(index=index, cache=cache)


def test_a_missing_file_is_a_fault_and_not_indexed(root: Path, index: FileIndex) -> None:
    digests, faults = read_all(root, ["art/cat/0.png", "art/cat/none.png"], index=index)
    assert [fault.where for fault in faults] == ["art/cat/none.png"]
    assert digests.any(axis=1).tolist() == [True, False]
    assert index.find_all([str((root / "art/cat/none.png").absolute())]) == {}


def test_more_files_than_one_chunk_are_read(tmp_path: Path, index: FileIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK", 3)
    root = folder_of(tmp_path / "many", each=4)
    (root / "art" / "dog" / "1.png").write_bytes(b"")
    cache = PixelCache(tmp_path / "many-cache", SIZE)
    dataset = DomainFolder(root).scan(index=index, cache=cache, skip_bad=True)
    assert len(dataset) == 15
    assert_pixels_are_the_files(dataset, cache)
    assert np.array_equal(DomainFolder(root).scan(index=index, cache=cache, skip_bad=True).digests, dataset.digests)
    cache.close()
