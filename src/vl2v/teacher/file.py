"""A teacher that reads precomputed embeddings from a file."""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v.arrays import FLOAT, TEXT, WHOLE, Form, read_arrays
from vl2v.errors import TeacherError
from vl2v.sqlite import keys_of
from vl2v.teacher.base import Embeddings, Price, TeacherCard, file_digest, unit_rows
from vl2v.teacher.file_parquet import Rows, read_parquet
from vl2v.teacher.purchase.store import Digests
from vl2v_runtime.metadata import MAX_LOGIT_SCALE
from vl2v_runtime.numbers import number

NPZ = "arrays embeddings [N, D] with paths [N] or sha256 [N], and texts [M] with text_embeddings [M, D]"
PARQUET = "columns embedding, and path or sha256 (images) and text (prompts), one of them filled per row"
SCALARS = ("logit_scale", "identity", "revision")
VECTORS = FLOAT + WHOLE
DIGEST = re.compile("[0-9a-fA-F]{64}")
FORMS = {
    "embeddings": Form(VECTORS, ("N", "D"), finite=False),
    "paths": Form(TEXT, ("N",), optional=True),
    "sha256": Form(TEXT, ("N",), optional=True),
    "texts": Form(TEXT, ("M",)),
    "text_embeddings": Form(VECTORS, ("M", "D"), finite=False),
    "logit_scale": Form(VECTORS, (), optional=True),
    "identity": Form(TEXT, (), optional=True),
    "revision": Form(TEXT + WHOLE, (), optional=True),
}
IMAGES = {name: FORMS[name] for name in ("embeddings", "paths", "sha256")}


class FileTeacher:
    """A teacher that looks embeddings up in a .npz or Parquet file.

    A .npz has ``embeddings`` [N, D] with ``paths`` [N] (relative to the data folder) or ``sha256`` [N] (hexadecimal),
    ``texts`` [M] with ``text_embeddings`` [M, D], and optionally the scalars ``logit_scale``, ``identity`` and
    ``revision``. A Parquet file has a column ``embedding`` (list of floats) and the columns ``path`` or ``sha256`` and
    ``text``, one of them filled in each row; its schema's metadata may contain the same scalars.

    Args:
        price: price of the queries, to simulate a vendor that charges.

    Raises:
        TeacherError: if the file cannot be read or is incomplete.
        MissingExtraError: if the file is Parquet and pyarrow is not installed.
    """

    def __init__(self, path: str | Path, price: Price | None = None) -> None:
        self.path = Path(path)
        images, (text_keys, self._text_vectors), extra = _read(self.path)
        self._images = None if isinstance(images, int) else _by_key(*images)
        self._texts = {key: row for row, key in enumerate(text_keys)}
        self._bound: list[tuple[Digests, Sequence[str]]] = []
        self._paths: dict[bytes, str] = {}
        count = images if self._images is None else len(self._images[0])
        if not self._texts or not count:
            raise TeacherError(
                f"{self.path} cannot be used as a teacher.",
                expected="images and texts of the same dimension",
                found=f"{count} images, {len(self._texts)} texts",
                next_step="add them to the file",
            )
        self._digest = file_digest(self.path)
        self._card = TeacherCard(
            identity=str(extra.get("identity", f"file:{self.path.name}")),
            revision=str(extra.get("revision", self._digest[:16])),
            dimension=self._text_vectors.shape[1],
            logit_scale=_scale(self.path, extra.get("logit_scale", 100.0)),
            price=price or Price(),
            batch_size=256,
        )

    def bind(self, paths: Sequence[str], digests: Digests) -> None:
        """Set the path of each image, so that embeddings can be looked up by path.

        Args:
            paths: paths of N images, relative to the data folder.
        """
        self._bound.append((digests, paths))

    def describe(self) -> TeacherCard:
        """See `Teacher.describe`. Without a ``logit_scale`` in the file, it is 100, as in CLIP."""
        return self._card

    def embed_images(self, images: list[bytes]) -> Embeddings:
        """See `Teacher.embed_images`. Each image is looked up by the SHA-256 of its bytes, then by its path."""
        rows_by_key, embeddings = self._images = self._images or self._read_images()
        while self._bound:
            digests, paths = self._bound.pop(0)
            self._paths.update(zip(keys_of(digests), paths, strict=True))
        rows = []
        for data in images:
            digest = hashlib.sha256(data).digest()
            path = self._paths.get(digest, "")
            row = rows_by_key.get(digest.hex(), rows_by_key.get(path))
            if row is None:
                raise self._lacks(f"image {path or digest.hex()}", rows_by_key)
            rows.append(row)
        return embeddings[rows]

    def embed_texts(self, texts: list[str]) -> Embeddings:
        """See `Teacher.embed_texts`."""
        for text in texts:
            if text not in self._texts:
                raise self._lacks(f"text '{text}'", self._texts)
        return unit_rows(self._text_vectors[[self._texts[text] for text in texts]])

    def _read_images(self) -> Images:
        """Read the images of a .npz, which a quote does not need."""
        with _explaining(self.path):
            file = read_arrays(self.path, IMAGES)
            images = _by_key(_keys(file).tolist(), file["embeddings"].astype(np.float32, copy=False))
            digest = file_digest(self.path)
        if digest != self._digest:
            step = "run the command again"
            expected = "the content that it had when the command started"
            raise TeacherError(f"{self.path} changed.", expected=expected, found="other content", next_step=step)
        return images

    def _lacks(self, what: str, has: Mapping[str, object]) -> TeacherError:
        return TeacherError(
            f"{self.path} has no embedding of {what}.",
            expected="an embedding of every image and prompt of the dataset",
            found=f"{len(has)} others, e.g. '{next(iter(has))}'",
            next_step="add it to the file; --prompts sets the prompts, and paths are relative to the data folder",
        )


