"""Near-duplicates that a teacher's embeddings find in PACS: known copies, and the pairs of the images as they are.

    python benchmarks/near_duplicates.py --scratch /tmp/near-duplicates

The images and the simulated vendor come from the maintainers' folder (see `common.shared`). 100 images of each domain
are copied with a change. For each change, the script states how many copies have a cosine of at least 0.98 with their
original, have the original among their nearest neighbours, and are found by the embeddings and by the perceptual hash.
Then each image is compared with its nearest neighbours. All pairs that are reported are drawn in `pairs.png` in the
scratch folder: which of them are no copies must be judged by eye.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance

from common import circumstances, keep, need_shared, scratch_option
from pacs_dataset import SimulatedVendor
from vl2v.data import near_duplicates as near
from vl2v.data.alignment import CORRELATION, aligned_correlations
from vl2v_runtime.imaging import decode, square

SIZE, COPIED, COSINES = 128, 100, (0.95, 0.98, 0.99)
Change = Callable[[Image.Image], Image.Image]


def cropped(share: float, corner: bool = False) -> Change:
    """Keep a share of both sides, in the middle or in the upper left corner."""

    def change(image: Image.Image) -> Image.Image:
        width, height = (round(side * share) for side in image.size)
        left, top = (0, 0) if corner else ((image.width - width) // 2, (image.height - height) // 2)
        return image.crop((left, top, left + width, top + height))

    return change


def reencoded(quality: int, divisor: int = 1) -> Change:
    """Reduce an image, and compress it as JPEG."""

    def change(image: Image.Image) -> Image.Image:
        data = io.BytesIO()
        image.resize((image.width // divisor, image.height // divisor)).save(data, "JPEG", quality=quality)
        return Image.open(data).convert("RGB")

    return change


def mirrored(image: Image.Image) -> Image.Image:
    """Exchange left and right."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def marked(image: Image.Image) -> Image.Image:
    """Draw a bar and a line of text."""
    image, (width, height) = image.copy(), image.size
    draw = ImageDraw.Draw(image)
    draw.text((0.3 * width, 0.8 * height), "(c) photos.example", fill=(255, 255, 255))
    draw.rectangle((0.3 * width, 0.9 * height, 0.7 * width, 0.92 * height), fill=(200, 0, 0))
    return image


CHANGES: dict[str, Change] = {
    "JPEG, quality 40": reencoded(40),
    "half the size": reencoded(90, 2),
    "a third of the size": reencoded(85, 3),
    "brighter by 30%": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "a bar and a text": marked,
    "95% of each side": cropped(0.95),
    "90% of each side": cropped(0.9),
    "90% of each side, a corner": cropped(0.9, corner=True),
    "80% of each side": cropped(0.8),
    "mirrored": mirrored,
    "mirrored, 90% of each side": lambda image: cropped(0.9)(mirrored(image)),
}


def of_copies(vendor: SimulatedVendor, pixels: NDArray[np.uint8], files: list[Path], chosen: NDArray[np.int64],
              embeddings: NDArray[np.float32]) -> dict[str, dict[str, float]]:  # fmt: skip
    """Shares of the copies of chosen images that are found, by change."""
    figures = {}
    for name, change in CHANGES.items():
        data = []
        for row in chosen:
            out = io.BytesIO()
            change(Image.open(files[row]).convert("RGB")).save(out, "PNG")
            data.append(out.getvalue())
        copies = vendor.embed_images(data)
        both = np.concatenate([pixels, np.stack([square(decode(part), SIZE) for part in data])])
        copy_rows = np.arange(len(pixels), len(both))
        pairs, _ = near.neighbours(
            near.EmbeddingRows(copies, np.arange(len(copies))),
            near.EmbeddingRows(embeddings, np.arange(len(embeddings))),
        )
        nearest = np.zeros(len(copy_rows), bool)
        nearest[pairs[pairs[:, 1] == chosen[pairs[:, 0]], 0]] = True
        aligned = aligned_correlations(both, copy_rows, chosen) >= CORRELATION
        hashed = near.near_duplicates(both, copy_rows, np.arange(len(pixels))).pairs
        by_hash = np.mean(np.isin(np.arange(len(copy_rows)), hashed[:, 0]))
        cosines = (copies * embeddings[chosen]).sum(1)
        figures[name] = {
            "cosine of 0.98": float((cosines >= 0.98).mean()),
            "among the nearest": float(nearest.mean()),
            "found by embeddings": float((nearest & aligned).mean()),
            "found by the hash": float(by_hash),
        }
        print(name, figures[name], flush=True)
    return figures


def of_others(
    pixels: NDArray[np.uint8], files: list[Path], embeddings: NDArray[np.float32], sheet: Path
) -> dict[str, Any]:
    """Number of images with a partner by cosine alone, and of pairs that are reported; draws these pairs."""
    best = np.full(len(embeddings), -1.0)
    pairs = []
    contents = np.unique([file.read_bytes() for file in files], return_inverse=True)[1]
    for start in range(0, len(embeddings), 512):
        cosines = embeddings[start : start + 512] @ embeddings.T
        cosines[contents[start : start + 512, None] == contents] = -1  # the image itself, and copies of its file
        best[start : start + 512] = cosines.max(1)
        columns = np.argpartition(cosines, -near.PARTNERS, axis=1)[:, -near.PARTNERS :]
        rows = np.repeat(np.arange(start, start + len(cosines)), near.PARTNERS)
        chosen = np.take_along_axis(cosines, columns, 1).ravel() >= near.COSINE
        pairs.append(np.sort(np.stack([rows, columns.ravel()], 1)[chosen], axis=1))
    distinct = np.unique(np.concatenate(pairs), axis=0)
    seconds = time.process_time()
    alike = aligned_correlations(pixels, distinct[:, 0], distinct[:, 1])
    seconds = time.process_time() - seconds
    order = np.argsort(-alike)
    order = order[alike[order] >= CORRELATION]
    page = Image.new("RGB", (8 * 220, (len(order) + 7) // 8 * 100), "white")
    for i, pair in enumerate(order):
        for side in (0, 1):
            picture = Image.open(files[distinct[pair, side]]).convert("RGB").resize((96, 96))
            page.paste(picture, (i % 8 * 220 + side * 100, i // 8 * 100))
    page.save(sheet)
    return {
        "images": len(embeddings),
        "images with a neighbour of cosine": {str(least): int((best >= least).sum()) for least in COSINES},
        "pairs compared": len(distinct),
        "pairs reported": len(order),
        "milliseconds per pair": 1000 * seconds / len(distinct),
    }


def main() -> None:
    """Measure, and save the figures."""
    scratch, folder = scratch_option(__doc__), need_shared()
    scratch.mkdir(parents=True, exist_ok=True)
    saved = np.load(folder / "teacher" / "pacs_image_embeddings.npz")
    files = [folder / "data" / path for path in saved["paths"].tolist()]
    embeddings = saved["embeddings"].astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    pixels = np.stack([square(decode(file.read_bytes()), SIZE) for file in files])
    domains, generator = np.array([file.parts[-3] for file in files]), np.random.default_rng(0)
    chosen = np.concatenate(
        [generator.choice(np.flatnonzero(domains == domain), COPIED, replace=False) for domain in np.unique(domains)]
    )
    figures = {
        "copies": of_copies(SimulatedVendor(folder), pixels, files, chosen, embeddings),
        "as they are": of_others(pixels, files, embeddings, scratch / "pairs.png"),
    }
    keep("near_duplicates", figures | {"circumstances": circumstances()})


if __name__ == "__main__":
    main()
