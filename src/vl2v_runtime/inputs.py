"""Inputs of one or several images: paths, folders, bytes, streams, open images."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from PIL import Image

from vl2v_runtime.imaging import ImageLike
from vl2v_runtime.names import shown
from vl2v_runtime.walking import summary, walk


@runtime_checkable
class Stream(Protocol):
    """An open binary file, or another object whose `read` returns bytes."""

    def read(self) -> bytes:
        """Return all remaining bytes."""
        ...


T = TypeVar("T")
Input = ImageLike | Stream  # a path may be a folder


def images_of(folder: Path) -> list[Path]:
    """Return the images of a folder at any depth, sorted, as the scan before training finds them.

    A warning reports skipped files.
    """
    images, left_out = search(folder)
    if left_out:
        warnings.warn(f"{shown(folder)}: {left_out}", stacklevel=2)
    return images


def search(folder: Path) -> tuple[list[Path], str]:
    """Return the images of a folder at any depth, sorted, and a sentence about skipped files, which may be empty."""
    tree = walk(folder)
    return sorted(folder / path for path in tree.images()), summary(tree.all_skipped())


def each(images: Input | Iterable[Input]) -> Iterator[ImageLike]:
    """Iterate over single images in the given order. A folder yields its images, a stream its bytes."""
    one = isinstance(images, str | Path | bytes | Image.Image | Stream) or not isinstance(images, Iterable)
    for image in (images,) if one else images:  # type: ignore[union-attr]
        if isinstance(image, str | Path) and Path(image).is_dir():
            yield from images_of(Path(image))
        elif isinstance(image, Image.Image):
            with suppress(Exception):  # decoding it raises the same error
                image.load()  # here, once: two threads must not load one image at the same time
            yield image
        elif isinstance(image, str | Path | bytes):
            yield image
        elif isinstance(image, Stream):
            yield image.read()
        else:
            raise TypeError(f"expected a path, bytes, a binary stream or a PIL image, found {type(image).__name__}")


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Iterate over lists of `size` items, the last of which may be shorter.

    Raises:
        ValueError: if the size is below 1.
    """
    if size < 1:
        raise ValueError(f"expected a batch of at least 1 image, found {size}")
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def ahead(work: Callable[[ImageLike], T], images: Iterator[ImageLike], count: int) -> Iterator[T]:
    """Iterate over results in order, computed ahead in threads: decoding and resizing release the GIL."""
    start = list(islice(images, 2))
    if len(start) < 2:  # one image is not worth a pool
        yield from map(work, start)
        return
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for image in chain(start, images):
                waiting.append(pool.submit(work, image))
                if len(waiting) >= count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:  # after an unreadable image, or when the consumer stops
                future.cancel()
