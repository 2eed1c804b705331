"""Fixed, seeded views of an image, for several queries per image."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vl2v.data.images import ImageDataset, ImageFile
from vl2v.data.pixels import Digests, PixelCache
from vl2v.data.scan import FileIndex
from vl2v.data.splits import Indices
from vl2v.progress import Progress
from vl2v_runtime.imaging import decode, square

MIN_AREA = 0.7  # minimum share of the image's area in a view, as in the paper's augmentation


@dataclass(frozen=True)
class View:
    """A view of an image file; see `view_bytes`."""

    file: ImageFile
    view: int
    seed: int

    def read(self) -> bytes:
        """Return the bytes of the view.

        Raises:
            DataError: if the file has changed since the scan.
        """
        return view_bytes(self.file.read(), self.file.digest, self.view, self.seed)


def view_bytes(data: bytes, digest: bytes, view: int, seed: int) -> bytes:
    """Return one view of an image as the bytes of a file.

    View 0 is the file itself. Other views are crops with a random position, size and aspect ratio, flipped with a
    probability of 0.5, as PNG. A view only depends on the image, its number and the seed.

    Args:
        digest: SHA-256 of the file.
        view: number of the view, at least 0.
    """
    if view == 0:
        return data
    image = decode(data)
    generator = np.random.default_rng([seed, view, int.from_bytes(digest[:8], "big")])
    area, ratio = generator.uniform(MIN_AREA, 1), np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3)))
    width = min(image.width, max(1, round(np.sqrt(image.width * image.height * area * ratio))))
    height = min(image.height, max(1, round(np.sqrt(image.width * image.height * area / ratio))))
    left, top = generator.integers(image.width - width + 1), generator.integers(image.height - height + 1)
    cropped = image.crop((int(left), int(top), int(left) + width, int(top) + height))
    if generator.random() < 0.5:
        cropped = cropped.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    out = io.BytesIO()
    cropped.save(out, "PNG")
    return out.getvalue()


def make_views(
    dataset: ImageDataset, rows: Indices, views: int, seed: int, index: FileIndex, cache: PixelCache, progress: Progress
) -> Digests:
    """Create the views of images that do not exist yet, and cache their pixels. Return [N, views, 32], their SHA-256.

    Args:
        views: number of views per image, including the image itself.
        index: records the digest of each view.
    """
    digests = np.empty((len(rows), views, 32), np.uint8)
    digests[:, 0] = dataset.digests[rows]
    if views == 1:
        return digests
    with progress.stage("making views", len(rows)) as advance:
        for i, row in enumerate(rows):
            source = dataset.digests[row].tobytes()
            for view in range(1, views):
                view_digest = index.find_view(source, view, seed)
                if view_digest is None or not cache.known(view_digest):
                    data = view_bytes(dataset.read(int(row)), source, view, seed)
                    view_digest = view_digest or hashlib.sha256(data).digest()
                    cache.add([(view_digest, square(decode(data), cache.size, cache.fit))])
                    index.note_view(source, view, seed, view_digest)
                digests[i, view] = np.frombuffer(view_digest, np.uint8)
            advance(1)
    cache.seal()
    return digests
