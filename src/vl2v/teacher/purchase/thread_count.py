"""Number of threads for a local teacher; see `vl2v.threads`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from PIL import Image

from vl2v.teacher.base import Teacher
from vl2v.threads import choose, using_threads

FEW = 8  # images in one measurement
SIDE = 256  # side of a generated test image, in pixels


@contextmanager
def with_best_threads(
    teacher: Teacher, read: Callable[[int], bytes], total: int, threads: int | None = None
) -> Iterator[None]:
    """Set the number of threads for a teacher that runs on this CPU until the block ends.

    Args:
        teacher: any teacher; one that does not run on this CPU is not measured.
        read: returns the bytes of image i, for i from 0 to `total` - 1.
        total: number of images that will be embedded.
        threads: number of threads; None measures the best number.
    """
    if threads is None and total and on_cpu(teacher):
        sample = [read(i) for i in range(min(FEW, total))]
        threads = choose(lambda count: teacher.embed_images(sample[:count]), len(sample), total)
    with using_threads(threads):
        yield


def serving_threads(teacher: Teacher) -> int | None:
    """Measure the best number of threads for a long-running teacher; None if it does not run on this CPU."""
    if not on_cpu(teacher):
        return None
    file = io.BytesIO()
    Image.linear_gradient("L").resize((SIDE, SIDE)).convert("RGB").save(file, "PNG")
    images = [file.getvalue()] * FEW
    return choose(lambda count: teacher.embed_images(images[:count]), FEW, 3600 * FEW)


def on_cpu(teacher: Teacher) -> bool:
    """Whether a teacher is known to run on the CPU of this machine, where measurements are free."""
    return str(getattr(teacher, "local_device", "")) == "cpu"
