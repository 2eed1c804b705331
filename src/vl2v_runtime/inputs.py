"""One image or many, named in whatever way: paths, folders, bytes, streams, images already open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from PIL import Image

from vl2v_runtime.imaging import SUFFIXES, ImageLike


@runtime_checkable
class Stream(Protocol):
    """An open binary file, or anything else whose `read` gives bytes."""

    def read(self) -> bytes:
        """All bytes from here to the end."""
        ...


Input = ImageLike | Stream  # a path may be a folder


def images_of(folder: Path) -> list[Path]:
    """The images of a folder at any depth, by their suffix, in sorted order."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def each(images: Input | Iterable[Input]) -> Iterator[ImageLike]:
    """Single images in the order given; a folder becomes its images, a stream its bytes."""
    one = isinstance(images, str | Path | bytes | Image.Image | Stream) or not isinstance(images, Iterable)
    for image in (images,) if one else images:  # type: ignore[union-attr]
        if isinstance(image, str | Path) and Path(image).is_dir():
            yield from images_of(Path(image))
        elif isinstance(image, str | Path | bytes | Image.Image):
            yield image
        elif isinstance(image, Stream):
            yield image.read()
        else:
            raise TypeError(f"a path, bytes, a binary stream or a PIL image is an image, not {type(image).__name__}")