def _scale(path: Path, value: Any) -> float:
    try:
        return number(value, "logit_scale", 1e-9, MAX_LOGIT_SCALE)
    except ValueError as error:
        step = "correct it in the file, or remove it to use 100, as in CLIP"
        raise TeacherError(
            f"{path} cannot be used as a teacher.", expected="a logit_scale above 0", found=str(error), next_step=step
        ) from error


Images = tuple[dict[str, int], Embeddings]  # rows of the embeddings by key
Content = tuple[Rows | int, Rows, Mapping[str, Any]]  # images, or their number if they are read later; texts; scalars


def ensure_file(path: Path) -> None:
    """Check the name of a file of embeddings without reading it.

    Raises:
        TeacherError: if it is missing, or has another suffix.
    """
    if not path.is_file() or path.suffix not in (".npz", ".parquet"):
        found = "no such file" if not path.is_file() else f"a file with the suffix {path.suffix or '(none)'}"
        step = "check the path after file:"
        raise TeacherError(
            f"{path} cannot be used as a teacher.", expected="a .npz or .parquet file", found=found, next_step=step
        )


def _read(path: Path) -> Content:
    ensure_file(path)
    with _explaining(path):
        return read_parquet(path) if path.suffix == ".parquet" else _read_npz(path)


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Convert exceptions while a file is read to errors that name the file and what it should contain."""
    expected = PARQUET if path.suffix == ".parquet" else NPZ
    try:
        yield
    except KeyError as error:
        step = "add it to the file"
        raise TeacherError(
            f"{path} lacks {error}.", expected=expected, found="other content", next_step=step
        ) from error
    except (OSError, ValueError, TypeError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        found, step = " ".join(str(error).split())[:300], "write the file again"
        raise TeacherError(f"{path} cannot be read.", expected=expected, found=found, next_step=step) from error


def _read_npz(path: Path) -> Content:
    file = read_arrays(path, FORMS, later=["embeddings"])
    texts = file["texts"].tolist(), file["text_embeddings"].astype(np.float32, copy=False)
    return len(_keys(file)), texts, {name: file[name].item() for name in SCALARS if name in file}


def _keys(file: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    return file["sha256"] if "sha256" in file else file["paths"]


def _by_key(keys: Sequence[str], embeddings: Embeddings) -> Images:
    return {key.lower() if DIGEST.fullmatch(key) else key: row for row, key in enumerate(keys)}, embeddings


def from_name(rest: str, price: Price | None, device: str | None) -> FileTeacher:
    """Open the teacher; see `vl2v.teacher.registry.Factory`."""
    return FileTeacher(rest, price)
