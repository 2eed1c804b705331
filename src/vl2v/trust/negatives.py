"""Negative texts: read them, select those that are unlike the classes, and fit the thresholds of their score.

The score is that of NegLabel (Jiang et al., ICLR 2024), which was proposed for the zero-shot classifier; here it uses
the student's embeddings. The selection differs: NegLabel drops texts by their similarity to the class names alone,
which does not recognise "man" as an example of "person".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vl2v.errors import ConfigError
from vl2v.trust.rejection import thresholds
from vl2v_runtime.names import has_control
from vl2v_runtime.negatives import MAX_TEXT, Negatives
from vl2v_runtime.regular import read_text
from vl2v_runtime.trust import NEGATIVES, Trust

LIST = "nouns.txt"
MOST_TEXTS = 10_000  # the embeddings are part of trust.json and of exported files
SHARE = 0.05  # of a class's validation images
ROUNDING = 1e-4  # of a cosine


def read_nouns(file: Path | None = None) -> tuple[str, ...]:
    """Read the negative texts, one per line. Empty lines and lines that begin with # are ignored.

    Args:
        file: a text file of the user. None reads the list of vl2v: about 640 common nouns.

    Raises:
        ConfigError: if it cannot be read, or has no text, too many, or one that is too long or not printable.
    """
    step = "pass a text file with one noun per line to --reject-texts"
    try:
        content = (files("vl2v.trust") / LIST).read_text("utf-8") if file is None else read_text(file)
    except (OSError, ValueError) as error:
        found = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{file} cannot be read.", expected="a text file", found=found, next_step=step) from error
    lines = [(number, " ".join(line.split())) for number, line in enumerate(content.splitlines(), 1)]
    nouns: dict[str, str] = {}
    for number, line in lines:
        if not line or line.startswith("#"):
            continue
        if len(line) > MAX_TEXT or has_control(line):
            raise ConfigError(
                f"{file}, line {number}, is not a text.",
                expected=f"at most {MAX_TEXT:,} printable characters",
                found=repr(line[:40]),
                next_step=step,
            )
        nouns.setdefault(line.casefold(), line)
    if not 1 <= len(nouns) <= MOST_TEXTS:
        expected, found = f"1 to {MOST_TEXTS:,} different texts", f"{len(nouns):,}"
        raise ConfigError(f"{file} has no texts, or too many.", expected=expected, found=found, next_step=step)
    return tuple(nouns.values())


def resembling(texts: ArrayLike, head: ArrayLike, images: ArrayLike, labels: ArrayLike) -> NDArray[np.bool_]:
    """Mark texts that name a class in other words, or an example or a part of it: [M] bool.

    A text is marked if at least `SHARE` of the validation images of some class are more similar to it than to the text
    of their class.

    Args:
        texts: [M, D] their embeddings, rows of length one.
        head: [K, D] embeddings of the classes, rows of length one.
        images: [N, D] embeddings of validation images of the source domains, rows of length one.
        labels: [N] int, their classes.
    """
    negatives, classes = np.asarray(texts, np.float64), np.asarray(head, np.float64)
    rows, right = np.asarray(images, np.float64), np.asarray(labels)
    class_similarity = (rows * classes[right]).sum(axis=1)
    nearer = rows @ negatives.T > class_similarity[:, None]
    mask = np.zeros(len(negatives), dtype=bool)
    for label in np.unique(right):
        mask |= nearer[right == label].mean(axis=0) >= SHARE
    return mask


def with_negatives(
    trust: Trust, negatives: Negatives | None, logits: NDArray[np.float32], embeddings: NDArray[np.float32]
) -> Trust:
    """Return trust data with these negative texts and the thresholds of their score, or without any.

    Args:
        negatives: the negative texts; None removes those in `trust`.
        logits: [N, K] of validation images of the source domains, N at least 1.
        embeddings: [N, D] of the same images, rows of length one.
    """
    reject = {score: by_coverage for score, by_coverage in trust.reject.items() if score != NEGATIVES}
    if negatives is not None:
        scores = negatives.scores(logits, embeddings, trust.temperature)
        reject[NEGATIVES] = thresholds(scores)
    return replace(trust, reject=reject, negatives=negatives)


def make_negatives(
    texts: Sequence[str],
    embeddings: ArrayLike,
    scale: float,
    head: ArrayLike,
    images: ArrayLike,
    labels: ArrayLike,
) -> Negatives | None:
    """Select the negative texts of a student.

    Args:
        texts: M names.
        embeddings: [M, D] of these names, rows of length one.
        head: [K, D] embeddings of the classes, rows of length one.
        images: [N, D] embeddings of validation images of the source domains, rows of length one.
        labels: [N] int, their classes.

    Returns:
        The texts that do not resemble a class, see `resembling`, and are not more similar to the text of a class
        without images than to those of the others. None if there are none.
    """
    rounded = np.asarray(embeddings, np.float16)
    mask = ~resembling(rounded, head, images, labels)
    similar = _cosines(rounded, head)
    limit = float(similar[mask][:, np.unique(labels)].max(initial=-1.0))
    mask &= similar.max(axis=1) <= limit  # to classes without images
    return Negatives(tuple(texts), rounded, float(scale), limit).keep(mask)


def without_similar(trust: Trust, head: ArrayLike) -> Trust:
    """Return trust data without the negative texts that are too similar to the current classes of a student.

    It is used after classes were added, for which there are no images. A text is removed if it is more similar to the
    text of a class than all negative texts were to those of the classes when they were selected. The thresholds remain.
    Removing texts raises scores, so no image of the old classes that was accepted is rejected.

    Args:
        trust: trust data, with or without negative texts.
        head: [K, D] embeddings of the current classes, rows of length one.
    """
    negatives = trust.negatives
    if negatives is None:
        return trust
    remaining = negatives.keep(_cosines(negatives.embeddings, head).max(axis=1) <= negatives.limit + ROUNDING)
    reject = trust.reject if remaining else {score: part for score, part in trust.reject.items() if score != NEGATIVES}
    return replace(trust, reject=reject, negatives=remaining)


def _cosines(embeddings: NDArray[np.float16], head: ArrayLike) -> NDArray[np.float64]:
    """[M, K], of [M, D] and [K, D] with rows of length one."""
    cosines: NDArray[np.float64] = embeddings.astype(np.float64) @ np.asarray(head, np.float64).T
    return cosines
