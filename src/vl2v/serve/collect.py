"""Create a gallery: select training images, and compute their embeddings and thumbnails."""

from __future__ import annotations

import numpy as np

from vl2v.config import RunConfig
from vl2v.data.caches import open_index
from vl2v.data.images import ImageDataset
from vl2v.data.splits import Indices
from vl2v.errors import DataError
from vl2v.locations import StoragePaths
from vl2v.planning.prepare import list_folder, read_datasets
from vl2v.planning.split import split_of_student
from vl2v.progress import Progress
from vl2v.serve.gallery import Gallery, identity_of
from vl2v_runtime import Model
from vl2v_runtime.imaging import decode, small_jpeg, square
from vl2v_runtime.names import printable

MOST = 2000
SIDE, QUALITY = 96, 80  # of a thumbnail: longer side in pixels, and JPEG quality
CHUNK = 32
NO_LABEL = "no label"  # caption of an image without one


def build(config: RunConfig, model: Model, storage: StoragePaths, progress: Progress) -> Gallery:
    """Create the gallery of a run from the training images of its source domains.

    Args:
        model: exported student of the run, with embeddings.

    Raises:
        DataError: if the images are missing, unreadable, or differ from those of the run.
    """
    labelled_data = config.data.model_copy(update={"unlabelled": None})
    with open_index(storage.cache) as index:
        dataset, *_ = read_datasets(list_folder(config.data, layout_known=True), labelled_data, index, None, progress)
    split = split_of_student(dataset, model.metadata.provenance, config.data)
    if split is None:
        found = f"other images in {dataset.root}"
        problem, step = "The training images have changed since the run.", "restore them, or pass them with --data"
        raise DataError(problem, expected="the images of the run", found=found, next_step=step)
    rows = sample(dataset, split.training, config.seed)
    embeddings, pictures = [], []
    with progress.stage("making the gallery", len(rows)) as advance:
        for start in range(0, len(rows), CHUNK):
            images = [decode(dataset.read(int(row))) for row in rows[start : start + CHUNK]]
            pixels = np.stack([square(image, model.size, model.fit) for image in images])
            embedding = model.run(model.normalise(pixels))[1]
            assert embedding is not None
            embeddings.append(embedding)
            pictures += [small_jpeg(image, SIDE, QUALITY) for image in images]
            advance(len(images))
    names, domains = dataset.names, dataset.domains
    return Gallery(
        identity_of(model),
        np.concatenate(embeddings),
        [names[label] if (label := dataset.labels[row]) >= 0 else NO_LABEL for row in rows],
        [domains[dataset.domain_of[row]] for row in rows],
        [printable(name) for name in dataset.known_as(rows.tolist())],
        pictures,
    )


def sample(dataset: ImageDataset, training: dict[str, Indices], seed: int) -> Indices:
    """Return ascending indices of training images, balanced over the classes of each domain as far as possible.

    Args:
        training: indices of the training images by source domain.
    """
    generator = np.random.default_rng([seed, len(dataset)])
    cells = [
        generator.permutation(rows[dataset.labels[rows] == label])
        for rows in training.values()
        for label in np.unique(dataset.labels[rows])
    ]
    selection: list[int] = []
    for turn in range(max(len(cell) for cell in cells)):
        selection += [int(cell[turn]) for cell in cells if turn < len(cell)]
        if len(selection) >= MOST:
            break
    return np.sort(np.array(selection[:MOST], np.int64))
