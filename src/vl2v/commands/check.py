"""Check a teacher on a few images before buying from it."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vl2v.analysis.advice import Advice
from vl2v.analysis.teacher_value import advice_for
from vl2v.config import merge
from vl2v.errors import ConfigError
from vl2v.evaluation.evaluation import top1
from vl2v.locations import StoragePaths
from vl2v.planning.models import ensure_known, stated_price
from vl2v.planning.plan import plan_run, quote_again
from vl2v.progress import Progress, Silent
from vl2v.purchase import text_heads, zero_shot_logits
from vl2v.schema.inputs import PRICES
from vl2v.settings import make_config
from vl2v.sources.named import with_sources
from vl2v.teacher.base import Embeddings, Teacher, TeacherCard, checked, unit_rows
from vl2v.teacher.http.client import HttpTeacher
from vl2v.teacher.purchase.accounts import BatchAccount
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.ledger import Budget, Ledger, PurchaseContext, Quote
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.teacher.registry import open_teacher

IMAGES = 24  # that are queried by default
SAME = 0.999  # minimum cosine of two embeddings of the same image
LUCK = 0.01  # maximum probability of reaching the accuracy by guessing
SWATCHES = {"red": (220, 30, 30), "green": (30, 160, 50), "blue": (30, 60, 210), "yellow": (240, 220, 40)}


@dataclass(frozen=True)
class Check:
    """Result of a check.

    Attributes:
        images: number of labelled images that were queried.
        classes: number of their classes, K.
        accuracy: zero-shot accuracy on these images, in [0, 1].
        luck: probability of at least this accuracy by guessing.
        cosine: cosine of two embeddings of the same image; 1 if the teacher is deterministic.
        queries: number of images and of texts that this check paid for.
        spent: cost of the check, in `card.price.currency`.
        job: quote for distilling from the whole folder; None without a folder.
        note: remark on the price; may be empty.
        advice: whether the teacher is worth its price; None without a student, or with too few images.
    """

    card: TeacherCard
    images: int
    classes: int
    accuracy: float
    luck: float
    cosine: float
    queries: tuple[int, int]
    spent: Decimal
    job: Quote | None
    note: str = ""
    advice: Advice | None = None

    @property
    def deterministic(self) -> bool:
        """Whether the teacher returned the same embedding for the same image, up to rounding."""
        return self.cosine >= SAME

    @property
    def one_space(self) -> bool:
        """Whether image and text embeddings can be compared: this accuracy is unlikely to be reached by guessing."""
        return self.luck < LUCK


def check_teacher(
    teacher: str | Teacher,
    data: str | Path | None = None,
    *,
    budget: Decimal | None = None,
    images: int | None = None,
    storage: StoragePaths | None = None,
    progress: Progress | None = None,
    settings: dict[str, Any] | None = None,
) -> Check:
    """Query a teacher for a few labelled images and the prompts of their classes.

    The embeddings are stored, so a later run on the same images does not pay for them again.

    Args:
        teacher: name of the teacher (see `vl2v.teacher.registry.open_teacher`), or an open one.
        data: labelled images: a folder, a table, or a dataset of another tool. None uses images of plain colours.
        budget: maximum amount to spend; required if the teacher charges.
        images: number of images to query, spread over the classes; None queries `IMAGES`.
        settings: nested settings of a run, e.g. the price of a vendor whose price is unknown. With ``student.spec``,
            the check compares the teacher with a linear probe on the features of that student.

    Raises:
        ConfigError: if a setting or the number of images has no effect without data.
        BudgetError: before anything is sent that would exceed the budget.
        TeacherError: if a response cannot be used: another dimension, NaN, a missing row.
    """
    storage, progress = storage or StoragePaths(), progress or Silent()
    spec = teacher if isinstance(teacher, str) else teacher.describe().identity
    values = {"data": {"root": str(data or ".")}, "teacher": {"spec": spec}, "student": {}}
    if data is None:
        _check_without_data(merge({}, settings or {}), images)
    ensure_known(None, merge(settings or {}, values), teacher=isinstance(teacher, str))
    config = make_config(None, with_sources(merge(settings or {}, values), storage, progress))
    teacher_instance = open_teacher(spec, price=stated_price(config)) if isinstance(teacher, str) else teacher
    if data is None:
        with closing(EmbeddingStore(storage.store)) as store:
            checker = _Checker(teacher_instance, store, budget, progress)
            prompts = tuple(f"an image of plain {name}" for name in SWATCHES)
            return checker.run(
                [_swatch(c) for c in SWATCHES.values()], np.arange(len(SWATCHES)), prompts, len(SWATCHES)
            )
    plan = plan_run(config, storage, progress, teacher=teacher_instance, with_student=bool(config.student.spec))
    dataset = plan.dataset
    rows = _spread(dataset.labels, IMAGES if images is None else images)
    contents = [dataset.read(int(row)) for row in rows]
    with closing(EmbeddingStore(storage.store)) as store:
        checker = _Checker(teacher_instance, store, budget, progress)
        result = checker.run(contents, dataset.labels[rows], plan.requirements.prompts, len(dataset.phrases))
        advice = advice_for(plan, store, progress)
        job = quote_again(plan, store)  # without the queries that the check has bought
        return replace(result, job=job, advice=advice)


def _check_without_data(settings: Mapping[str, Any], images: int | None) -> None:
    """Check that all settings have an effect on a check by images of plain colours, whose prompts are fixed.

    Raises:
        ConfigError: names those that have none.
    """
    parts = {name: part if isinstance(part, Mapping) else {"": part} for name, part in settings.items()}
    keys = [f"{name}.{key}".strip(".") for name, part in parts.items() for key in part]
    idle = [key for key in keys if key not in PRICES] + ([] if images is None else ["--images"])
    if idle:
        raise ConfigError(
            f"{', '.join(idle)} {'has' if len(idle) == 1 else 'have'} no effect on a check without labelled images.",
            expected="--data with labelled images, or only prices",
            found="no --data, so the teacher is checked on images of plain colours",
            next_step="add --data DATA, or leave out what has no effect",
        )


class _Checker:
    """Buys the embeddings of a check and computes its result."""

    def __init__(self, teacher: Teacher, store: EmbeddingStore, budget: Decimal | None, progress: Progress) -> None:
        self.teacher, self.store, self.progress = teacher, store, progress
        self.card = teacher.describe()
        self.run_name = f"check {datetime.now(UTC).isoformat(timespec='microseconds')}"
        self.budget = Budget(budget, currency=self.card.price.currency)

    def run(self, contents: list[bytes], labels: np.ndarray, prompts: tuple[str, ...], classes: int) -> Check:
        digests = np.array([list(hashlib.sha256(content).digest()) for content in contents], np.uint8)
        images, texts = len(self.store.lacks(self.card, digests)) + 1, len(self.store.lacks_texts(self.card, prompts))
        self.budget.check(self.card.price.of(images, texts), f"a check by {images} image and {texts} text queries")
        buyer = Buyer(self.teacher, self.store, self.budget, self.run_name, self.progress)
        buyer.texts(prompts, "check")
        buyer.images(digests, contents.__getitem__, "check")
        embeddings = self.store.images(self.card, digests)
        again = self._query_again(contents[0])
        head = text_heads(self.store.texts(self.card, prompts), len(prompts) // classes)
        accuracy = top1(zero_shot_logits(embeddings, head, self.card.logit_scale), labels)
        right = round(accuracy * len(labels))
        ledger = Ledger(self.store)
        return Check(
            card=self.card,
            images=len(labels),
            classes=classes,
            accuracy=accuracy,
            luck=_luck(right, len(labels), 1 / classes),
            cosine=float(unit_rows(embeddings[:1])[0] @ unit_rows(again)[0]),
            queries=(ledger.queries(self.run_name), ledger.queries(self.run_name, "text")),
            spent=ledger.spent(self.run_name),
            job=None,
            note=getattr(self.teacher, "price_note", ""),
        )

    def _query_again(self, content: bytes) -> Embeddings:
        """Query the same image again, without getting a response that the vendor stores for repeated requests."""
        context = PurchaseContext(self.store, self.budget, self.card, self.run_name, "check, the same image again")
        if isinstance(self.teacher, HttpTeacher):
            order = self.teacher.order("image", [self.teacher.fit(content)], salt=self.run_name)
            account = BatchAccount(context, order, once=self.teacher.idempotent)
            try:
                answer = self.teacher.fulfil(order, account)
            except BaseException:
                account.give_up()
                raise
            account.settle(answer.cost, self.store.settle)
            return answer.embeddings
        cost = self.card.price.of(images=1)
        entry = context.open_entry("image", 1, cost)
        embeddings = checked(self.teacher.embed_images([content]), 1, self.card, "image")
        self.store.settle(entry, None)
        return embeddings


def _spread(labels: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of at most `count` images, drawn from all classes in turn with a fixed seed."""
    order = np.random.default_rng(0).permutation(len(labels))
    rank = np.zeros(len(labels), np.int64)  # of an image among those of its class
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        rank[of_class] = np.arange(len(of_class))
    return order[np.argsort(rank[order], kind="stable")][:count]


def _luck(right: int, count: int, chance: float) -> float:
    """Return the probability of at least `right` correct guesses out of `count`."""
    return sum(math.comb(count, k) * chance**k * (1 - chance) ** (count - k) for k in range(right, count + 1))


def _swatch(colour: tuple[int, int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (224, 224), colour).save(out, "PNG")
    return out.getvalue()
