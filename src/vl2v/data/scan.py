"""Scan image files: check, hash and decode each file once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vl2v.data.pixels import Digests, PixelCache
from vl2v.progress import Progress, Silent, warn
from vl2v.sqlite import open_cache, rows_of
from vl2v_runtime.colour import NOTE
from vl2v_runtime.imaging import (
    DECODING,
    JUDGING,
    MissingDecoderError,
    Pixels,
    UnreadableImageError,
    decode,
    read_file,
    square,
)
from vl2v_runtime.names import shown
from vl2v_runtime.quiet import quiet

CHUNK = 256  # files decoded between two commits
SLICE = 16  # files per task of a thread
KNOWN = 64  # known files per task, of which only the status is read
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, ctime INTEGER,"
    " inode INTEGER, digest BLOB, problem TEXT) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS views (source BLOB, view INTEGER, seed INTEGER, digest BLOB,"
    " PRIMARY KEY (source, view, seed)) WITHOUT ROWID",
)


@dataclass(frozen=True)
class Fault:
    """A fault of the data: place, problem and remedy."""

    where: str
    problem: str
    remedy: str
    file: bool = False  # whether files are faulty, which --skip-bad skips
    count: int = 1  # number of files or rows


_Stamp = tuple[int, ...]  # size, modification time, change time, inode
_Noted = tuple[_Stamp, bytes, str]  # stamp, digest, and problem of a file


class _Checked(NamedTuple):
    digest: bytes
    problem: str
    stamp: _Stamp | None
    pixels: Pixels | None
    read: bool
    note: str = ""
    remedy: str = "replace or delete the file, or skip it: --skip-bad"


class FileIndex:
    """Results of earlier scans, so that unchanged files are not read again.

    A file is unchanged if its size, modification time, change time and inode are the same. Results of earlier versions
    of the rules (`DECODING`, `JUDGING`) are discarded.

    Args:
        path: path of the SQLite file; its folder is created if missing.
    """

    def __init__(self, path: Path) -> None:
        self._db, _ = open_cache(path, SCHEMA, 1000 * DECODING + JUDGING)

    def close(self) -> None:
        """Close the index."""
        self._db.close()

    def find(self, path: str) -> _Noted | None:
        """Return the recorded stamp, digest and problem of a path; None if there is no record."""
        return self.find_all([path]).get(path)

    def find_all(self, paths: Sequence[str]) -> dict[str, _Noted]:
        """Return the records of many paths; paths without a record are missing."""
        query = "SELECT path, size, mtime, ctime, inode, digest, problem FROM files WHERE path IN"
        rows = rows_of(self._db, query, [os.fsencode(path) for path in paths])
        return {os.fsdecode(row[0]): (row[1:5], row[5], row[6]) for row in rows}

    def find_view(self, source: bytes, view: int, seed: int) -> bytes | None:
        """Return the digest of a view that was created earlier; None if there is none."""
        query = "SELECT digest FROM views WHERE source = ? AND view = ? AND seed = ?"
        row = self._db.execute(query, (source, view, seed)).fetchone()
        return row[0] if row else None

    def note_view(self, source: bytes, view: int, seed: int, digest: bytes) -> None:
        """Record the digest of a view."""
        self._db.execute("INSERT OR REPLACE INTO views VALUES (?, ?, ?, ?)", (source, view, seed, digest))

    def note(self, entries: Sequence[tuple[str, _Checked]]) -> None:
        """Record the results for files that could be read."""
        rows = [(os.fsencode(path), *c.stamp, c.digest, c.problem) for path, c in entries if c.stamp is not None]
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self._db.execute("COMMIT")


def read_all(
    root: Path,
    paths: Sequence[str],
    *,
    index: FileIndex | None = None,
    cache: PixelCache | None = None,
    progress: Progress | None = None,
    title: str = "reading images",
) -> tuple[Digests, list[Fault]]:
    """Decode every file once, in parallel, and record the results.

    Args:
        root: the folder that `paths` are relative to.
        paths: N image files.
        index: results of earlier scans. Without it, every file is read.
        cache: receives the decoded pixels. Without it, files are only checked.
        progress: progress callback, called after every file.
        title: name of the stage.

    Returns:
        (SHA-256 of every file [N, 32] uint8, zeros for a faulty one; faults in the order of `paths`).
    """
    digests = np.zeros((len(paths), 32), np.uint8)
    faults: list[Fault] = []
    notes: dict[str, list[str]] = {}
    progress = progress or Silent()
    if cache is not None:
        cache.check(progress)
    with progress.stage(title, len(paths)) as advance:
        for start, checked in _chunks(root, paths, index, cache):
            if cache is not None:
                cache.add([(c.digest, c.pixels) for c in checked if c.pixels is not None])
            if index is not None:
                read = [(paths[i], c) for i, c in enumerate(checked, start) if c.read]
                index.note([(path, c) for path, (_, c) in zip(_keys(root, [p for p, _ in read]), read, strict=True)])
            usable = b"".join(bytes(32) if c.problem else c.digest for c in checked)
            digests[start : start + len(checked)] = np.frombuffer(usable, np.uint8).reshape(-1, 32)
            for i, result in enumerate(checked, start):
                if result.problem:
                    faults.append(Fault(shown(paths[i]), result.problem, result.remedy, file=True))
                if result.note:
                    notes.setdefault(result.note, []).append(paths[i])
            advance(len(checked))
    if cache is not None:
        cache.seal()
    for note, noted in notes.items():
        images = "1 image" if len(noted) == 1 else f"{len(noted):,} images"
        warn(progress, f"{images} such as {shown(noted[0])}: {note}")
    return digests, faults


def _chunks(
    root: Path, paths: Sequence[str], index: FileIndex | None, cache: PixelCache | None
) -> Iterator[tuple[int, list[_Checked]]]:
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for start in range(0, len(paths), CHUNK):
            some = _keys(root, paths[start : start + CHUNK])
            # The databases are used in this thread only; reading and decoding is parallel.
            noted = index.find_all(some) if index else {}
            cached = cache.known_all([digest for _, digest, _ in noted.values()]) if cache else frozenset()
            size = KNOWN if len(noted) == len(some) else SLICE
            parts = [some[i : i + size] for i in range(0, len(some), size)]
            jobs = [pool.submit(_check_some, part, noted, cache, cached) for part in parts]
            yield start, [checked for job in jobs for checked in job.result()]


def _keys(root: Path, paths: Sequence[str]) -> list[str]:
    """Return absolute paths. A `Path` object for each would take as long as reading the status of its file."""
    above = str(root.absolute())
    return [os.path.join(above, path) for path in paths]  # noqa: PTH118


def _check_some(
    paths: Sequence[str], noted: Mapping[str, _Noted], cache: PixelCache | None, cached: Collection[bytes]
) -> list[_Checked]:
    with quiet():  # once for all files: changing the filters of warnings takes as long as opening a small image
        return [_check(path, noted.get(path), cache, cached) for path in paths]


def _check(path: str, noted: _Noted | None, cache: PixelCache | None, cached: Collection[bytes]) -> _Checked:
    try:
        status = os.stat(path)  # noqa: PTH116 - a `Path` takes longer than the call
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        if noted and noted[0] == stamp and (noted[2] or cache is None or noted[1] in cached):
            return _Checked(noted[1], noted[2], stamp, None, read=False)
        data = read_file(path)
    except UnreadableImageError as error:  # too large to read at all
        return _Checked(b"", str(error), None, None, read=True)
    except OSError as error:
        return _Checked(b"", f"cannot be read ({error.strerror})", None, None, read=True)
    digest = hashlib.sha256(data).digest()
    try:
        image = decode(data, draft=cache is None)
    except MissingDecoderError as error:  # not recorded in the index, since the decoder may be installed later
        remedy = f"{error.install}, or skip the file: --skip-bad"
        return _Checked(b"", str(error), None, None, read=True, remedy=remedy)
    except UnreadableImageError as error:
        return _Checked(digest, str(error), stamp, None, read=True)
    pixels = square(image, cache.size, cache.fit) if cache else None
    return _Checked(digest, "", stamp, pixels, read=True, note=image.info.get(NOTE, ""))
