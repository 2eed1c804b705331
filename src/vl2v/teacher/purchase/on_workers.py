"""Embed images with a free local teacher on the workers of a cluster. Only the driver writes to the store."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from vl2v.cluster.connection import Share
from vl2v.cluster.pool import WorkerPool, other_files
from vl2v.errors import DataError, TeacherError
from vl2v.teacher.base import Embeddings, Teacher, TeacherCard
from vl2v.teacher.purchase.image_set import Source


@dataclass(frozen=True)
class Embedder:
    """Embeds batches on a worker, which opens the teacher once.

    Attributes:
        spec: name of the teacher.
        card: its description on the driver.
        device: device of the teacher on the worker.
        threads: number of CPU threads of the teacher on the worker.
    """

    spec: str
    card: TeacherCard
    device: str
    threads: int

    @classmethod
    def of(cls, spec: str, card: TeacherCard, share: Share, threads: int | None) -> Embedder:
        """Return the embedder for workers with some resources; by default each core is a thread."""
        device = "cuda" if share.gpus else "cpu"
        return cls(spec, card, device, threads or max(1, math.floor(share.cpus)))

    def __call__(self, batch: tuple[Sequence[int], Sequence[Source]]) -> Embeddings | DataError:
        """Return the embeddings of the images of a batch, or why an image cannot be read on this machine."""
        try:
            data = [source.read() for source in batch[1]]
        except DataError as error:
            return error
        return _teacher(self).embed_images(data)


@cache
def _teacher(embedder: Embedder) -> Teacher:
    """Open the teacher in this process, and check that it is that of the driver."""
    import torch

    from vl2v.teacher.registry import open_teacher

    torch.set_num_threads(embedder.threads)
    teacher = open_teacher(embedder.spec, device=embedder.device)
    if (card := teacher.describe()) != embedder.card:
        raise TeacherError(
            f"The machine {platform.node()} has another version of {embedder.card.identity}.",
            expected=f"{embedder.card.identity}, revision {embedder.card.revision}",
            found=f"{card.identity}, revision {card.revision}",
            next_step="install the same packages and model files there or remove that machine from the cluster",
        )
    return teacher


def embedded(
    pool: WorkerPool, embedder: Embedder, todo: Sequence[int], source: Callable[[int], Source]
) -> Iterator[tuple[list[int], Any]]:
    """Embed images in the batches in which one process would query them.

    Args:
        pool: the workers.
        embedder: opens the teacher.
        todo: indices of the images.
        source: returns image i.

    Yields:
        (indices of a batch, response of the teacher), in the order in which the batches are finished.

    Raises:
        DataError: if an image has changed.
        ConfigError: if this machine is too small for a worker of a local cluster.
        RunError: if a machine does not see the images, or has another teacher.
    """
    size = embedder.card.batch_size
    if todo:
        pool.check_worker_fits()
    starts = range(0, len(todo), size)
    batches = ((part := list(todo[s : s + size]), [source(i) for i in part]) for s in starts)
    following = partial(next, batches, None)
    for (part, sources), answer, host in pool.map(embedder, following, len(starts), pool.use.share):
        if isinstance(answer, DataError):
            for image in sources:
                image.read()  # raises if it has changed here as well
            raise other_files(host, answer.problem.removesuffix(" changed."), answer.found)
        yield part, answer
