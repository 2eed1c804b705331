"""Read files in archives and folders. Nothing is written under a path from an archive."""

from __future__ import annotations

import gzip
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from vl2v.errors import DataError
from vl2v.tar_files import members_of

ZIPS = (".zip",)
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_FILE = 256 << 20  # bytes of one image
MAX_RATIO = 20  # maximum bytes unpacked per byte of archive; images compress by only a few percent
DAMAGED = zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError
SPARE = 64 << 20  # bytes that may always be unpacked, since small archives may compress well


@dataclass(frozen=True)
class Member:
    """A file in an archive or a folder.

    Attributes:
        path: relative path with slashes.
        read: returns the content; only valid until the iteration continues.
    """

    path: PurePosixPath
    read: Callable[[], bytes]


def is_archive(path: Path) -> bool:
    """Whether a file has the suffix of an archive that `members` can read."""
    return path.name.lower().endswith((*ZIPS, *TARS))


def members(source: Path, *, max_file: int = MAX_FILE) -> Iterator[Member]:
    """Iterate over the regular files of an archive or a folder; links, devices and hidden files are skipped.

    Args:
        source: a zip, a tar (plain, gz, bz2 or xz), or a folder.
        max_file: maximum size of a member in bytes.

    Raises:
        DataError: if the archive is damaged, encrypted, contains a path outside itself, or looks like a decompression
            bomb.
    """
    if source.is_dir():
        yield from _of_folder(source)
        return
    budget = _Budget(source, max_file)
    with _broken_is_an_error(source):
        with source.open("rb") as file:
            is_zip = file.read(2) == b"PK"  # a URL may have no suffix
        yield from (_of_zip if is_zip else _of_tar)(source, budget)


class _Budget:
    """A limit on unpacked bytes, as a guard against decompression bombs."""

    def __init__(self, archive: Path, max_file: int) -> None:
        self.archive, self.max_file = archive, max_file
        self.left = archive.stat().st_size * MAX_RATIO + max(SPARE, max_file if max_file > MAX_FILE else 0)

    def take(self, name: str, size: int) -> None:
        self.left -= size
        if size > self.max_file or self.left < 0:
            raise DataError(
                f"{self.archive} looks like a decompression bomb.",
                expected=f"files of at most {self.max_file >> 20} MB, unpacked at most {MAX_RATIO} times the archive",
                found=f"{name} of {size:,} bytes",
                next_step="do not use this archive; download it from its official source",
            )


def _of_zip(source: Path, budget: _Budget) -> Iterator[Member]:
    with zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            path = _inside(source, info.filename)
            if info.is_dir() or _hidden(path):
                continue
            yield Member(path, partial(_read_zip, archive, info, budget))


def _read_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: _Budget) -> bytes:
    budget.take(info.filename, info.file_size)
    with _broken_is_an_error(budget.archive), archive.open(info) as file:
        return file.read()  # zipfile returns at most file_size bytes, and verifies the checksum


def _of_tar(source: Path, budget: _Budget) -> Iterator[Member]:
    for archive, info in members_of(source):
        path = _inside(source, info.name)
        if not info.isfile() or _hidden(path):
            continue
        try:
            tarfile.data_filter(info, ".")
        except tarfile.FilterError as error:
            raise _outside(source, info.name) from error
        yield Member(path, partial(_read_tar, archive, info, budget))


def _read_tar(archive: tarfile.TarFile, info: tarfile.TarInfo, budget: _Budget) -> bytes:
    budget.take(info.name, info.size)
    with _broken_is_an_error(budget.archive):
        file = archive.extractfile(info)
        return file.read() if file else b""  # tarfile returns info.size bytes or raises an error


def _of_folder(source: Path) -> Iterator[Member]:
    for base, names, files in os.walk(source, followlinks=True):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for file in sorted(files):
            if not file.startswith("."):
                path = Path(base, file)
                yield Member(PurePosixPath(path.relative_to(source).as_posix()), path.read_bytes)


def _inside(source: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]) or "\0" in name:
        raise _outside(source, name)
    return path


def _outside(source: Path, name: str) -> DataError:
    return DataError(
        f"{source} contains a path outside itself.",
        expected="names such as photo/dog/1.jpg",
        found=repr(name)[:200],
        next_step="do not use this archive; download it from its official source",
    )


def _hidden(path: PurePosixPath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


@contextmanager
def _broken_is_an_error(source: Path) -> Iterator[None]:
    try:
        yield
    except (*DAMAGED, RuntimeError) as error:  # RuntimeError: a password or an unknown method
        raise DataError(
            f"{source} cannot be unpacked.",
            expected="a complete zip or tar without a password",
            found=str(error) or "broken data",
            next_step="download the file again",
        ) from error
