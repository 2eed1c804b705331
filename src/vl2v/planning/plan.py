"""The plan of a run: dataset, split, examples, requirements and quote, computed once before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vl2v.config import RunConfig
from vl2v.data.caches import open_caches
from vl2v.data.contents import Contents
from vl2v.data.images import ImageDataset
from vl2v.data.listing import Listing
from vl2v.data.pixels import CachedPixels
from vl2v.formatting import exact
from vl2v.locations import StoragePaths
from vl2v.method.base import Method
from vl2v.method.registry import METHODS
from vl2v.planning.effects import without_effect
from vl2v.planning.models import open_student, ready_teacher
from vl2v.planning.prepare import Examples, examples_of, list_folder, read_datasets, read_unlabelled
from vl2v.planning.requirements import EVALUATION, UNSEEN, Requirements, make_quote, requirements_of
from vl2v.planning.resolved_settings import resolved
from vl2v.planning.split import Split, split_dataset
from vl2v.planning.split_duplicates import copies_of_training, split_duplicates
from vl2v.progress import Progress, Silent, warn
from vl2v.teacher.base import Teacher, TeacherCard
from vl2v.teacher.file import FileTeacher
from vl2v.teacher.purchase.ledger import Quote
from vl2v.teacher.purchase.store import EmbeddingStore

if TYPE_CHECKING:
    from vl2v.student.backbones import Backbone

DEFAULT_SIZE = 224  # image size in pixels for a quote without a student


@dataclass(frozen=True)
class RunPlan:
    """What a run trains on, evaluates on and buys. A plan has no open files.

    Attributes:
        config: settings of the run. Values that depend on the data are replaced by numbers.
        dataset: labelled images, or images of named classes; without held-out classes.
        unlabelled: further images without labels; None if there are none.
        unseen: images of held-out classes; None if there are none.
        split: rows of `dataset` for training, validation and test.
        quote: queries that the store lacks, and their cost.
        backbone: backbone of the student before training; None without a student.
        queried: [R] bool, whether the embedding of a training example is required; None if all of them are.
    """

    config: RunConfig
    paths: StoragePaths
    dataset: ImageDataset
    unlabelled: ImageDataset | None
    unseen: ImageDataset | None
    split: Split
    examples: Examples
    requirements: Requirements
    quote: Quote
    teacher: Teacher
    card: TeacherCard
    backbone: Backbone | None
    pixels: CachedPixels
    queried: NDArray[np.bool_] | None = None

    @property
    def method(self) -> Method[Any]:
        """Training method."""
        return METHODS[self.config.method]

    @property
    def student_backbone(self) -> Backbone:
        """Backbone of the student; only for plans with a student."""
        assert self.backbone is not None
        return self.backbone

    @property
    def contents(self) -> Contents:
        """Summary of the data."""
        assert self.quote.contents is not None
        return self.quote.contents

    @property
    def labelled(self) -> bool:
        """Whether the images have labels. If not, students are compared with the teacher's predictions."""
        return not self.config.data.classes

    @property
    def shares(self) -> tuple[int, ...]:
        """Number of examples of each group in a batch, in the order of `Examples.groups`."""
        sources = len(self.split.sources)
        new = [] if self.config.repair is None else [self.config.repair.per_batch]
        unlabelled = len(self.examples.groups) - sources - len(new)
        return (*[self.config.batch_per_domain] * sources, *[self.config.unlabelled_per_batch] * unlabelled, *new)

    def teacher_usage(self) -> dict[str, Any]:
        """Return the queries that training needs with an empty store, and their price."""
        images = sum(count for purpose, count in self.quote.images.items() if purpose not in (EVALUATION, UNSEEN))
        training_texts = set(self.requirements.texts) - set(self.requirements.unseen)
        texts = len(training_texts) if self.method.queries_teacher or self.method.classifier == "cosine" else 0
        price = self.quote.price
        usage = {"image_queries": images, "text_queries": texts, "cost": exact(price.of(images=images, texts=texts))}
        return usage | {"currency": price.currency, "price_per_1000_images": exact(price.per_1000_images)}


def plan_run(
    config: RunConfig,
    paths: StoragePaths,
    progress: Progress | None = None,
    *,
    teacher: Teacher | None = None,
    backbone: Backbone | None = None,
    with_student: bool = True,
    layout_known: bool = False,
    listing: Listing | None = None,
) -> RunPlan:
    """Open teacher and student, scan the data, draw the split, and quote. Nothing is spent.

    Args:
        teacher: an open teacher that replaces `config.teacher.spec`.
        backbone: a loaded backbone that replaces `config.student.spec`.
        with_student: false for a plan without a student. Pixels are then not cached.
        layout_known: whether the run was started before. The layout of its data is then not checked again.
        listing: the listed images, if they have been listed already.

    Raises:
        Vl2vError: for any fault of settings, data, teacher or student.
    """
    progress = progress or Silent()
    listing = listing or list_folder(config.data, layout_known=layout_known)
    teacher = ready_teacher(config, teacher)
    if with_student and backbone is None:
        backbone = open_student(config)
    size = backbone.preprocess.size if backbone else config.student.size or DEFAULT_SIZE
    fit = backbone.preprocess.fit if backbone else config.student.fit
    pixels = CachedPixels(paths.cache, size, fit)
    with open_caches(paths.cache, size, fit) as (index, cache), closing(EmbeddingStore(paths.store)) as store:
        parts = read_datasets(listing, config.data, index, cache if backbone else None, progress)
        dataset, unlabelled, unseen = parts
        new = None
        if config.repair is not None:
            new = read_unlabelled(
                config.repair.images, None, dataset.names, index, cache if backbone else None, progress
            )
        split = split_dataset(dataset, config.data, config.seed)
        if split.left_out:
            warn(progress, f"{split.left_out} images are not used for training, because their groups have test images")
        for text in without_effect(config):
            warn(progress, text)
        if backbone and (text := split_duplicates(dataset, split, cache).text()):
            warn(progress, text)
        examples = examples_of(config, dataset, unlabelled, split, index, cache, progress, new)
        if text := copies_of_training(dataset, split, unseen, examples.digests[examples.views == 0]):
            warn(progress, text)
        _bind(teacher, parts)
        ordinary = len(examples.groups) - (new is not None)
        config = resolved(config, len(split.sources), examples.images, ordinary > len(split.sources))
        requirements = requirements_of(config, dataset, split, examples, unseen)
        images = sum(len(part) for part in (*parts, new) if part is not None) + examples.further_views
        quote = make_quote(requirements, teacher, store, images, size, backbone.parameter_count if backbone else None)
    first = config.data.class_first
    contents = Contents.of(dataset, tuple(split.test), unseen, unlabelled, class_first=first)
    quote = replace(quote, contents=contents)
    return RunPlan(
        config, paths, dataset, unlabelled, unseen, split, examples, requirements, quote, teacher, teacher.describe(),
        backbone, pixels,
    )  # fmt: skip


def quote_again(plan: RunPlan, store: EmbeddingStore) -> Quote:
    """Return the quote of a plan after a purchase."""
    before = plan.quote
    quote = make_quote(plan.requirements, plan.teacher, store, 0, 0, None)
    disk = before.disk_bytes | {"purchased embeddings": quote.disk_bytes["purchased embeddings"]}
    return replace(quote, disk_bytes=disk, contents=before.contents)


def _bind(teacher: Teacher, parts: Sequence[ImageDataset | None]) -> None:
    """Pass the paths of all images to a teacher in a file."""
    if isinstance(teacher, FileTeacher):
        for part in parts:
            if part is not None:
                teacher.bind(part.paths, part.digests)
