"""Scan image files: check, hash and decode each file once."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vl2v.cluster.connection import Share
from vl2v.cluster.pool import WorkerPool, current_pool, other_files
from vl2v.data.pixels import Digests, PixelCache
from vl2v.data.quick_check import certainly_readable
from vl2v.progress import Progress, Silent, warn
from vl2v.sqlite import open_cache, rows_of
from vl2v_runtime.colour import NOTE
from vl2v_runtime.fits import SQUASH, Fit
from vl2v_runtime.formats import format_of
from vl2v_runtime.imaging import (
    DECODING,
    RULES,
    MissingDecoderError,
    Pixels,
    UnreadableImageError,
    decode,
    read_file_and_status,
    square,
)
from vl2v_runtime.names import shown
from vl2v_runtime.quiet import quiet

CHUNK = 256  # files decoded at a time
SLICE = 16  # files per task of a thread
UNCACHED = 4  # times as many of both if no pixels are cached: such files are checked quickly
SAVING = 2.0  # seconds between two commits to the index
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
    """The result for a file; `noted` is what the index does not have yet."""

    digest: bytes
    problem: str = ""
    noted: _Noted | None = None
    pixels: Pixels | None = None
    note: str = ""
    remedy: str = "replace or delete the file, or skip it: --skip-bad"


class FileIndex:
    """Results of earlier scans, so that unchanged files are not read again.

    A file is unchanged if its size, modification time, change time and inode are the same. Results of earlier versions
    of the rules (`DECODING`, `RULES`) are discarded.

    Args:
        path: path of the SQLite file; its folder is created if missing.
    """

    def __init__(self, path: Path) -> None:
        self._db, _ = open_cache(path, SCHEMA, 1000 * DECODING + RULES)
        self._pending: list[tuple[object, ...]] = []
        self._saved = time.monotonic()

    def close(self) -> None:
        """Close the index."""
        self._db.close()

    def find_all(self, paths: Sequence[str]) -> dict[str, _Noted]:
        """Return the recorded stamps, digests and problems of paths; paths without a record are missing."""
        query = "SELECT path, size, mtime, ctime, inode, digest, problem FROM files WHERE path IN"
        keys = {os.fsencode(path): path for path in paths}
        return {keys[row[0]]: (row[1:5], row[5], row[6]) for row in rows_of(self._db, query, list(keys))}

    def find_view(self, source: bytes, view: int, seed: int) -> bytes | None:
        """Return the digest of a view that was created earlier; None if there is none."""
        query = "SELECT digest FROM views WHERE source = ? AND view = ? AND seed = ?"
        row = self._db.execute(query, (source, view, seed)).fetchone()
        return row[0] if row else None

    def note_view(self, source: bytes, view: int, seed: int, digest: bytes) -> None:
        """Record the digest of a view."""
        self._db.execute("INSERT OR REPLACE INTO views VALUES (?, ?, ?, ?)", (source, view, seed, digest))

    def note(self, entries: Sequence[tuple[str, _Noted]]) -> None:
        """Record the stamps, digests and problems of files every `SAVING` seconds; `save` records the last ones."""
        self._pending += [(os.fsencode(path), *stamp, digest, problem) for path, (stamp, digest, problem) in entries]
        if time.monotonic() - self._saved > SAVING:
            self.save()

    def save(self) -> None:
        """Record what `note` has received since the last time."""
        if self._pending:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", self._pending)
            self._db.execute("COMMIT")
            self._pending.clear()
        self._saved = time.monotonic()


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
        index: results of earlier scans. Without it, every file is read.
        cache: receives the decoded pixels. Without it, files are only checked.

    Returns:
        (SHA-256 of every file [N, 32] uint8, zeros for a faulty one; faults in the order of `paths`).
    """
    digests = np.zeros((len(paths), 32), np.uint8)
    faults: dict[int, Fault] = {}
    notes: dict[str, list[int]] = {}
    progress = progress or Silent()
    if cache is not None:
        cache.check(progress)
    try:
        with progress.stage(title, len(paths)) as advance:
            for chunk in _chunks(root, paths, index, cache):
                if cache is not None:
                    cache.add([(c.digest, c.pixels) for _, _, c in chunk if c.pixels is not None])
                if index is not None:
                    index.note([(key, c.noted) for _, key, c in chunk if c.noted is not None])
                usable = b"".join(bytes(32) if c.problem else c.digest for _, _, c in chunk)
                digests[[i for i, _, _ in chunk]] = np.frombuffer(usable, np.uint8).reshape(-1, 32)
                for i, _, result in chunk:
                    if result.problem:
                        faults[i] = Fault(shown(paths[i]), result.problem, result.remedy, file=True)
                    if result.note:
                        notes.setdefault(result.note, []).append(i)
                advance(len(chunk))
    finally:
        if index is not None:
            index.save()
    if cache is not None:
        cache.seal()
    for note, rows_with_note in notes.items():
        images = "1 image" if len(rows_with_note) == 1 else f"{len(rows_with_note):,} images"
        warn(progress, f"{images} such as {shown(paths[min(rows_with_note)])}: {note}")
    return digests, [faults[i] for i in sorted(faults)]


_Chunk = list[tuple[int, str, _Checked]]  # index in `paths`, absolute path, and result of each file
_Part = tuple[list[int], list[str]]  # indices in `paths`, and absolute paths
_LookUp = tuple[list[int], list[str], dict[str, _Noted], frozenset[bytes]]  # what index and cache know of a chunk


