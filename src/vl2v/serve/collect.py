"""Make a gallery: select training images, their embeddings and thumbnails."""

from __future__ import annotations

import numpy as np

from vl2v.config import RunConfig
from vl2v.data.images import Task
from vl2v.data.scan import FileIndex
from vl2v.data.splits import Indices
from vl2v.errors import DataError
from vl2v.locations import StoragePaths
from vl2v.planning.prepare import list_folder, read_task
from vl2v.planning.split import split_task
from vl2v.progress import Progress
from vl2v.serve.gallery import Gallery, origin_of
from vl2v_runtime import Model
from vl2v_runtime.imaging import decode, small_jpeg, square
from vl2v_runtime.names import printable

MOST = 2000
SIDE, QUALITY = 96, 80  # of a small picture: pixels of its longer side, and the JPEG's
CHUNK = 32
NO_LABEL = "no label"  # caption of an image without one


def build(config: RunConfig, model: Model, places: StoragePaths, progress: Progress) -> Gallery:
    """Make the gallery of a run from its source domains' training images.

    Args:
        config: the run's settings.
        model: its exported student, with embeddings.
        places: where it is kept which files were read before.
        progress: told of the scan and of each image.

    Raises:
        DataError: if the images are not there any more, cannot be read, or are others than the run's.
    """
    index = FileIndex(places.cache / "files.sqlite")
    try:
        labelled = config.data.model_copy(update={"unlabelled": None})
        task, _ = read_task(list_folder(config.data, begun=True), labelled, index, None, progress)
    finally:
        index.close()
    made = model.metadata.provenance
    if (made.get("data") or {}).get("digest") != task.digest():
        found = f"others in {task.root}"
        raise DataError("The training images have changed since the run.", expected="the run's own", found=found)
    rows = sample(task, split_task(task, config.data, config.seed).training, config.seed)
    embeddings, pictures = [], []
    with progress.stage("making the gallery", len(rows)) as advance:
        for start in range(0, len(rows), CHUNK):
            images = [decode(task.read(int(row))) for row in rows[start : start + CHUNK]]
            pixels = np.stack([square(image, model.size) for image in images])
            embedding = model.run(model.normalise(pixels))[1]
            assert embedding is not None
            embeddings.append(embedding)
            pictures += [small_jpeg(image, SIDE, QUALITY) for image in images]
            advance(len(images))
    names, domains = task.names, task.domains
    return Gallery(
        origin_of(model),
        np.concatenate(embeddings),
        [names[label] if (label := task.labels[row]) >= 0 else NO_LABEL for row in rows],
        [domains[task.domain_of[row]] for row in rows],
        [printable(task.paths[row]) for row in rows],
        pictures,
    )


def sample(task: Task, kept: dict[str, Indices], seed: int, most: int = MOST) -> Indices:
    """Choose training images: as many of each class in each domain as there are and fit, by a seed.

    Args:
        task: the images.
        kept: positions of the training images by source domain.
        seed: the run's.
        most: how many at most.

    Returns:
        Positions in the task, ascending.
    """
    generator = np.random.default_rng([seed, len(task)])
    cells = [
        generator.permutation(rows[task.labels[rows] == label])
        for rows in kept.values()
        for label in np.unique(task.labels[rows])
    ]
    chosen: list[int] = []
    for turn in range(max(len(cell) for cell in cells)):
        chosen += [int(cell[turn]) for cell in cells if turn < len(cell)]
        if len(chosen) >= most:
            break
    return np.sort(np.array(chosen[:most], np.int64))
