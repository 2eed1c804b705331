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
SLICE = 16  # files that a thread takes at once
KNOWN = 64  # the same of files that were read before, of which only the status is looked at
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, ctime INTEGER,"
    " inode INTEGER, digest BLOB, problem TEXT) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS views (source BLOB, view INTEGER, seed INTEGER, digest BLOB,"
    " PRIMARY KEY (source, view, seed)) WITHOUT ROWID",
)


@dataclass(frozen=True)
class Fault:
    """One thing wrong with the data: where, what, and what to do about it."""

    where: str
    problem: str
    remedy: str
    file: bool = False  # true for a single bad file, which --skip-bad leaves out


_Stamp = tuple[int, ...]  # size, modification time, change time, inode
_Noted = tuple[_Stamp, bytes, str]  # of a file that was read: digest, and what is wrong with it


class _Checked(NamedTuple):
    digest: bytes
    problem: str
    stamp: _Stamp | None
    pixels: Pixels | None
    read: bool
    note: str = ""
    remedy: str = "replace or delete the file, or skip it: --skip-bad"


class FileIndex:
    """What is known of files already read, so that an unchanged file is not read again.

    A file counts as unchanged while its size, modification time, change time and inode are the same. What earlier rules
    said of files (`DECODING`, `JUDGING`) is forgotten.

    Args:
        path: the SQLite file; its folder is made if missing.
    """

    def __init__(self, path: Path) -> None:
        self._db, _ = open_cache(path, SCHEMA, 1000 * DECODING + JUDGING)

    def close(self) -> None:
        """Close the index."""
        self._db.close()

    def find(self, path: str) -> _Noted | None:
        """The stamp, digest and problem noted for a path, if any."""
        return self.find_all([path]).get(path)

    def find_all(self, paths: Sequence[str]) -> dict[str, _Noted]:
        """The same for many paths; those of which nothing is noted are missing."""
        query = "SELECT path, size, mtime, ctime, inode, digest, problem FROM files WHERE path IN"
        rows = rows_of(self._db, query, [os.fsencode(path) for path in paths])
        return {os.fsdecode(row[0]): (row[1:5], row[5], row[6]) for row in rows}

    def find_view(self, source: bytes, view: int, seed: int) -> bytes | None:
        """The digest of a view that was made before."""
        query = "SELECT digest FROM views WHERE source = ? AND view = ? AND seed = ?"
        row = self._db.execute(query, (source, view, seed)).fetchone()
        return row[0] if row else None

    def note_view(self, source: bytes, view: int, seed: int, digest: bytes) -> None:
        """Remember the digest of a view."""
        self._db.execute("INSERT OR REPLACE INTO views VALUES (?, ?, ?, ?)", (source, view, seed, digest))

    def note(self, entries: Sequence[tuple[str, _Checked]]) -> None:
        """Remember what was found in files that could be read."""
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
    """Decode every file once, in parallel, and keep what was learnt.

    Args:
        root: the folder that `paths` are relative to.
        paths: image files, [N].
        index: remembers files across runs; without one every file is read.
        cache: where decoded pixels go; without one files are checked only.
        progress: callback, called after every file.
        title: the stage's name for the user.

    Returns:
        ([N, 32] uint8 SHA-256 of every file, zeros for a bad one; the faults in the order of `paths`).
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
            # The databases stay in this thread; only reading and decoding is spread.
            noted = index.find_all(some) if index else {}
            cached = cache.known_all([digest for _, digest, _ in noted.values()]) if cache else frozenset()
            size = KNOWN if len(noted) == len(some) else SLICE
            parts = [some[i : i + size] for i in range(0, len(some), size)]
            jobs = [pool.submit(_check_some, part, noted, cache, cached) for part in parts]
            yield start, [checked for job in jobs for checked in job.result()]


def _keys(root: Path, paths: Sequence[str]) -> list[str]:
    """Absolute paths; a `Path` for each would take as long as reading the status of its file."""
    above = str(root.absolute())
    return [os.path.join(above, path) for path in paths]  # noqa: PTH118


def _check_some(
    paths: Sequence[str], noted: Mapping[str, _Noted], cache: PixelCache | None, cached: Collection[bytes]
) -> list[_Checked]:
    with quiet():  # once for all of them: changing the filters of warnings takes as long as opening a small image
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
    except MissingDecoderError as error:  # not noted in the index: it can be read once the decoder is installed
        remedy = f"{error.install}, or skip the file: --skip-bad"
        return _Checked(b"", str(error), None, None, read=True, remedy=remedy)
    except UnreadableImageError as error:
        return _Checked(digest, str(error), stamp, None, read=True)
    pixels = square(image, cache.size, cache.fit) if cache else None
    return _Checked(digest, "", stamp, pixels, read=True, note=image.info.get(NOTE, ""))
