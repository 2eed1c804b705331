"""Open the files in the folder of the cache: the index of scanned files, and the pixel cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from vl2v.data.pixels import PixelCache
from vl2v.data.scan import FileIndex
from vl2v_runtime.fits import Fit

INDEX = "files.sqlite"  # in the folder of the cache


@contextmanager
def open_index(folder: Path) -> Iterator[FileIndex]:
    """Open the index of files, and close it after the block."""
    with closing(FileIndex(folder / INDEX)) as index:
        yield index


@contextmanager
def open_caches(folder: Path, size: int, fit: Fit) -> Iterator[tuple[FileIndex, PixelCache]]:
    """Open the index of files and the pixel cache of an image size and fit, and close them after the block."""
    with open_index(folder) as index, closing(PixelCache(folder, size, fit)) as cache:
        yield index, cache
