"""Tests whether a teacher's embeddings agree with the labels better than chance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST = 48  # minimum number of labelled responses for a test against chance
WEAK = 0.58  # share of comparisons in which the weakest useful teacher scores the right class higher
DOUBT = 2.9  # standard errors below its mean that a weak teacher reaches by bad luck in one case of 500
CHANCE = 1.0  # standard errors above chance at which a purchase is never stopped
SURE = 3.0  # standard errors above chance at which the test ends
ORDER = 5.0  # standard errors above chance at which another order of the responses is taken for the right one
MIXED = 3.5  # standard errors at which the pooled responses of a request fit its labels
LEAST_ORDERED = 16  # minimum number of labelled responses for the tests of the order


@dataclass(frozen=True)
class Fault:
    """A reason why responses are unusable; `problem` is a sentence without its subject, the teacher."""

    problem: str
    expected: str
    found: str
    step: str


class Agreement:
    """A comparison of zero-shot scores with labels.

    The statistic is the share of the other classes that score below the class of an image, averaged over images. It is
    1/2 for guesses, for any number of classes. Scores are centred by class first, so that a class that always scores
    high has no influence. Under the null hypothesis, all permutations of the labels are equally likely. The mean and
    variance of the statistic are then known (Hoeffding 1951). z denotes the distance from this mean in standard errors.

    Args:
        head: [K, D] float64, the text head with rows of length one.
    """

    def __init__(self, head: Floats) -> None:
        self._head = head
        self._scores: list[Floats] = []  # [K] each, of labelled images
        self._labels: list[int] = []
        self._requests: list[Ints] = []  # for each ordered request, its row indices; -1 for an image without a label
        self._sure = False

    def add(self, rows: Floats, labels: Ints, ordered: bool) -> None:
        """Add the response to one request.

        Args:
            rows: [N, D] float64, image embeddings of length one.
            labels: [N] int64, class indices; -1 for an image without a label.
            ordered: whether the rows are in the order in which they were received.
        """
        rows_with_label = np.flatnonzero(labels >= 0)
        index = np.full(len(labels), -1, np.int64)
        index[rows_with_label] = len(self._labels) + np.arange(len(rows_with_label))
        self._scores += list(rows[rows_with_label] @ self._head.T)
        self._labels += labels[rows_with_label].tolist()
        if ordered and len(rows_with_label) > 1:
            self._requests.append(index)

    def fault(self) -> Fault | None:
        """Return the fault of the responses so far; None if there is none, or too few responses to decide."""
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
        """Return an order in which the responses fit the labels, and the number of correct images; None without one."""
        for name, order in ORDERS.items():
            pairs = [(a, b) for index in self._requests for a, b in zip(index, index[order(len(index))], strict=True)]
            both = np.array([(a, b) for a, b in pairs if a >= 0 and b >= 0], np.int64).reshape(-1, 2)
            if len(both) < LEAST_ORDERED:
                continue
            other = _z(ranks[both[:, 1]], labels[both[:, 0]])
            if other is not None and other >= max(ORDER, z + SURE):
                return name, int((scores[both[:, 1]].argmax(1) == labels[both[:, 0]]).sum())
        return None

    def _inside(self, ranks: Floats, labels: Ints) -> float | None:
        """Return z within the requests only; None if no request has two labelled images."""
        excess = variance = 0.0
        for index in self._requests:
            rows = index[index >= 0]
            if len(rows) > 1:
                more, spread = _excess(ranks[rows], labels[rows])
                excess, variance = excess + more, variance + spread
        return excess / math.sqrt(variance) if variance > 1e-9 else None

    def _mixed_up(self, ranks: Floats, labels: Ints) -> bool:
        """Whether responses, in any order, fit the labels of their own request better than those of other requests."""
        group = np.full(len(labels), -1)
        for number, index in enumerate(self._requests):
            group[index[index >= 0]] = number
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
    """Return [N, K], the share of the other classes that score lower; equal scores count half."""
    below = (scores[:, :, None] > scores[:, None, :]).mean(2) if scores.shape[1] <= 64 else None
    if below is not None:
        equal = (scores[:, :, None] == scores[:, None, :]).mean(2) - 1 / scores.shape[1]
        return np.asarray((below + equal / 2) * scores.shape[1] / (scores.shape[1] - 1), np.float64)
    return np.asarray(scores.argsort(1).argsort(1) / (scores.shape[1] - 1), np.float64)


def _z(ranks: Floats, labels: Ints) -> float | None:
    """Return the standard errors by which the mean rank of the labels exceeds chance; None without any variance."""
    excess, variance = _excess(ranks, labels)
    return excess / math.sqrt(variance) if variance > 1e-9 else None


def _excess(ranks: Floats, labels: Ints) -> tuple[float, float]:
    """Return the excess of the summed ranks of the labels over its mean for permuted labels, and the variance."""
    table = ranks[:, labels]  # the rank of image i with the label of image j
    count = len(labels)
    centred = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    return float(np.trace(table) - count * table.mean()), float((centred**2).sum()) / (count - 1)


def _weak(count: int, labels: Ints, classes: int) -> float:
    """Return the mean z of the weakest useful teacher."""
    shares = np.bincount(labels) / count
    varied = (1 - float((shares**2).sum())) / (1 - 1 / classes)  # below 1 if few classes have most images
    spread = math.sqrt((classes + 1) / (12 * (classes - 1)))
    return (WEAK - 0.5) / spread * math.sqrt(count * varied)
