"""Decoded pixels kept on disk: one memory map per size, one slot per distinct file content."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v.locking import held
from vl2v.sqlite import open_file
from vl2v_runtime.imaging import DECODING, Pixels

Digests = NDArray[np.uint8]  # [N, 32], SHA-256 of each file's bytes


class PixelCache:
    """Square uint8 images of one size, found by the SHA-256 of the file they came from.

    The pixels lie in a flat file that is read through a memory map, so its size does not matter to memory. A slot is
    written before its index row is committed: a killed process leaves at most unused bytes. A file that changes has
    another digest and gets another slot. The files' names carry `DECODING`: pixels that an older version decoded
    otherwise are never mixed in, and its files are removed.

    Args:
        folder: where the cache lives; made if missing.
        size: side length in pixels.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self.slot_bytes = size * size * 3
        name = f"pixels-{size}-v{DECODING}"
        self._data = folder / f"{name}.u8"
        self._lock = folder / f"{name}.lock"
        self._db = open_file(folder / f"{name}.sqlite")
        _remove_older(folder, size)
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS slots (digest BLOB PRIMARY KEY, slot INTEGER NOT NULL) WITHOUT ROWID"
        )

    def close(self) -> None:
        """Close the index."""
        self._db.close()

    def known(self, digest: bytes) -> bool:
        """True if the pixels of this content are kept."""
        return self._db.execute("SELECT 1 FROM slots WHERE digest = ?", (digest,)).fetchone() is not None

    def add(self, entries: Sequence[tuple[bytes, Pixels]]) -> None:
        """Keep [size, size, 3] uint8 pixels under the digests of the files they came from.

        Written with plain writes, not through a map: a full disk is then an error to catch and not a killed process.

        Raises:
            OSError: if the disk is full; nothing of this call is kept then.
        """
        with held(self._lock):
            fresh = {digest: pixels for digest, pixels in entries if not self.known(digest)}
            if not fresh:
                return
            first = int(self._db.execute("SELECT COALESCE(MAX(slot) + 1, 0) FROM slots").fetchone()[0])
            descriptor = os.open(self._data, os.O_CREAT | os.O_WRONLY, 0o644)
            try:
                data = b"".join(pixels.tobytes() for pixels in fresh.values())
                written = 0
                while written < len(data):
                    written += os.pwrite(descriptor, data[written:], first * self.slot_bytes + written)
            finally:
                os.close(descriptor)
            self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT INTO slots VALUES (?, ?)", [(digest, first + i) for i, digest in enumerate(fresh)]
            )
            self._db.execute("COMMIT")

    def slots(self, digests: Digests) -> NDArray[np.int64]:
        """Where each of the [N, 32] digests lies, int64 [N]; -1 where it is not kept."""
        look = self._db.execute
        rows = (look("SELECT slot FROM slots WHERE digest = ?", (row.tobytes(),)).fetchone() for row in digests)
        return np.fromiter((row[0] if row else -1 for row in rows), dtype=np.int64, count=len(digests))

    def map(self) -> NDArray[np.uint8]:
        """All slots as a read-only memory map, [slots, size, size, 3] uint8."""
        count = self._data.stat().st_size // self.slot_bytes
        return np.memmap(self._data, np.uint8, "r", shape=(count, self.size, self.size, 3))


def _remove_older(folder: Path, size: int) -> None:
    """Remove what an older version decoded: it is not used any more, and may be large."""
    for version in range(1, DECODING):
        name = f"pixels-{size}" if version == 1 else f"pixels-{size}-v{version}"
        for ending in ("u8", "lock", "sqlite", "sqlite-wal", "sqlite-shm"):
            with suppress(OSError):
                (folder / f"{name}.{ending}").unlink(missing_ok=True)
