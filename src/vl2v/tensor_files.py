"""Open safetensors files, which may come from strangers."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """Open a safetensors file for torch; see `safetensors.safe_open`, which would wait for ever at a named pipe.

    Raises:
        OSError: if the file is missing, is not regular (EINVAL), or cannot be read.
        SafetensorError: if it has another format.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "a folder, a pipe or a device instead of the file", str(path))
    with safe_open(path, "pt") as file:
        yield file


def read_tensors(path: Path) -> dict[str, Any]:
    """Read all tensors of a safetensors file by name; see `open_tensors`."""
    with open_tensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
