"""The embeddings that a run needs, their cost, and its disk usage."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vl2v.config import RunConfig
from vl2v.data.images import ImageDataset
from vl2v.digests import distinct
from vl2v.errors import DiskFullError
from vl2v.formatting import size
from vl2v.locations import StoragePaths
from vl2v.method.registry import METHODS
from vl2v.planning.prepare import Examples
from vl2v.planning.split import Split
from vl2v.teacher.base import Teacher
from vl2v.teacher.prompts import load_templates, render
from vl2v.teacher.purchase.ledger import Quote, reserved
from vl2v.teacher.purchase.store import Digests, EmbeddingStore

TRAINING = "training"  # the purpose of the labelled images of the source domains that are trained on
UNLABELLED = "unlabelled"  # the purpose of further images without labels, and of the new images of a repair
EVALUATION = "evaluation"  # the purpose of what only the zero-shot column needs
VALIDATION = "validation"  # the reference of images without labels
UNSEEN = "held-out classes"  # the same, of classes that are not trained on
ROW_OVERHEAD = 120  # bytes of SQLite per embedding in addition to its values: keys, index, page slack


@dataclass(frozen=True)
class Requirements:
    """The images and texts whose embeddings a run needs.

    Attributes:
        purposes: SHA-256 of the images by purpose and view. The same content is paid once.
        prompts: K * T texts, class by class.
        templates: number of templates, T.
        method_texts: K * A further texts of the method, class by class.
        unseen: texts of the held-out classes, class by class, which only the evaluation needs.
    """

    purposes: dict[tuple[str, int], Digests]
    prompts: tuple[str, ...]
    templates: int
    method_texts: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts."""
        return self.prompts + self.method_texts + self.unseen


def requirements_of(
    config: RunConfig, dataset: ImageDataset, split: Split, examples: Examples, unseen: ImageDataset | None = None
) -> Requirements:
    """Return the embeddings that a run needs. `unseen` contains the images of held-out classes."""
    templates = load_templates(config.teacher.prompts)
    prompts = tuple(render(template, phrase) for phrase in dataset.phrases for template in templates)
    method = METHODS[config.method]
    further = tuple(method.texts(config.method_settings))
    further = load_templates(further) if further else ()
    more = tuple(render(template, phrase) for phrase in dataset.phrases for template in further)
    purposes: dict[tuple[str, int], Digests] = {}
    training_count, k = sum(map(len, examples.groups[: len(split.sources)])), config.teacher.kept_views
    parts = ((TRAINING, examples.digests[:training_count]), (UNLABELLED, examples.digests[training_count:]))
    for purpose, digests in parts if method.queries_teacher else ():
        for view in range(k if len(digests) else 0):
            purposes[purpose, view] = digests[view::k]
    if config.data.classes:
        purposes[VALIDATION, 0] = dataset.digests[split.evaluation_rows]
    elif config.teacher.zero_shot:
        purposes[EVALUATION, 0] = dataset.digests[split.evaluation_rows]
        if unseen is not None:
            purposes[UNSEEN, 0] = unseen.digests
    new = unseen.phrases if unseen is not None else ()
    return Requirements(purposes, prompts, len(templates), more, tuple(render(t, p) for p in new for t in templates))


def make_quote(
    requirements: Requirements, teacher: Teacher, store: EmbeddingStore, images: int, size: int, parameters: int | None
) -> Quote:
    """Compute queries, cost and disk usage before anything is spent.

    Args:
        store: store with the embeddings that have been bought.
        images: number of distinct images in the pixel cache.
        size: side length of the images in pixels.
        parameters: number of parameters of the student; None without a student.
    """
    card = teacher.describe()
    digests_by_view: dict[int, Digests] = {}
    required: dict[str, int] = {}
    stored_counts: dict[str, int] = {}
    for (purpose, view), digests in requirements.purposes.items():
        before = digests_by_view.get(view, digests[:0])
        digests_by_view[view] = np.concatenate([before, digests]) if len(before) else digests
        rows = distinct(digests_by_view[view])
        rows = rows[rows >= len(before)]
        required[purpose] = required.get(purpose, 0) + len(rows)
        stored_counts[purpose] = stored_counts.get(purpose, 0) + int(
            store.knows_images(card, digests_by_view[view][rows], view).sum()
        )
    texts = list(dict.fromkeys(requirements.texts))
    queries = sum(required.values()) - sum(stored_counts.values())
    disk = {
        "purchased embeddings": queries * (4 * card.dimension + ROW_OVERHEAD),
        "pixel cache": images * size * size * 3,
    }
    disk["embeddings for training"] = sum(required.values()) * 4 * card.dimension
    if parameters is not None:
        copies = 1 + 2 + 9  # weights, Adam's two moments, SWAD's segments and means
        disk["training state, twice while it is replaced"] = 2 * copies * 4 * parameters
    return Quote(
        teacher=card.identity,
        images=required,
        images_known=stored_counts,
        texts=len(texts),
        texts_known=sum(store.knows_texts(card, texts)),
        price=card.price,
        disk_bytes=disk,
        note=getattr(teacher, "price_note", ""),
        reserved=reserved(teacher, store, [(view, rows) for (_, view), rows in requirements.purposes.items()], texts),
    )


def check_disk(quote: Quote, storage: StoragePaths, out: Path) -> None:
    """Check that the files of a run fit on the disk.

    Raises:
        DiskFullError: with the required and the free space.
    """
    per_folder: dict[Path, Sequence[str]] = {
        storage.store.parent: ["purchased embeddings"],
        out: [name for name in quote.disk_bytes if name not in ("purchased embeddings", "pixel cache")],
    }
    for folder, names in per_folder.items():
        needed = sum(quote.disk_bytes[name] for name in names)
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise DiskFullError(
                f"There is not enough space on the disk of {folder}.",
                expected=f"{size(needed)} for {', '.join(names)}",
                found=f"{size(free)} free",
                next_step="free some space, or use another disk: --out, --store, --cache",
            )
