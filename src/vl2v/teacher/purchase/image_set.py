"""The images of a purchase, and the error for those that the vendor refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vl2v.data.images import ImageFile, known_as
from vl2v.data.views import View
from vl2v.errors import TeacherError
from vl2v.teacher.purchase.store import Digests

LISTED = 5  # maximum number of images in an error message


Source = ImageFile | View
"""An image that another process can read, as only its path and its content hash are sent."""


@dataclass(frozen=True)
class ImageSet:
    """The images of a purchase.

    Attributes:
        digests: [N, 32] uint8, the SHA-256 of each image; duplicates are bought once.
        read: returns the bytes to send for image i.
        purpose: purpose of the queries in the ledger.
        view: number of the view that `read` returns.
        source: returns image i as a value that knows its path and that workers of a cluster can read; None if there is
            no such value.
    """

    digests: Digests
    read: Callable[[int], bytes]
    purpose: str
    view: int = 0
    source: Callable[[int], Source] | None = None

    @classmethod
    def of(cls, digests: Digests, source: Callable[[int], Source], purpose: str, view: int = 0) -> ImageSet:
        """Return images that `source` returns one by one."""
        return cls(digests, lambda i: source(i).read(), purpose, view, source)

    def named(self, indices: Sequence[int]) -> list[str]:
        """Return the names by which the user knows images, or else the start of their SHA-256."""
        if self.source is None:
            return [f"SHA-256 {self.digests[i].tobytes().hex()[:16]}" for i in indices]
        sources = [self.source(i) for i in indices]
        files = [source.file if isinstance(source, View) else source for source in sources]
        names = dict[tuple[Path | None, str], str]()
        for table in dict.fromkeys(file.imported for file in files):
            paths = [file.name for file in files if file.imported == table]
            names |= {(table, path): name for path, name in zip(paths, known_as(table, paths), strict=True)}
        return [names[file.imported, file.name] for file in files]


def not_embedded(teacher: str, names: Sequence[str], why: str, repeat: bool = False) -> TeacherError:
    """Return the error for images that have no embedding after all others were saved.

    Args:
        names: names of the images, as --drop accepts them.
        why: the vendor's message about the first one.
        repeat: whether a later attempt may succeed.
    """
    more = f" and {len(names) - LISTED:,} others" if len(names) > LISTED else ""
    step = (
        "try again later"
        if repeat
        else "remove these images, or pass a CSV file with these names in a column path to --drop"
    )
    return TeacherError(
        f"{teacher} did not embed {len(names):,} image{'' if len(names) == 1 else 's'}.",
        expected="an embedding of every image",
        found=f"{why} ({', '.join(names[:LISTED])}{more})",
        next_step=f"{step}; embeddings that were bought are saved, and refused images are not counted as spent",
    )
