"""From settings to everything that training needs: scanned, quoted, bought."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor, nn

from vl2v.config import RunConfig
from vl2v.data.batches import stage_seed
from vl2v.data.contents import Contents
from vl2v.data.images import Task
from vl2v.data.pixels import PixelCache
from vl2v.data.scan import FileIndex
from vl2v.data.splits import Indices
from vl2v.errors import ConfigError, StudentError
from vl2v.evaluation.evaluation import Logits, zero_shot_logits
from vl2v.evaluation.features import Validation
from vl2v.locations import StoragePaths
from vl2v.method.base import Method
from vl2v.method.registry import METHODS
from vl2v.planning.prepare import Examples, examples, list_folder, read_parts
from vl2v.planning.requirements import (
    EVALUATION,
    UNSEEN,
    VALIDATION,
    Requirements,
    check_disk,
    evaluated,
    make_quote,
    requirements_of,
)
from vl2v.planning.settling import settled
from vl2v.planning.split import Split, leaked, split_task
from vl2v.progress import Progress, warn
from vl2v.student.backbones import Backbone, load_backbone
from vl2v.teacher.base import Price, Teacher, TeacherCard, Vectors
from vl2v.teacher.file import FileTeacher
from vl2v.teacher.http.remote import RemoteTeacher
from vl2v.teacher.prompts import text_head
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.ledger import Budget, Ledger, Quote
from vl2v.teacher.purchase.spending import Spending
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.teacher.purchase.watch import SEEN, TeacherWatch
from vl2v.teacher.registry import is_remote, open_teacher
from vl2v.training.data import TrainingData
from vl2v.training.fresh import FreshViews, fresh_views
from vl2v.writing import replacing, reserve
from vl2v_runtime.trust import probabilities

DEFAULT_SIZE = 224  # for a quote that names no student


@dataclass(frozen=True)
class BudgetAccount:
    """What a budget is for.

    Attributes:
        folder: where it is written what was spent of it: a run's, or a benchmark's for all of its jobs.
        mine: whether a run's name in the ledger belongs to it.
    """

    folder: Path
    mine: Callable[[str], bool]

    @classmethod
    def of_run(cls, name: str) -> BudgetAccount:
        """Of a single run, whose name in the ledger is its folder."""
        return cls(Path(name), lambda run: run == name)


@dataclass(frozen=True)
class Session:
    """A run's task, teacher and student, before anything is spent; `unseen` has the held-out classes' images.

    What the settings leave to the data stands in `config` as numbers.
    """

    config: RunConfig
    task: Task
    unlabelled: Task | None
    split: Split
    rows: Examples
    needs: Requirements
    teacher: Teacher
    store: EmbeddingStore
    cache: PixelCache
    backbone: Backbone | None
    progress: Progress
    fresh: FreshViews | None = None
    unseen: Task | None = None

    @property
    def method(self) -> Method[Any]:
        """What trains the student."""
        return METHODS[self.config.method]

    @property
    def labelled(self) -> bool:
        """Whether the images have labels; otherwise the teacher's answers are the reference of validation."""
        return not self.config.data.classes

    @property
    def card(self) -> TeacherCard:
        """The teacher's description."""
        return self.teacher.describe()

    def quote(self) -> Quote:
        """What is to be bought, and the disk it takes."""
        images = len(self.task) + (len(self.unlabelled) if self.unlabelled else 0)
        images += len(self.unseen) if self.unseen else 0
        images += len(self.rows.views) - len(self.rows.views) // self.config.teacher.kept_views  # further views
        parameters = sum(p.numel() for p in self.backbone.module.parameters()) if self.backbone else None
        found = make_quote(self.needs, self.teacher, self.store, images, self.cache.size, parameters)
        return replace(found, contents=self.contents())

    def contents(self) -> Contents:
        """What was understood of the data."""
        return Contents.of(self.task, tuple(self.split.test), self.unseen, self.unlabelled)

    def asked(self) -> dict[str, Any]:
        """What training alone needs from the teacher, whoever paid for it: queries, and their price as text."""
        quote = self.quote()
        images = sum(count for purpose, count in quote.images.items() if purpose not in (EVALUATION, UNSEEN))
        known = set(self.needs.texts) - set(self.needs.unseen)
        texts = len(known) if self.method.asks_teacher or self.method.classifier == "cosine" else 0
        cost, currency = quote.price.of(images=images, texts=texts), quote.price.currency
        asked = {"image_queries": images, "text_queries": texts, "cost": f"{cost:f}", "currency": currency}
        return asked | {"price_per_1000_images": f"{quote.price.per_1000_images:f}"}

    def budget(self, account: BudgetAccount) -> Budget:
        """The run's limit, and what was spent of it by whichever process out of whichever store."""
        spending = Spending(account.folder, self.store, account.mine)
        return Budget(self.config.budget, currency=self.card.price.currency, spending=spending)

    def check_means(self, budget: Budget, places: StoragePaths, out: Path) -> None:
        """Refuse a run that the budget or the disk does not cover, before anything is sent.

        Raises:
            BudgetError: with what is missing.
            DiskFullError: with what is missing.
        """
        quote = self.quote()
        what = f"{quote.image_queries:,} image and {quote.text_queries:,} text queries"
        known = Ledger(self.store).underway(self.card) if _idempotent(self.teacher) else Decimal(0)
        budget.check(quote.cost - known, what)
        check_disk(quote, places, out)

    def buy(self, run: str, budget: Budget) -> None:
        """Buy what is missing, prompts first.

        Args:
            run: the run's name in the ledger.
            budget: the most to spend.

        Raises:
            BudgetError: before anything is sent that would exceed the budget.
            TeacherError: if an answer cannot be used, or answers are of no use for the task.
        """
        watch = None if self.config.teacher.accept else self._watch()
        if watch is not None:
            self._look_at_known(watch)
        buyer = Buyer(self.teacher, self.store, budget, run, self.progress, watch, self.config.threads)
        buyer.texts(self.needs.texts)
        where = {digest.tobytes(): row for row, digest in enumerate(self.rows.digests)}
        for (purpose, view), digests in self.needs.purposes.items():
            if purpose == UNSEEN and self.unseen is not None:
                buyer.images(digests, self.unseen.read, purpose, view)
            elif purpose in (EVALUATION, VALIDATION):
                positions = evaluated(self.split)
                buyer.images(digests, lambda i, at=positions: self.task.read(int(at[i])), purpose, view)  # type: ignore[misc]
            else:
                buyer.images(digests, lambda i, d=digests: self.rows.read(where[d[i].tobytes()]), purpose, view)  # type: ignore[misc]
        if watch is not None:
            watch.look()

    def _watch(self) -> TeacherWatch:
        """Compares the teacher's answers with the labels of the sources; nothing of a held-out domain is looked at."""
        labels = {d.tobytes(): int(label) for d, label in zip(self.rows.digests, self.rows.labels, strict=True)}
        for positions in self.split.validation.values():
            for at in positions:
                labels[self.task.digests[at].tobytes()] = int(self.task.labels[at])
        return TeacherWatch(self.card.identity, labels, lambda: self.head().numpy())

    def _look_at_known(self, watch: TeacherWatch) -> None:
        """Show it what was bought before, so that a run that was stopped does not buy on."""
        card, texts = self.card, list(dict.fromkeys(self.needs.texts))
        known = [text for text, k in zip(texts, self.store.knows_texts(card, texts), strict=True) if k]
        if known:
            watch.texts(known, self.store.texts(card, known))
        if len(known) < len(texts):
            return  # without all texts there is no head to compare images with
        chosen = np.random.default_rng(0).permutation(np.flatnonzero(self.rows.views == 0))[:SEEN]
        chosen = chosen[self.store.knows_images(card, self.rows.digests[chosen])]
        if len(chosen):
            digests = self.rows.digests[chosen]
            vectors = self.store.images(card, digests)
            watch.images(digests, vectors, lambda i: self.rows.read(int(chosen[i])), ordered=False)
            watch.look()

    def head(self) -> Tensor:
        """The text head, [K, D] float32, from the bought prompts."""
        return self._head(self.needs.prompts)

    def unseen_head(self) -> Tensor:
        """The same of the held-out classes."""
        return self._head(self.needs.unseen)

    def _head(self, prompts: tuple[str, ...]) -> Tensor:
        vectors = torch.from_numpy(self.store.texts(self.card, prompts))
        return text_head(vectors.reshape(-1, self.needs.templates, vectors.shape[-1]))

    def method_texts(self) -> Tensor | None:
        """The embeddings of the further texts that the method asks for, [K, A, D] float32; None if there are none."""
        if not self.needs.method_texts:
            return None
        vectors = torch.from_numpy(self.store.texts(self.card, self.needs.method_texts))
        return vectors.reshape(len(self.task.phrases), -1, vectors.shape[-1])

    def material(self, work: Path, write: bool = True) -> TrainingData:
        """Lay out pixels, vectors and labels for training.

        Args:
            work: the vectors go into a memory-mapped file here.
            write: false where another process has written it.
        """
        work.mkdir(parents=True, exist_ok=True)
        if write:
            with replacing(work / "slots.npy") as fresh, fresh.open("wb") as handle:
                np.save(handle, self.cache.slots(self.rows.digests))
        vectors: NDArray[np.float32] | None = None
        if self.method.asks_teacher:
            if write:
                self._write_vectors(work / "vectors.npy")
            vectors = np.load(work / "vectors.npy", mmap_mode="r")
        head, texts = self.head(), self.method_texts()
        digest = hashlib.sha256(self.rows.digests.tobytes() + self.rows.labels.tobytes() + head.numpy().tobytes())
        if texts is not None:
            digest.update(texts.numpy().tobytes())
        if vectors is not None:
            for start in range(0, len(vectors), 10_000):
                digest.update(vectors[start : start + 10_000].tobytes())
        return TrainingData(
            pixels=self.cache.map(),
            slots=np.load(work / "slots.npy", mmap_mode="r"),  # mapped, so that loading processes get its name alone
            labels=self.rows.labels,
            embeddings=vectors,
            head=head,
            logit_scale=self.card.logit_scale,
            groups=self.rows.groups,
            shares=self.shares(),
            validation=self.validation(),
            digest=digest.hexdigest(),
            cache=self.cache.beside,
            method_texts=texts,
        )

    def shares(self) -> tuple[int, ...]:
        """How many rows of each group are in a batch: of every source domain, then of the unlabelled images."""
        shares = [self.config.batch_per_domain] * len(self.split.sources)
        return (*shares, *[self.config.unlabelled_per_batch] * (len(self.rows.groups) - len(shares)))

    def validation(self) -> Validation:
        """(slots, targets) by source domain: labels, or the teacher's probabilities where there are no labels."""
        found: dict[str, tuple[Indices, NDArray[np.int64] | NDArray[np.float32]]] = {}
        for domain, rows in self.split.validation.items():
            targets = self.task.labels[rows] if self.labelled else probabilities(self.zero_shot(rows))
            found[domain] = self.cache.slots(self.task.digests[rows]), targets
        return found

    def zero_shot(self, rows: Indices) -> Logits:
        """The teacher's zero-shot logits of images of the task whose vectors were bought, [N, K] float32."""
        return zero_shot_logits(self.vectors_of(rows), self.head(), self.card.logit_scale)

    def vectors_of(self, rows: Indices) -> Vectors:
        """The bought vectors of images of the task, [N, D] float32."""
        return self.store.images(self.card, self.task.digests[rows])

    def make_projection(self, backbone: Backbone) -> nn.Module:
        """P before training: a seeded linear layer with bias, or the method's own; nothing for the teacher's encoder.

        Raises:
            StudentError: if the teacher's own encoder has another dimension than its vectors.
        """
        linear, layer = self.method.classifier == "linear", self.method.layer
        dimension = len(self.task.names) if linear else self.card.dimension
        if linear or self.config.student.spec != "teacher":
            torch.manual_seed(stage_seed(self.config.seed, "projection"))
            return layer(backbone.features, self.head()) if layer else nn.Linear(backbone.features, dimension)
        if backbone.features != dimension:
            found = f"{backbone.features} features"
            raise StudentError("The teacher's encoder does not fit.", expected=f"{dimension} features", found=found)
        return nn.Identity()

    def _write_vectors(self, file: Path) -> None:
        count = len(self.rows.views)
        with replacing(file) as fresh:
            self._fill_vectors(fresh, count)

    def _fill_vectors(self, file: Path, count: int) -> None:
        out = open_memmap(file, "w+", np.float32, (count, self.card.dimension))
        reserve(file, file.stat().st_size)
        for view in np.unique(self.rows.views):
            rows = np.flatnonzero(self.rows.views == view)
            for start in range(0, len(rows), 10_000):
                part = rows[start : start + 10_000]
                out[part] = self.store.images(self.card, self.rows.digests[part], int(view))
        out.flush()


