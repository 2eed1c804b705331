"""Tests whether a teacher's embeddings agree with the labels better than chance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST = 48  # labelled answers, below which chance explains too much
WEAK = 0.58  # how often the right class scores above another one with the weakest teacher that is still of use
DOUBT = 2.9  # standard errors by which a weak teacher may be unlucky: one of 500 is
CHANCE = 1.0  # standard errors above chance, from which on a teacher is never stopped
SURE = 3.0  # standard errors above chance, from which on a teacher is not doubted any more
ORDER = 5.0  # the same of an order in which the answers did not come, to say that they came in a wrong one
MIXED = 3.5  # the same of a request's answers, pooled, with its labels
LEAST_ORDERED = 16  # labelled answers for that


@dataclass(frozen=True)
class Fault:
    """Why answers are of no use; `problem` is a sentence without its subject, the teacher."""

    problem: str
    expected: str
    found: str
    step: str


class Agreement:
    """Compares zero-shot scores with labels.

    The measure is the share of the other classes that score below an image's own class, averaged over images: 1/2 by
    guessing, whatever the number of classes. Scores are centred by class before, so that a class that always scores
    high counts for nothing. Its distribution by guessing is the one over all permutations of the labels, whose mean and
    variance are known (Hoeffding 1951); the distance from that mean in standard errors is called z below.

    Args:
        head: [K, D], unit rows of the text head.
    """

    def __init__(self, head: Floats) -> None:
        self._head = head
        self._scores: list[Floats] = []  # [K] each, of labelled images
        self._labels: list[int] = []
        self._requests: list[Ints] = []  # for every ordered request, its rows above; -1 where an image has no label
        self._sure = False

    def add(self, rows: Floats, labels: Ints, ordered: bool) -> None:
        """Add the answers to one request.

        Args:
            rows: [N, D], unit rows.
            labels: [N], -1 where there is none.
            ordered: whether they stand in the order in which they came.
        """
        known = np.flatnonzero(labels >= 0)
        place = np.full(len(labels), -1, np.int64)
        place[known] = len(self._labels) + np.arange(len(known))
        self._scores += list(rows[known] @ self._head.T)
        self._labels += labels[known].tolist()
        if ordered and len(known) > 1:
            self._requests.append(place)

    def fault(self) -> Fault | None:
        """What is wrong with the answers so far; None if they are fine, or too few to tell."""
        count, classes = len(self._labels), len(self._head)
        if self._sure or classes < 2 or count < LEAST_ORDERED:
            return None
        labels, scores = np.array(self._labels), np.stack(self._scores)
        ranks = _ranks(scores - scores.mean(0))
        z = _z(ranks, labels)
        if z is None:
            return None
        right = int((scores.argmax(1) == labels).sum())
        if (order := self._other_order(ranks, scores, labels, z)) is not None:
            better = f"{order[1]} of {count} images correct if the rows of each response are {order[0]}"
            return _wrong_order(f"{better}, {right} in the original order")
        if count < LEAST:
            return None
        inside = self._inside(ranks, labels)
        if inside is not None and inside < CHANCE and self._mixed_up(ranks, labels):
            return _wrong_order("each response fits the images of its request, but in another order")
        if z >= SURE:
            self._sure = inside is None or inside >= SURE
            return None
        if z >= min(CHANCE, _weak(count, labels, classes) - DOUBT):
            return None
        return Fault(
            "agrees with your labels no better than chance.",
            f"more than {1 / classes:.1%} of the images correct, which is chance",
            f"{right} of {count} correct ({right / count:.1%})",
            "check the class names (classes.yaml), --prompts, and the order of the teacher's responses",
        )

    def _other_order(self, ranks: Floats, scores: Floats, labels: Ints, z: float) -> tuple[str, int] | None:
        """The order in which the answers fit the labels, with how many images are right then; None if there is none."""
        for name, order in ORDERS.items():
            pairs = [(a, b) for place in self._requests for a, b in zip(place, place[order(len(place))], strict=True)]
            both = np.array([(a, b) for a, b in pairs if a >= 0 and b >= 0], np.int64).reshape(-1, 2)
            if len(both) < LEAST_ORDERED:
                continue
            other = _z(ranks[both[:, 1]], labels[both[:, 0]])
            if other is not None and other >= max(ORDER, z + SURE):
                return name, int((scores[both[:, 1]].argmax(1) == labels[both[:, 0]]).sum())
        return None

    def _inside(self, ranks: Floats, labels: Ints) -> float | None:
        """z of the labels' order within the requests alone; None if no request has two labelled images."""
        excess = variance = 0.0
        for place in self._requests:
            rows = place[place >= 0]
            if len(rows) > 1:
                more, spread = _excess(ranks[rows], labels[rows])
                excess, variance = excess + more, variance + spread
        return excess / math.sqrt(variance) if variance > 1e-9 else None

    def _mixed_up(self, ranks: Floats, labels: Ints) -> bool:
        """Whether answers fit the labels of their request, in whatever order, better than those of other requests."""
        group = np.full(len(labels), -1)
        for number, place in enumerate(self._requests):
            group[place[place >= 0]] = number
        inside = group >= 0
        ranks, labels, group = ranks[inside], labels[inside], group[inside]
        same = (group[:, None] == group[None]) / np.bincount(group)[group][:, None]
        pooled, every, rng = same @ ranks, np.arange(len(labels)), np.random.default_rng(0)
        guessed = [pooled[every, rng.permutation(labels)].mean() for _ in range(300)]
        return bool(pooled[every, labels].mean() > np.mean(guessed) + MIXED * np.std(guessed))


