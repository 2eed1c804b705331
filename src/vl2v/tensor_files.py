"""Open safetensors files, which may come from strangers, and hash tensors."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

if TYPE_CHECKING:
    from hashlib import _Hash

    from torch import Tensor


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


def add_weights(digest: _Hash, weights: Mapping[str, Tensor]) -> None:
    """Add tensors and their names to a hash, sorted by name."""
    import torch

    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