@contextmanager
def open_session(
    config: RunConfig,
    places: StoragePaths,
    progress: Progress,
    *,
    teacher: Teacher | None = None,
    backbone: Backbone | None = None,
    with_student: bool = True,
    begun: bool = False,
) -> Iterator[Session]:
    """Open teacher and student, scan the data, draw the split. Nothing is spent.

    Args:
        config: the run's settings.
        places: where cache and store are.
        progress: told of every stage.
        teacher: an open one, instead of `config.teacher.spec`.
        backbone: a loaded one, instead of `config.student.spec`.
        with_student: false for a quote without a student; pixels are then not kept.
        begun: whether the run has begun before, so that the data's layout is accepted as it is.
    """
    folder = list_folder(config.data, begun=begun)
    teacher = teacher or open_teacher(config.teacher.spec, price=stated_price(config), device=local_device(config))
    fresh = fresh_views(config, teacher)
    if with_student and backbone is None:
        backbone = open_student(config)
    size = backbone.preprocess.size if backbone else config.student.size or DEFAULT_SIZE
    with ExitStack() as stack:
        index = stack.enter_context(closing(FileIndex(places.cache / "files.sqlite")))
        cache = stack.enter_context(closing(PixelCache(places.cache, size)))
        store = stack.enter_context(closing(EmbeddingStore(places.store)))
        task, unlabelled, unseen = read_parts(folder, config.data, index, cache if backbone else None, progress)
        split = split_task(task, config.data, config.seed)
        if count := leaked(task, split):
            what = "the held-out domains" if not split.own_test else "the test part or of held-out domains"
            warn(progress, f"{count} images of {what} are also among the training images")
        if split.left_out:
            warn(progress, f"{split.left_out} images are not trained on: images of their group are tested on")
        rows = examples(config, task, unlabelled, split, index, cache, progress)
        if isinstance(teacher, FileTeacher):
            for part in (task, unlabelled, unseen):
                if part is not None:
                    teacher.bind(part.paths, part.digests)
        images = int((rows.views == 0).sum())
        config = settled(config, len(split.sources), images, len(rows.groups) > len(split.sources))
        wanted = requirements_of(config, task, split, rows, unseen)
        asked = (wanted, teacher, store, cache, backbone, progress, fresh, unseen)
        yield Session(config, task, unlabelled, split, rows, *asked)