def _wrong_order(found: str) -> Fault:
    return Fault(
        "returns embeddings in the wrong order.",
        "row i of a response for image i of the request",
        found,
        "ask the vendor",
    )


def _swapped(count: int) -> Ints:
    order = np.arange(count)
    order[: count // 2 * 2] ^= 1
    return order


ORDERS: dict[str, Callable[[int], Ints]] = {
    "reversed": lambda n: np.arange(n)[::-1],
    "moved down by one": lambda n: np.roll(np.arange(n), 1),
    "moved up by one": lambda n: np.roll(np.arange(n), -1),
    "swapped in pairs": _swapped,
    "sorted by their index as text": lambda n: np.array(sorted(range(n), key=str), np.int64),
    "sorted back from their index as text": lambda n: np.argsort(np.array(sorted(range(n), key=str), np.int64)),
}


def _ranks(scores: Floats) -> Floats:
    """[N, K]: the share of the other classes that score lower, equal ones counted by half."""
    below = (scores[:, :, None] > scores[:, None, :]).mean(2) if scores.shape[1] <= 64 else None
    if below is not None:
        equal = (scores[:, :, None] == scores[:, None, :]).mean(2) - 1 / scores.shape[1]
        return np.asarray((below + equal / 2) * scores.shape[1] / (scores.shape[1] - 1), np.float64)
    return np.asarray(scores.argsort(1).argsort(1) / (scores.shape[1] - 1), np.float64)


def _z(ranks: Floats, labels: Ints) -> float | None:
    """How far the mean rank of the images' own classes lies above guessing, in standard errors; None if it cannot."""
    excess, variance = _excess(ranks, labels)
    return excess / math.sqrt(variance) if variance > 1e-9 else None


def _excess(ranks: Floats, labels: Ints) -> tuple[float, float]:
    """The sum of the own classes' ranks above its mean over all permutations of the labels, and its variance there."""
    table = ranks[:, labels]  # what image i would get with the label of image j
    count = len(labels)
    centred = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    return float(np.trace(table) - count * table.mean()), float((centred**2).sum()) / (count - 1)


def _weak(count: int, labels: Ints, classes: int) -> float:
    """z that the weakest useful teacher has on average."""
    shares = np.bincount(labels) / count
    varied = (1 - float((shares**2).sum())) / (1 - 1 / classes)  # below 1 where few classes have most images
    spread = math.sqrt((classes + 1) / (12 * (classes - 1)))
    return (WEAK - 0.5) / spread * math.sqrt(count * varied)
