"""Validated reading of .npz files from untrusted sources.

Nothing is unpickled. Types, shapes and sizes in the headers are validated before any array is allocated, so a small
file cannot exhaust the memory.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

SMALL = 64 * 2**20  # bytes to which any file may unpack
RATIO = 100  # above that, maximum ratio to the size of the file; embeddings and logits hardly compress
MEMBERS = 100
BLOCK = 2**18  # bytes that are checked at a time
LARGEST_CHARACTER = 0x10FFFF
TEXT, FLOAT, WHOLE, BYTES = "U", "f", "iu", "u"  # letters of numpy's dtype.kind


class ArraysError(ValueError):
    """The file does not contain the expected arrays. The message states what was found."""


@dataclass(frozen=True)
class Form:
    """The expected type and shape of an array.

    Attributes:
        kinds: permitted letters of numpy's `dtype.kind`, e.g. `TEXT`.
        shape: lengths of the axes. A name denotes a length that is the same wherever the name occurs in a file. A
            scalar, (), may also have the shape (1,).
        optional: whether the array may be missing.
        finite: whether infinity and NaN are errors.
    """

    kinds: str
    shape: tuple[int | str, ...]
    optional: bool = False
    finite: bool = True


def read_arrays(path: Path, forms: Mapping[str, Form], *, later: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """Read arrays from a .npz file.

    Args:
        forms: expected arrays by name; other arrays in the file are not read.
        later: arrays that are checked like the others, values excepted, but not returned, because they are read later.

    Returns:
        The arrays by name, in the byte order of this machine; text is valid Unicode.

    Raises:
        ArraysError: if it is not a .npz file, or an array is missing or has another type or shape.
        OSError: if the file cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ArraysError("a folder, a pipe or a device instead of the file")
    try:
        with ZipFile(path) as archive:
            return _read(archive, forms, largest(path), later)
    except (OSError, ArraysError):
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many types of exceptions
        raise ArraysError(" ".join(f"{type(error).__name__}: {error}".split())[:200]) from error


def largest(path: Path) -> int:
    """Return the number of bytes to which a file may unpack, so that a small file cannot exhaust the memory."""
    return max(SMALL, RATIO * path.stat().st_size)


def _read(archive: ZipFile, forms: Mapping[str, Form], most: int, later: Collection[str]) -> dict[str, NDArray[Any]]:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()[: MEMBERS + 1]}
    if len(members) > MEMBERS:
        raise ArraysError(f"more than {MEMBERS} arrays")
    if missing := [name for name, form in forms.items() if not form.optional and name not in members]:
        raise ArraysError(f"no array {', '.join(missing)}")
    infos = {name: (form, members[name]) for name, form in forms.items() if name in members}
    lengths: dict[str, int] = {}
    total = 0
    for name, (form, info) in infos.items():
        with archive.open(info) as handle:
            shape, dtype = _header(handle)
        _compare(name, form, shape, dtype, lengths)
        total += max(math.prod(shape) * dtype.itemsize, info.file_size)
        if total > most:
            raise ArraysError(f"arrays of more than {most:,} bytes")
    for name in later:
        _check(archive, name, infos[name][1])
    return {name: _array(archive, name, form, info) for name, (form, info) in infos.items() if name not in later}


def _header(handle: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(handle)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(handle)  # rejects headers of more than 10,000 bytes
    return shape, dtype


def _compare(name: str, form: Form, shape: tuple[int, ...], dtype: np.dtype[Any], lengths: dict[str, int]) -> None:
    if dtype.kind not in form.kinds or dtype.names is not None or dtype.subdtype is not None:
        raise ArraysError(f"{name} of type {str(dtype)[:40]}")
    if not form.shape and shape == (1,):
        return
    required = [length if isinstance(length, int) else lengths.get(length) for length in form.shape]
    right = len(shape) == len(required) and all(w in (None, length) for w, length in zip(required, shape, strict=True))
    if not right or any(length < 0 for length in shape):
        expected = ", ".join(
            str(w if w is not None else dimension) for w, dimension in zip(required, form.shape, strict=True)
        )
        raise ArraysError(f"{name} of shape {list(shape)[:6]} in place of [{expected}]")
    lengths |= {
        dimension: length for dimension, length in zip(form.shape, shape, strict=True) if isinstance(dimension, str)
    }


def _check(archive: ZipFile, name: str, info: ZipInfo) -> None:
    """Check the length and, at the end of the member, the checksum of an array."""
    with archive.open(info) as handle:
        shape, dtype = _header(handle)
        length = sum(map(len, iter(partial(handle.read, BLOCK), b"")))
    if length < math.prod(shape) * dtype.itemsize:
        raise ArraysError(f"{name} with {length:,} bytes, which are too few for its shape {list(shape)}")


def _array(archive: ZipFile, name: str, form: Form, info: ZipInfo) -> NDArray[Any]:
    with archive.open(info) as handle:
        array: NDArray[Any] = npy.read_array(handle, allow_pickle=False)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind == "f" and form.finite and not np.isfinite(array).all():
        raise ArraysError(f"{name} with a value that is not finite")
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        codes = np.ascontiguousarray(array).reshape(-1).view(np.uint32)
        if codes.max() > LARGEST_CHARACTER:
            raise ArraysError(f"{name} with a character that does not exist")
    return array
