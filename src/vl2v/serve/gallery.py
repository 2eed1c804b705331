"""Training images to show next to a prediction: embeddings and thumbnails in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v.arrays import BYTES, FLOAT, TEXT, WHOLE, Form, read_arrays
from vl2v.errors import RunError
from vl2v.faults import UNREADABLE
from vl2v.origin import origin_of
from vl2v.serve.schemas import DIGITS, Neighbour
from vl2v.writing import atomic_write
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


def identity_of(model: Model) -> str:
    """Return the origin of a student, or a similar identifier of one without an origin. Classes do not change it."""
    provenance = model.metadata.provenance
    return origin_of(provenance) or json.dumps(
        [
            provenance.get("made_at"),
            provenance.get("seed"),
            (provenance.get("data") or {}).get("digest"),
            model.dimension,
        ]
    )


class Gallery:
    """A sample of the training images of a student.

    Args:
        origin: identifier of the student, to detect the gallery of another one; see `identity_of`.
        embeddings: [N, D] floating, embeddings of the student, with rows of length about one.
        paths: N paths, relative to the data folder.
        pictures: N thumbnails as JPEG files.
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
        """Return the most similar training images for each query, most similar first.

        Args:
            embeddings: [B, D] float32, rows of length one.
            count: maximum number of training images per query.
        """
        close = embeddings @ self.embeddings.T
        count = min(count, len(self))
        some = np.argpartition(-close, count - 1, axis=1)[:, :count]
        return [
            [self._near(i, row[i]) for i in indices[np.argsort(-row[indices], kind="stable")]]
            for row, indices in zip(close, some, strict=True)
        ]

    def _near(self, i: int, cosine: float) -> Neighbour:
        similarity, label, domain, path = round(float(cosine), DIGITS), self.labels[i], self.domains[i], self.paths[i]
        return Neighbour(picture=f"/v1/gallery/{i}", similarity=similarity, label=label, domain=domain, path=path)

    def save(self, path: Path) -> None:
        """Write the gallery to a file, atomically."""
        ends = np.cumsum([len(picture) for picture in self.pictures], dtype=np.int64)
        with atomic_write(path) as fresh, fresh.open("wb") as file:
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
        """Read a gallery from a file.

        Raises:
            RunError: if the file is damaged or has another format.
        """
        try:
            return cls._of(read_arrays(path, FORMS))
        except (OSError, *UNREADABLE) as error:
            step = f"delete {path}; vl2v serve makes it again from the training images"
            raise RunError(
                f"{path} cannot be used.", expected="a gallery", found=str(error)[:200], next_step=step
            ) from error

    @classmethod
    def _of(cls, arrays: Mapping[str, NDArray[Any]]) -> Gallery:
        if arrays["format"] != FORMAT:
            raise ValueError(f"format {arrays['format']}")
        data, ends = arrays["pictures"].tobytes(), [0, *arrays["ends"].tolist()]
        if ends != sorted(ends) or ends[-1] != len(data) or len(ends) == 1:
            raise ValueError("inconsistent lengths of the pictures")
        pictures = [data[a:b] for a, b in pairwise(ends)]
        labels, domains, paths = (arrays[key].tolist() for key in ("label", "domain", "path"))
        return cls(str(arrays["origin"]), arrays["embeddings"], labels, domains, paths, pictures)
