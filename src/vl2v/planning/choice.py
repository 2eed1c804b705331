"""A plan that queries only some of the images, because the budget does not cover all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vl2v.data.pixels import Digests
from vl2v.data.splits import DatasetRows, Indices
from vl2v.digests import among, distinct
from vl2v.errors import RunError
from vl2v.formatting import exact
from vl2v.json_files import read_json, write_json
from vl2v.planning.plan import RunPlan, quote_again
from vl2v.planning.requirements import EVALUATION, TRAINING, UNLABELLED, UNSEEN, VALIDATION
from vl2v.planning.split import Split
from vl2v.strict import described
from vl2v.teacher.http.remote import resumable
from vl2v.teacher.purchase.store import EmbeddingStore


class _File(BaseModel):
    """Schema of the file of a choice."""

    model_config = ConfigDict(extra="allow", strict=True)
    candidates: int = Field(ge=1)
    stored: int = Field(ge=0)
    images: list[str]
    unlabelled: int = Field(default=0, ge=0)
    evaluation: list[str] = []


@dataclass(frozen=True)
class QuerySelection:
    """The images that a run queries.

    Attributes:
        images: [N, 32] uint8, SHA-256 of the training images: those that were stored already, then those to buy, in the
            order of selection.
        stored: number of images that were stored or paid before.
        candidates: number of distinct training images.
        unlabelled: number of candidates without a label.
        evaluation: [E, 32] uint8, SHA-256 of the evaluation images whose embedding replaces their label; empty if there
            are labels.
    """

    images: Digests
    stored: int
    candidates: int
    unlabelled: int = 0
    evaluation: Digests = field(default_factory=lambda: _digests([]))

    def write(self, file: Path) -> None:
        """Write the choice to a file, for resumed runs and other processes."""
        content = {"candidates": self.candidates, "stored": self.stored, "unlabelled": self.unlabelled}
        lists = {"images": self.images, "evaluation": self.evaluation}
        write_json(file, content | {name: [row.tobytes().hex() for row in rows] for name, rows in lists.items()})

    @classmethod
    def read(cls, file: Path) -> QuerySelection | None:
        """Read the choice of a run; None if there is no file.

        Raises:
            RunError: if the file is damaged.
        """
        if not file.exists():
            return None
        try:
            content = _File.model_validate(read_json(file))
            images, evaluation = _digests(content.images), _digests(content.evaluation)
            if max(len(images), content.unlabelled) > content.candidates or content.stored > len(images):
                raise ValueError(f"{len(images)} images, {content.stored} stored, {content.candidates} candidates")
        except (ValidationError, ValueError) as error:
            raise RunError(
                f"{file} is damaged.",
                expected="the images that the run queries",
                found=described(error) if isinstance(error, ValidationError) else " ".join(str(error).split())[:300],
                next_step="start a new run with another --out; purchased embeddings are reused for free",
            ) from error
        return cls(images, content.stored, content.candidates, content.unlabelled, evaluation)

    @property
    def line(self) -> str:
        """The choice as one line of text."""
        evaluation = "the evaluation images are not queried"
        if len(self.evaluation):
            evaluation = f"{len(self.evaluation):,} evaluation images, drawn at random, are queried as well"
        if len(self.images) == self.candidates:
            return f"the budget covers all {self.candidates:,} training images; {evaluation}"
        more = f", {self.stored:,} of them stored already" if self.stored else ""
        others = "trained on by their labels alone"
        if self.unlabelled:
            others = "left out" if self.unlabelled == self.candidates else f"{others}, or left out if they have none"
        return (
            f"the budget covers {len(self.images):,} of {self.candidates:,} training images{more}: a diverse set on "
            f"the frozen student's features. The others are {others}, and {evaluation}"
        )


@dataclass(frozen=True)
class Images:
    """Distinct images to choose from.

    Attributes:
        groups: [N] int64, index of the domain. Images without labels in addition to labelled ones are a further group.
        paid: [N] bool, whether the embedding is in the store, or in a paid batch that is in flight.
    """

    digests: Digests
    groups: NDArray[np.int64]
    paid: NDArray[np.bool_]

    @classmethod
    def of(cls, plan: RunPlan, store: EmbeddingStore, parts: Sequence[Digests]) -> Images:
        """Return the distinct images of several groups. An image of two groups belongs to the smaller one."""
        digests, sizes = np.concatenate([_digests([]), *parts]), np.array([len(part) for part in parts], np.int64)
        groups = np.repeat(np.arange(len(parts), dtype=np.int64), sizes)
        order = np.argsort(sizes[groups], kind="stable")
        first = np.sort(order[distinct(digests[order])])
        digests, groups = digests[first], groups[first]
        mask = store.knows_images(plan.card, digests)
        if resumable(plan.teacher):
            for batch in store.pending(plan.card, "image", 0):
                mask |= among(digests, batch.images)
        return cls(digests, groups, mask)

    @property
    def missing(self) -> int:
        """Number of groups without a paid image, each of which needs at least one."""
        return len(np.setdiff1d(self.groups, self.groups[self.paid]))

    @property
    def unpaid(self) -> int:
        """Number of images without a paid embedding."""
        return int((~self.paid).sum())


@dataclass(frozen=True)
class Candidates:
    """The images that a plan can query.

    Attributes:
        evaluation: evaluation images whose embedding replaces their label; none if there are labels.
        unlabelled: number of training images without a label.
    """

    training: Images
    evaluation: Images
    unlabelled: int

    @classmethod
    def of(cls, plan: RunPlan, store: EmbeddingStore) -> Candidates:
        """Return the candidates of a plan in the order of its training examples, without new images of a repair."""
        examples, digests = plan.examples, plan.dataset.digests
        groups = examples.groups[: len(examples.groups) - (plan.config.repair is not None)]
        training = Images.of(plan, store, [examples.digests[group] for group in groups])
        parts = [] if plan.labelled else [rows for part in plan.split.evaluation_parts for rows in part.values()]
        evaluation = Images.of(plan, store, [digests[rows] for rows in parts])
        labelled = among(training.digests, examples.digests[examples.labels >= 0])
        return cls(training, evaluation, int((~labelled).sum()))

    @property
    def missing(self) -> int:
        """Minimum number of images to buy."""
        return self.training.missing + self.evaluation.missing

    def shared(self, count: int) -> tuple[int, int]:
        """Divide a purchase of `count` images into training and evaluation images, with the same share of both."""
        training, evaluation = self.training, self.evaluation
        count = min(count, training.unpaid + evaluation.unpaid)
        share = round(count * evaluation.unpaid / max(1, training.unpaid + evaluation.unpaid))
        share = min(max(share, evaluation.missing), max(count - training.missing, 0))
        return count - share, share

    def choice(self, training: Indices, evaluation: Indices) -> QuerySelection:
        """Return the choice of the paid images and of further rows of `training` and `evaluation`."""
        stored_digests = self.training.digests[self.training.paid], self.evaluation.digests[self.evaluation.paid]
        images = np.concatenate([stored_digests[0], self.training.digests[training]])
        references = np.concatenate([stored_digests[1], self.evaluation.digests[evaluation]])
        return QuerySelection(images, len(stored_digests[0]), len(self.training.digests), self.unlabelled, references)


def affordable(plan: RunPlan, money: Decimal) -> bool:
    """Whether an amount of money covers the quote, less the amount reserved for batches in flight."""
    return plan.quote.due <= max(money, Decimal(0))


def covered(plan: RunPlan, money: Decimal) -> int:
    """Return the number of training images that an amount of money buys, after the texts."""
    price = plan.card.price
    remainder = money - price.of(texts=plan.quote.text_queries)
    return max(0, int(remainder * 1000 // price.per_1000_images)) if price.per_1000_images else 0


def narrowed(plan: RunPlan, choice: QuerySelection, store: EmbeddingStore) -> RunPlan:
    """Return the plan that queries the chosen images and the new images of a repair.

    Training images without a label and without an embedding are omitted, and so are such evaluation images.

    Raises:
        RunError: if a chosen image is no longer in the data.
    """
    examples, every = plan.examples, plan.requirements.purposes
    if gone := int((~among(choice.images, examples.digests)).sum()):
        raise RunError(
            "The images that the run queries are not those of the data.",
            expected=f"the {len(choice.images):,} images of queries.json among the training images",
            found=f"{gone:,} that are not",
            next_step="restore the images; or start a new run with another --out, which reuses purchased embeddings",
        )
    sources = np.concatenate(examples.groups[: len(plan.split.sources)])
    first = among(choice.images, examples.digests[sources])
    new = examples.digests[examples.groups[-1]] if plan.config.repair is not None else _digests([])
    further = np.concatenate([choice.images[~first], new])
    queried = among(examples.digests, np.concatenate([choice.images, new]))
    split = plan.split if plan.labelled else _evaluated(plan, choice)
    purposes = {(TRAINING, 0): choice.images[first]}
    purposes |= {(UNLABELLED, 0): further} if len(further) else {}
    purposes |= {} if plan.labelled else {(VALIDATION, 0): plan.dataset.digests[split.evaluation_rows]}
    purposes |= {
        key: d for key, d in every.items() if key[0] not in (TRAINING, UNLABELLED, VALIDATION, EVALUATION, UNSEEN)
    }
    groups = tuple(group[queried[group] | (examples.labels[group] >= 0)] for group in examples.groups)
    fewer = replace(
        plan,
        split=split,
        examples=replace(examples, groups=groups),
        requirements=replace(plan.requirements, purposes=purposes),
        queried=None if queried.all() else queried,
    )
    return replace(fewer, quote=quote_again(fewer, store))


def _evaluated(plan: RunPlan, choice: QuerySelection) -> Split:
    """Return the split with only the chosen evaluation images."""
    split, digests = plan.split, plan.dataset.digests

    def chosen(part: Mapping[str, DatasetRows]) -> dict[str, DatasetRows]:
        return {domain: rows[among(digests[rows], choice.evaluation)] for domain, rows in part.items()}

    return replace(split, validation=chosen(split.validation), own_test=chosen(split.own_test), test=chosen(split.test))


def quoted_choice(plan: RunPlan, store: EmbeddingStore) -> RunPlan:
    """Return the plan with the quote of a run that chooses its images. They have not been chosen yet."""
    config, quote = plan.config, plan.quote
    if config.when_short != "choose" or config.budget is None or affordable(plan, config.budget):
        return plan
    candidates, price = Candidates.of(plan, store), plan.card.price
    if covered(plan, config.budget) < (missing := candidates.missing):
        least = f"{exact(price.of(missing, quote.text_queries))} {price.currency}"
        line = f"the budget is too small for a run, which needs at least {least}: {missing} images and the texts"
        return replace(plan, quote=replace(quote, choice=line))
    parts = candidates.training, candidates.evaluation
    counts = candidates.shared(covered(plan, config.budget))
    selections = [np.flatnonzero(~part.paid)[:count] for part, count in zip(parts, counts, strict=True)]
    choice = candidates.choice(selections[0], selections[1])
    images, stored_counts = {TRAINING: len(choice.images)}, {TRAINING: choice.stored}
    if len(choice.evaluation):
        images[VALIDATION], stored_counts[VALIDATION] = len(choice.evaluation), int(candidates.evaluation.paid.sum())
    return replace(plan, quote=replace(quote, images=images, images_known=stored_counts, choice=choice.line))


def _digests(rows: Sequence[str]) -> Digests:
    """Convert N hexadecimal digests to [N, 32] uint8."""
    return np.frombuffer(b"".join(bytes.fromhex(row) for row in rows), np.uint8).reshape(len(rows), 32)