def open_student(config: RunConfig) -> Backbone:
    """Load the backbone that the settings name; ``teacher`` is the teacher's own image encoder (VL2V-SD)."""
    student = config.student
    spec = config.teacher.spec if student.spec == "teacher" else student.spec
    return load_backbone(spec, size=student.size, mean=student.mean, std=student.std)


def _idempotent(teacher: Teacher) -> bool:
    return isinstance(teacher, RemoteTeacher) and teacher.idempotent


def stated_price(config: RunConfig) -> Price | None:
    """The price that the user states, for vectors in a file or a vendor whose price is not known; None if none.

    Raises:
        ConfigError: if the teacher is of another kind, or both a price and that there is none are stated.
    """
    price = Price(config.teacher.price_per_1000_images, config.teacher.price_per_1000_texts)
    spec, step = config.teacher.spec, "drop --price-per-1000-images and --price-per-1000-texts, or --free"
    if config.teacher.free and not price.free:
        found = f"both: {price.per_1000_images:f} for 1000 images, {price.per_1000_texts:f} for 1000 texts, and free"
        raise ConfigError(
            "A teacher cannot have a price and be free.", expected="one of them", found=found, next_step=step
        )
    if (config.teacher.free or not price.free) and not (spec.startswith("file:") or is_remote(spec)):
        raise ConfigError(
            "A price was given for a teacher whose price is known.",
            expected="prices only for a file: teacher, or for a vendor that states none",
            found=spec,
            next_step=step,
        )
    return Price() if config.teacher.free else None if price.free else price


def local_device(config: RunConfig) -> str | None:
    """Where a teacher on this machine computes; None leaves it to the teacher."""
    return None if config.device == "auto" else config.device
