"""The pixel cache: one memory map per image size and fit, one slot per distinct file content."""

from __future__ import annotations

import os
import secrets
import shutil
import zlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v.faults import naming
from vl2v.locking import file_lock
from vl2v.progress import Progress, Silent
from vl2v.sqlite import keys_of, open_cache, rows_of
from vl2v_runtime.fits import SQUASH, Fit
from vl2v_runtime.imaging import DECODING, Pixels

Digests = NDArray[np.uint8]  # [N, 32], SHA-256 of each file's bytes

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS slots (digest BLOB PRIMARY KEY, slot INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS sums (slot INTEGER PRIMARY KEY, crc INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)
SEALED, MADE = "sealed", "made"  # keys: last verified state of the file; random name of this cache


class PixelCache:
    """Cached images as squares of one size and fit, by the SHA-256 of their files.

    The pixels are in a flat file that is read through a memory map, so its size is not limited by memory. A slot is
    written before its row in the index is committed, so a killed process leaves at most unused bytes. A file that
    changes has another digest and gets another slot. The index records the version `DECODING`: pixels that an older
    version decoded differently are deleted.

    Damage is repaired. A broken index is created again. `check` removes the entries of slots that were truncated,
    zeroed or changed, so that the next scan writes these images again.

    Args:
        folder: folder of the cache, created if missing.
        size: side length in pixels.
        fit: how images become squares, see `vl2v_runtime.imaging.square`. Each fit has its own files.
    """

    def __init__(self, folder: Path, size: int, fit: Fit = SQUASH) -> None:
        self.folder, self.size, self.fit = folder, size, fit
        self._kind = f"{size}" if fit == SQUASH else f"{fit}-{size}"  # no prefix of another kind
        self.slot_bytes = size * size * 3
        self.data = folder / f"pixels-{self._kind}.u8"
        self._lock = folder / f"pixels-{self._kind}.lock"
        self._unsealed = False
        self._db, new = open_cache(folder / f"pixels-{self._kind}.sqlite", SCHEMA, DECODING)
        try:
            if new:
                self._begin()
        except BaseException:
            self._db.close()
            raise

    def _begin(self) -> None:
        """Delete the pixels of a lost or older index, and everything that was computed from their slots."""
        with file_lock(self._lock):
            if self._value(MADE):  # another process has done it
                return
            self.data.unlink(missing_ok=True)
            for folder in self.folder.glob(f"slots-{self._kind}-*"):
                shutil.rmtree(folder, ignore_errors=True)
            self._set(MADE, secrets.token_hex(4))

    def close(self) -> None:
        """Close the index."""
        self._db.close()

    @property
    def features_folder(self) -> Path:
        """Folder of values that were computed from slots, such as features. It changes if slots are renumbered."""
        return self.folder / f"slots-{self._kind}-{self._value(MADE)}"

    def known(self, digest: bytes) -> bool:
        """Whether the pixels of a file are cached."""
        return bool(self.known_all([digest]))

    def known_all(self, digests: Sequence[bytes]) -> frozenset[bytes]:
        """Return the digests whose pixels are cached."""
        query = "SELECT digest FROM slots JOIN sums USING (slot) WHERE digest IN"
        return frozenset(row[0] for row in rows_of(self._db, query, digests))

    def add(self, entries: Sequence[tuple[bytes, Pixels]]) -> None:
        """Add [size, size, 3] uint8 pixels with the digests of their files.

        They are written with ordinary writes and not through a map, so that a full disk raises an error instead of
        killing the process.

        Raises:
            OSError: if the disk is full; nothing of this call is added then.
        """
        with file_lock(self._lock):
            cached_digests = self.known_all([digest for digest, _ in entries])
            fresh = {digest: pixels for digest, pixels in entries if digest not in cached_digests}
            if not fresh:
                return
            slots = self._slots_for(list(fresh))
            self._unsealed = True
            self._set(SEALED, "")
            self._write([(slots[digest], pixels.tobytes()) for digest, pixels in fresh.items()])
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR REPLACE INTO slots VALUES (?, ?)", [*slots.items()])
            sums = [(slots[digest], zlib.crc32(pixels.tobytes())) for digest, pixels in fresh.items()]
            self._db.executemany("INSERT OR REPLACE INTO sums VALUES (?, ?)", sums)
            self._db.execute("COMMIT")

    def _slots_for(self, digests: Sequence[bytes]) -> dict[bytes, int]:
        """Return a slot for each digest: its previous one, or a new one."""
        following = int(self._db.execute("SELECT COALESCE(MAX(slot) + 1, 0) FROM slots").fetchone()[0])
        slots = dict(rows_of(self._db, "SELECT digest, slot FROM slots WHERE digest IN", digests))
        new = [digest for digest in digests if digest not in slots]
        return slots | {digest: slot for slot, digest in enumerate(new, following)}

    def _write(self, parts: Sequence[tuple[int, bytes]]) -> None:
        with naming(self.data):
            descriptor = os.open(self.data, os.O_CREAT | os.O_WRONLY, 0o644)
            try:
                for slot, data in parts:
                    os.lseek(descriptor, slot * self.slot_bytes, os.SEEK_SET)
                    while data:
                        data = data[os.write(descriptor, data) :]
            finally:
                os.close(descriptor)

    def seal(self) -> None:
        """Write added pixels to the disk, and record the state of the file, so that `check` need not read it."""
        if not self._unsealed:
            return
        with file_lock(self._lock), naming(self.data):
            descriptor = os.open(self.data, os.O_WRONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._set(SEALED, stamp_of(self.data))
        self._unsealed = False

    def check(self, progress: Progress | None = None) -> int:
        """Compare the file with its checksums, unless it has not changed since the last comparison.

        Returns:
            The number of damaged slots, which are no longer in the cache.
        """
        sealed = self._value(SEALED)
        if sealed and sealed == stamp_of(self.data):
            return 0
        with file_lock(self._lock):
            rows = self._db.execute("SELECT slots.slot, crc FROM slots LEFT JOIN sums USING (slot)").fetchall()
            pixels = self.map()
            bad: list[tuple[int]] = []
            stage_progress = progress if progress is not None and rows else Silent()
            with stage_progress.stage("checking the cache of images", len(rows)) as advance:
                for slot, crc in rows:
                    crc_now = zlib.crc32(pixels[slot]) if slot < len(pixels) else None
                    if crc is None or crc_now != crc:
                        bad.append((slot,))
                    advance(1)
            self._db.execute("BEGIN")
            self._db.executemany("DELETE FROM sums WHERE slot = ?", bad)
            self._db.execute("COMMIT")
            self._set(SEALED, stamp_of(self.data))
        return len(bad)

    def slots(self, digests: Digests) -> NDArray[np.int64]:
        """Return the slot of each of [N, 32] digests, [N] int64; -1 if it is not cached."""
        keys = keys_of(digests)
        slots = dict(rows_of(self._db, "SELECT digest, slot FROM slots JOIN sums USING (slot) WHERE digest IN", keys))
        return np.fromiter((slots.get(key, -1) for key in keys), dtype=np.int64, count=len(keys))

    def all_slots(self) -> dict[bytes, int]:
        """Return the slot of every digest with one query."""
        rows = self._db.execute("SELECT digest, slots.slot FROM slots JOIN sums USING (slot)")
        return {bytes(digest): int(slot) for digest, slot in rows}

    def map(self) -> NDArray[np.uint8]:
        """Return all slots as a read-only memory map, [slots, size, size, 3] uint8."""
        count = self.data.stat().st_size // self.slot_bytes if self.data.exists() else 0
        if not count:
            return np.zeros((0, self.size, self.size, 3), np.uint8)
        return np.memmap(self.data, np.uint8, "r", shape=(count, self.size, self.size, 3))

    def _value(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def _set(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


@dataclass(frozen=True)
class CachedPixels:
    """The pixel cache of one image size and fit, which is only open during a call.

    Attributes:
        size: side length in pixels.
        fit: how images become squares.
    """

    folder: Path
    size: int
    fit: Fit = SQUASH

    def slots(self, digests: Digests) -> NDArray[np.int64]:
        """See `PixelCache.slots`."""
        with closing(PixelCache(self.folder, self.size, self.fit)) as cache:
            return cache.slots(digests)

    def map(self) -> NDArray[np.uint8]:
        """See `PixelCache.map`."""
        with closing(PixelCache(self.folder, self.size, self.fit)) as cache:
            return cache.map()

    def features_folder(self) -> Path:
        """See `PixelCache.features_folder`."""
        with closing(PixelCache(self.folder, self.size, self.fit)) as cache:
            return cache.features_folder


def stamp_of(path: Path) -> str:
    """Return a text that changes when a file is written, replaced or truncated; empty if there is no file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return ""
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"
