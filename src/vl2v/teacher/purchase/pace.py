"""Number of threads for a local teacher; see `vl2v.threads`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from PIL import Image

from vl2v.teacher.base import Teacher
from vl2v.threads import choose, computing

FEW = 8  # images that are tried at once
SIDE = 256  # pixels, of an image that is drawn to try with


@contextmanager
def asking(teacher: Teacher, read: Callable[[int], bytes], total: int, threads: int | None = None) -> Iterator[None]:
    """While open, a teacher that computes on this machine's CPU does so with the number of threads that suits it.

    Args:
        teacher: any; one that does not compute on this CPU is not tried.
        read: gives the bytes of its image i, for i from 0 to `total` - 1.
        total: how many images it will be asked about.
        threads: the number that the user states; None measures.
    """
    if threads is None and total and on_cpu(teacher):
        sample = [read(i) for i in range(min(FEW, total))]
        threads = choose(lambda count: teacher.embed_images(sample[:count]), len(sample), total)
    with computing(threads):
        yield


def serving_threads(teacher: Teacher) -> int | None:
    """The number of threads for a teacher that answers for hours; None for one that does not compute on this CPU."""
    if not on_cpu(teacher):
        return None
    file = io.BytesIO()
    Image.linear_gradient("L").resize((SIDE, SIDE)).convert("RGB").save(file, "PNG")
    images = [file.getvalue()] * FEW
    return choose(lambda count: teacher.embed_images(images[:count]), FEW, 3600 * FEW)


def on_cpu(teacher: Teacher) -> bool:
    """Whether a teacher's network is known to run on this machine's CPU, so that to try it costs nothing."""
    return str(getattr(teacher, "local_device", "")) == "cpu"
