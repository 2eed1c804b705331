"""Training images to show next to a prediction: embeddings and thumbnails in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v.arrays import BYTES, FLOAT, TEXT, WHOLE, Form, read_arrays
from vl2v.errors import RunError
from vl2v.faults import UNREADABLE
from vl2v.writing import replacing
from vl2v_runtime import Model

FORMAT = 1
NAME = "gallery.npz"
FORMS = {
    "format": Form(WHOLE, ()),
    "origin": Form(TEXT, ()),
    "embeddings": Form(FLOAT, ("N", "D")),
    **{name: Form(TEXT, ("N",)) for name in ("label", "domain", "path")},
    "pictures": Form(BYTES, ("bytes",)),
    "ends": Form(WHOLE, ("N",)),
}


@dataclass(frozen=True)
class Neighbour:
    """A training image near an image that was asked about.

    Attributes:
        row: its place in the gallery.
        similarity: cosine of the two embeddings, in [-1, 1].
        label: its class.
        domain: its domain.
        path: its file, relative to the data's root.
    """

    row: int
    similarity: float
    label: str
    domain: str
    path: str


def origin_of(model: Model) -> str:
    """What tells a student from every other: when it was made, and from what; changed classes change nothing."""
    made = model.metadata.provenance
    return json.dumps([made.get("made_at"), made.get("seed"), (made.get("data") or {}).get("digest"), model.dimension])


class Gallery:
    """Some of the images that a student was trained on.

    Args:
        origin: of the student, so that a gallery of another one is noticed; see `origin_of`.
        embeddings: [N, D] floating, by the student, rows of length about one.
        labels: N class names.
        domains: N domain names.
        paths: N files, relative to the data's root.
        pictures: N small JPEG files.
    """

    def __init__(
        self,
        origin: str,
        embeddings: NDArray[np.floating],
        labels: Sequence[str],
        domains: Sequence[str],
        paths: Sequence[str],
        pictures: Sequence[bytes],
    ) -> None:
        self.origin = origin
        self.embeddings = np.asarray(embeddings, np.float32)
        self.labels, self.domains, self.paths = list(labels), list(domains), list(paths)
        self.pictures = list(pictures)

    def __len__(self) -> int:
        return len(self.paths)

    def nearest(self, embeddings: NDArray[np.float32], count: int) -> list[list[Neighbour]]:
        """The nearest training images of [B, D] embeddings of length one, nearest first, up to `count` for each."""
        close = embeddings @ self.embeddings.T
        count = min(count, len(self))
        some = np.argpartition(-close, count - 1, axis=1)[:, :count]
        return [
            [self._neighbour(int(i), float(row[i])) for i in chosen[np.argsort(-row[chosen], kind="stable")]]
            for row, chosen in zip(close, some, strict=True)
        ]

    def _neighbour(self, row: int, similarity: float) -> Neighbour:
        return Neighbour(row, similarity, self.labels[row], self.domains[row], self.paths[row])

    def save(self, path: Path) -> None:
        """Write one file; an older one is replaced at once."""
        ends = np.cumsum([len(picture) for picture in self.pictures], dtype=np.int64)
        with replacing(path) as fresh, fresh.open("wb") as file:
            np.savez(
                file,
                format=FORMAT,
                origin=self.origin,
                embeddings=self.embeddings.astype(np.float16),
                label=np.array(self.labels),
                domain=np.array(self.domains),
                path=np.array(self.paths),
                pictures=np.frombuffer(b"".join(self.pictures), np.uint8),
                ends=ends,
            )

    @classmethod
    def load(cls, path: Path) -> Gallery:
        """Read what `save` wrote.

        Raises:
            RunError: if it is broken or of another format.
        """
        try:
            return cls._of(read_arrays(path, FORMS))
        except (OSError, *UNREADABLE) as error:
            step = f"delete {path}; vl2v serve makes it again from the training images"
            raise RunError(
                f"{path} cannot be used.", expected="a gallery", found=str(error)[:200], next_step=step
            ) from error

    @classmethod
    def _of(cls, found: Mapping[str, NDArray[Any]]) -> Gallery:
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']}")
        data, ends = found["pictures"].tobytes(), [0, *found["ends"].tolist()]
        if ends != sorted(ends) or ends[-1] != len(data) or len(ends) == 1:
            raise ValueError("pictures that are cut at other places than they end")
        pictures = [data[a:b] for a, b in pairwise(ends)]
        labels, domains, paths = (found[key].tolist() for key in ("label", "domain", "path"))
        return cls(str(found["origin"]), found["embeddings"], labels, domains, paths, pictures)