def _chunks(root: Path, paths: Sequence[str], index: FileIndex | None, cache: PixelCache | None) -> Iterator[_Chunk]:
    """Check the files in chunks. Workers of a cluster read what has changed since the last scan."""
    order, more = list(range(len(paths))), 1
    if cache is None:  # neighbours in a folder and in the index are read together; slots have the order of `paths`
        order.sort(key=paths.__getitem__)
        more = UNCACHED
    check, pool = _Check() if cache is None else _Check(cache.size, cache.fit), current_pool()
    look: Callable[..., Sequence[_Checked | None]] = check.some if pool is None else check.unchanged
    changed_rows: list[int] = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
        for rows, keys, entries, cached in _looked_up(root, paths, order, more * CHUNK, index, cache):
            parts = [keys[i : i + more * SLICE] for i in range(0, len(keys), more * SLICE)]
            jobs = [threads.submit(look, part, entries, cached) for part in parts]
            results = (result for job in jobs for result in job.result())
            chunk: _Chunk = []
            for row, key, result in zip(rows, keys, results, strict=True):
                if result is None:
                    changed_rows.append(row)
                else:
                    chunk.append((row, key, result))
            yield chunk
    if pool is not None and changed_rows:
        parts_left = [changed_rows[i : i + more * SLICE] for i in range(0, len(changed_rows), more * SLICE)]
        items = ((rows, _keys(root, [paths[i] for i in rows])) for rows in parts_left)
        yield from _on_workers(pool, check, items, len(parts_left), more * CHUNK)


def _looked_up(
    root: Path, paths: Sequence[str], order: list[int], size: int, index: FileIndex | None, cache: PixelCache | None
) -> Iterator[_LookUp]:
    """Look up chunks in the databases, which are used in this thread only; reading and decoding is parallel."""
    for start in range(0, len(paths), size):
        rows = order[start : start + size]
        keys = _keys(root, [paths[i] for i in rows])
        entries = index.find_all(keys) if index else {}
        cached = cache.known_all([digest for _, digest, _ in entries.values()]) if cache else frozenset()
        yield rows, keys, entries, cached


def _on_workers(pool: WorkerPool, check: _Check, parts: Iterator[_Part], count: int, size: int) -> Iterator[_Chunk]:
    """Check files on a cluster. A problem on another machine counts only if it exists on this one, too."""
    chunk: _Chunk = []
    for (rows, keys), results, host in pool.map(check.part, lambda: next(parts, None), count, Share()):
        for row, key, result in zip(rows, keys, results, strict=True):
            if result.problem and check.some([key], {}, ())[0].problem != result.problem:
                raise other_files(host, shown(key), result.problem)
            chunk.append((row, key, result))
        if len(chunk) >= size:
            yield chunk
            chunk = []
    yield chunk


def _keys(root: Path, paths: Sequence[str]) -> list[str]:
    """Return absolute paths. A `Path` object for each would take as long as reading the status of its file."""
    above = str(root.absolute())
    return [os.path.join(above, path) for path in paths]  # noqa: PTH118


@dataclass(frozen=True)
class _Check:
    """Checks files, and decodes their pixels for a cache of one size and fit; without a size, only checks them."""

    size: int | None = None
    fit: Fit = SQUASH

    def some(self, paths: Sequence[str], entries: Mapping[str, _Noted], cached: Collection[bytes]) -> list[_Checked]:
        """Check files, and read those that have changed since they were noted."""
        with quiet():  # once for all files: changing the filters of warnings takes as long as opening a small image
            return [self._unchanged(path, entries.get(path), cached) or self._read(path) for path in paths]

    def unchanged(
        self, paths: Sequence[str], entries: Mapping[str, _Noted], cached: Collection[bytes]
    ) -> list[_Checked | None]:
        """Return the noted results of files that have not changed; None for a file that must be read."""
        return [self._unchanged(path, entries.get(path), cached) for path in paths]

    def part(self, part: _Part) -> list[_Checked]:
        """Read files."""
        return self.some(part[1], {}, ())

    def _unchanged(self, path: str, entry: _Noted | None, cached: Collection[bytes]) -> _Checked | None:
        if not entry or not (entry[2] or self.size is None or entry[1] in cached):
            return None
        try:
            same = entry[0] == _stamp(os.stat(path))  # noqa: PTH116 - a `Path` takes longer
        except OSError:
            return None  # reading it will state the problem
        return _Checked(entry[1], entry[2]) if same else None

    def _read(self, path: str) -> _Checked:
        try:
            data, status = read_file_and_status(path)
        except UnreadableImageError as error:  # too large to read at all
            return _Checked(b"", str(error))
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
            remedy = "make it readable, or skip it: --skip-bad"
            return (
                _Checked(b"", problem, remedy=remedy) if isinstance(error, PermissionError) else _Checked(b"", problem)
            )
        digest = hashlib.sha256(data).digest()
        if self.size is None and certainly_readable(data):
            return _Checked(digest, noted=(_stamp(status), digest, ""))
        try:
            image = decode(data, draft=self.size is None)
        except MissingDecoderError as error:  # not recorded in the index, since the decoder may be installed later
            return _Checked(b"", str(error), remedy=f"{error.install}, or skip the file: --skip-bad")
        except UnreadableImageError as error:
            noted = (_stamp(status), digest, str(error)) if format_of(data) else None  # a later version may support it
            return _Checked(digest, str(error), noted=noted)
        pixels = square(image, self.size, self.fit) if self.size is not None else None
        return _Checked(digest, "", (_stamp(status), digest, ""), pixels, image.info.get(NOTE, ""))


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
