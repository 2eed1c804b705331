"""A plan that queries a part of the training images, because the budget does not cover all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vl2v.data.pixels import Digests
from vl2v.data.splits import DatasetRows
from vl2v.errors import RunError
from vl2v.json_files import read_json, write_json
from vl2v.planning.plan import RunPlan, quote_again
from vl2v.planning.requirements import EVALUATION, TRAINING, UNSEEN
from vl2v.teacher.purchase.ledger import Ledger
from vl2v.teacher.purchase.store import EmbeddingStore


class _File(BaseModel):
    """The layout of the file of a choice."""

    model_config = ConfigDict(extra="allow", strict=True)
    candidates: int = Field(ge=1)
    stored: int = Field(ge=0)
    images: list[str]


@dataclass(frozen=True)
class Choice:
    """The training images that a run queries.

    Attributes:
        images: [N, 32] uint8, SHA-256 of their contents: those that were stored already, then those to buy in the order
            of choice.
        stored: how many of them were stored or paid before.
        candidates: number of distinct training images.
    """

    images: Digests
    stored: int
    candidates: int

    def write(self, file: Path) -> None:
        """Write the choice to a file, for a run that is resumed and for other processes."""
        content = {"candidates": self.candidates, "stored": self.stored}
        write_json(file, content | {"images": [row.tobytes().hex() for row in self.images]})

    @classmethod
    def read(cls, file: Path) -> Choice | None:
        """Read the choice of a run; None if there is no file.

        Raises:
            RunError: if the file is damaged.
        """
        if not file.exists():
            return None
        try:
            found = _File.model_validate(read_json(file))
            rows = b"".join(bytes.fromhex(image) for image in found.images)
            images = np.frombuffer(rows, np.uint8).reshape(len(found.images), 32)
            if found.stored > len(images) or len(images) > found.candidates:
                raise ValueError(f"{len(images)} images, {found.stored} stored, {found.candidates} candidates")
        except (ValidationError, ValueError) as error:
            raise RunError(
                f"{file} is damaged.",
                expected="the images that the run queries",
                found=" ".join(str(error).split())[:300],
                next_step="start a new run with another --out; purchased embeddings are reused for free",
            ) from error
        return cls(images, found.stored, found.candidates)

    @property
    def line(self) -> str:
        """One line for people."""
        if len(self.images) == self.candidates:
            return f"the budget covers all {self.candidates:,} training images; the evaluation images are not queried"
        more = f", {self.stored:,} of them stored already" if self.stored else ""
        return (
            f"the budget covers {len(self.images):,} of {self.candidates:,} training images{more}: a diverse set on "
            "the frozen student's features. The others are trained on by their labels alone, and the evaluation "
            "images are not queried"
        )


@dataclass(frozen=True)
class Candidates:
    """The distinct training images of a plan.

    Attributes:
        digests: [N, 32] uint8, SHA-256 of their contents.
        domains: [N] int64, the number of the source domain.
        paid: [N] bool, whether the embedding is in the store or in a batch that was paid and is in flight.
    """

    digests: Digests
    domains: NDArray[np.int64]
    paid: NDArray[np.bool_]

    @classmethod
    def of(cls, plan: RunPlan, store: EmbeddingStore) -> Candidates:
        """The candidates of a plan, in the order of its training examples."""
        groups = plan.examples.groups[: len(plan.split.sources)]
        rows: DatasetRows = np.concatenate(groups)
        domains = np.repeat(np.arange(len(groups), dtype=np.int64), [len(group) for group in groups])
        digests = plan.examples.digests[rows]
        first = np.sort(np.unique(digests, axis=0, return_index=True)[1])
        digests, domains = digests[first], domains[first]
        paid = store.knows_images(plan.card, digests)
        if getattr(plan.teacher, "idempotent", False):
            for batch in store.pending(plan.card, "image", 0):
                paid |= among(digests, np.frombuffer(batch.members, np.uint8).reshape(-1, 32))
        return cls(digests, domains, paid)


def affordable(plan: RunPlan, money: Decimal, store: EmbeddingStore) -> bool:
    """Whether an amount of money covers the quote, less what was reserved for batches in flight."""
    reserved = Ledger(store).in_flight(plan.card) if getattr(plan.teacher, "idempotent", False) else Decimal(0)
    return plan.quote.cost - reserved <= max(money, Decimal(0))


def covered(plan: RunPlan, money: Decimal) -> int:
    """How many training images an amount of money buys, after the texts."""
    price = plan.card.price
    left = money - price.of(texts=plan.quote.text_queries)
    return max(0, int(left * 1000 // price.per_1000_images)) if price.per_1000_images else 0


def narrowed(plan: RunPlan, choice: Choice, store: EmbeddingStore) -> RunPlan:
    """The plan that queries the chosen training images, images without labels as before, and none for evaluation."""
    every = plan.requirements.purposes
    rest = {key: digests for key, digests in every.items() if key[0] not in (TRAINING, EVALUATION, UNSEEN)}
    requirements = replace(plan.requirements, purposes={(TRAINING, 0): choice.images} | rest)
    queried = among(plan.examples.digests, choice.images) | (plan.examples.labels < 0)
    fewer = replace(plan, requirements=requirements, queried=None if queried.all() else queried)
    return replace(fewer, quote=quote_again(fewer, store))


def quoted_choice(plan: RunPlan, store: EmbeddingStore) -> RunPlan:
    """The plan with the quote of a run that chooses its images; the images themselves are not chosen yet."""
    config, quote = plan.config, plan.quote
    if config.when_short != "choose" or config.budget is None or affordable(plan, config.budget, store):
        return plan
    candidates = Candidates.of(plan, store)
    stored, every = int(candidates.paid.sum()), len(candidates.paid)
    images = min(every, stored + covered(plan, config.budget))
    choice = Choice(candidates.digests[:images], stored, every)
    fewer = replace(quote, images={TRAINING: images}, images_known={TRAINING: stored}, choice=choice.line)
    return replace(plan, quote=fewer)


def among(digests: Digests, others: Digests) -> NDArray[np.bool_]:
    """Which of [N, 32] digests are among others, [N] bool."""
    kind = np.dtype((np.void, 32))
    found: NDArray[np.bool_] = np.isin(
        np.ascontiguousarray(digests).view(kind).ravel(), np.ascontiguousarray(others).view(kind).ravel()
    )
    return found
