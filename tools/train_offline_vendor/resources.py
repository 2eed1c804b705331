"""Read Qt resource files (.rcc), which contain the pictures of gcompris."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

FOLDER, COMPRESSED, ZSTD = 2, 1, 4
NODE = {1: 14, 2: 22, 3: 22}  # bytes of a tree node, by the format's version


def contents(path: Path) -> dict[str, bytes]:
    """Return the files in a resource file by path, without files that are compressed with Zstandard.

    Raises:
        ValueError: if it is not a resource file of version 1 to 3.
    """
    data = path.read_bytes()
    magic, version, tree, bodies, names = struct.unpack(">4sIIII", data[:20])
    if magic != b"qres" or version not in NODE:
        raise ValueError(f"{path.name} is not a Qt resource file of version 1 to 3")
    files: dict[str, bytes] = {}

    def name(offset: int) -> str:
        (length,) = struct.unpack(">H", data[names + offset : names + offset + 2])
        return data[names + offset + 6 : names + offset + 6 + 2 * length].decode("utf-16-be")

    def walk(index: int, parent: str) -> None:
        start = tree + index * NODE[version]
        offset, flags = struct.unpack(">IH", data[start : start + 6])
        here = f"{parent}/{name(offset)}" if index else ""
        if flags & FOLDER:
            count, first = struct.unpack(">II", data[start + 6 : start + 14])
            for child in range(first, first + count):
                walk(child, here)
        elif not flags & ZSTD:
            (at,) = struct.unpack(">I", data[start + 10 : start + 14])
            (size,) = struct.unpack(">I", data[bodies + at : bodies + at + 4])
            body = data[bodies + at + 4 : bodies + at + 4 + size]
            files[here] = zlib.decompress(body[4:]) if flags & COMPRESSED else body

    walk(0, "")
    return files
