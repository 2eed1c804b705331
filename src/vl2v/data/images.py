"""A scanned dataset: images with labels, domains and class names."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v.data.pixels import Digests
from vl2v.data.scan import Fault
from vl2v.data.tables.imported import names_of_paths
from vl2v.errors import DataError
from vl2v_runtime.imaging import UnreadableImageError, read_file
from vl2v_runtime.names import shown


@dataclass(frozen=True)
class ImageFile:
    """A scanned image file.

    Attributes:
        path: absolute path.
        digest: SHA-256 of its bytes.
        name: path in its dataset.
        imported: the table of the dataset, if it was imported from a dataset of another tool.
    """

    path: Path
    digest: bytes
    name: str
    imported: Path | None = None

    def read(self) -> bytes:
        """Return the bytes of the file.

        Raises:
            DataError: if the file has changed since the scan.
        """
        try:
            data = read_file(self.path)
        except (OSError, UnreadableImageError):
            data = b""
        if hashlib.sha256(data).digest() != self.digest:
            step = "run the command again to rescan it"
            raise DataError(
                f"{shown(self.path)} changed.",
                expected="the content that was read before",
                found="other bytes" if data else "no such file",
                next_step=step,
            )
        return data


@dataclass(frozen=True)
class ImageDataset:
    """Scanned images, in the order of domain, class and file name.

    Attributes:
        root: folder that `paths` are relative to.
        digests: [N, 32] uint8, SHA-256 of each file.
        labels: [N] int64, indices in `phrases`; -1 for an image without a label.
        domain_of: [N] int64, indices in `domains`.
        domains: names of the domains in alphabetical order.
        folders: names of the class folders in alphabetical order.
        phrases: description of each class in prompts.
        warnings: conditions that the user should know about.
        source: description of the folder or table that lists the images.
        columns: roles and names of the columns of a table that were used; empty for a folder.
        parts: [N] int8, the split that the data state: `TRAIN`, `VALIDATION` or `TEST`; None if they state none.
        groups: [N] int64, group of each image; a split does not divide a group. None without groups.
        imported: the table, if it was imported from a dataset of another tool.
    """

    root: Path
    paths: list[str]
    digests: Digests
    labels: NDArray[np.int64]
    domain_of: NDArray[np.int64]
    domains: tuple[str, ...]
    folders: tuple[str, ...]
    phrases: tuple[str, ...]
    skipped: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()
    source: Path | None = None
    columns: tuple[tuple[str, str], ...] = ()
    parts: NDArray[np.int8] | None = None
    groups: NDArray[np.int64] | None = None
    imported: Path | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes: names of their folders, with underscores as spaces."""
        return tuple(spaced(folder) for folder in self.folders)

    def known_as(self, rows: Sequence[int]) -> list[str]:
        """Return the names by which the user knows images: their paths, or their names in an imported dataset."""
        return known_as(self.imported, [self.paths[row] for row in rows])

    def read(self, row: int) -> bytes:
        """Return the bytes of an image file.

        Raises:
            DataError: if the file has changed since the scan.
        """
        return self.file(row).read()

    def file(self, row: int) -> ImageFile:
        """Return an image file, which other processes can read as well."""
        path = self.paths[row]
        return ImageFile((self.root / path).absolute(), self.digests[row].tobytes(), path, self.imported)

    def rows_of(self, domain: str) -> NDArray[np.int64]:
        """Return the rows of the images of a domain, ascending."""
        return np.flatnonzero(self.domain_of == self.domains.index(domain))

    def take(self, rows: NDArray[np.int64]) -> ImageDataset:
        """Return a dataset with some of the rows, in their order, and the same domains and classes."""
        return replace(
            self,
            paths=[self.paths[row] for row in rows],
            digests=self.digests[rows],
            labels=self.labels[rows],
            domain_of=self.domain_of[rows],
            parts=None if self.parts is None else self.parts[rows],
            groups=None if self.groups is None else self.groups[rows],
        )

    def digest(self) -> str:
        """Return a SHA-256 of all paths, labels, domains, contents, splits and groups."""
        total = hashlib.sha256(
            "\n".join([*self.domains, *self.folders, *self.phrases]).encode(errors="surrogateescape")
        )
        several = len(self.domains) > 1
        for path, digest, label, domain in zip(self.paths, self.digests, self.labels, self.domain_of, strict=True):
            total.update(f"{path}\0{label}\0".encode(errors="surrogateescape") + digest.tobytes())
            if several and not path.startswith(f"{self.domains[domain]}/"):  # only in a table
                total.update(f"{domain}\0".encode())
        for name, numbers in (("parts", self.parts), ("groups", self.groups)):
            if numbers is not None:
                total.update(name.encode() + numbers.tobytes())
        return total.hexdigest()


def known_as(imported: Path | None, paths: Sequence[str]) -> list[str]:
    """Return the names by which the user knows images; see `ImageDataset.known_as`."""
    names = names_of_paths(imported, paths) if imported else {}
    return [names.get(path, path) for path in paths]


def spaced(folder: str) -> str:
    """Return the name of a class folder with underscores and runs of spaces as one space."""
    return " ".join(folder.replace("_", " ").split()) or folder


def spelling(folder: str) -> str:
    """Return a key that is equal for spellings of a name that differ in case, spaces, underscores and hyphens."""
    text = unicodedata.normalize("NFKC", folder).casefold()
    return "".join(character for character in text if character not in "_- ")
