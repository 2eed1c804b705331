"""Apply the trust data of a student with numpy: calibration, rejection thresholds, drift.

`vl2v.trust` fits them on validation images of the source domains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vl2v_runtime.drift import Drift, Reference
from vl2v_runtime.negatives import Negatives
from vl2v_runtime.numbers import number

FORMAT = 1
CONFIDENCE, ENERGY = "confidence", "energy"
SCORES = (CONFIDENCE, ENERGY)
NEGATIVES = "negatives"  # compares with negative texts; only for students that have some
ALL_SCORES = (*SCORES, NEGATIVES)
REJECT_COVERAGE = 0.95  # of --reject
UNSURE, REJECTED = "unsure", "none of these"  # how a table marks predictions that are not accepted
NO_NEGATIVES = "this student has no negative texts; add them: vl2v trust RUN --reject"
MOST = 100  # thresholds of a score; vl2v fits 7
LEAST, GREATEST = 1e-6, 1e6  # valid temperatures of a file; fitted ones are well inside


def probabilities(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float32]:
    """Compute softmax(logits / T), [N, K] float32, as in Guo et al. (ICML 2017).

    Args:
        logits: [N, K], finite, K at least 1.
        temperature: T > 0.

    Raises:
        ValueError: if the logits have another shape.
    """
    return softmax(_table(logits) / temperature).astype(np.float32)


def softmax(rows: ArrayLike) -> NDArray[np.float64]:
    """Compute the softmax of each row, [N, K] float64.

    Args:
        rows: [N, K], K at least 1. -inf results in 0; each row needs a larger number.

    Raises:
        ValueError: if the rows have another shape.
    """
    table = _table(rows)
    if not table.size:
        return np.zeros(table.shape)
    powers = np.exp(table - table.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def scores(logits: ArrayLike, score: str = CONFIDENCE, temperature: float = 1.0) -> NDArray[np.float64]:
    """Compute confidence scores of predictions, [N] float64. Higher scores are more certain.

    Args:
        logits: [N, K], K at least 1.
        score: ``confidence``, the maximum of softmax(logits / T), in [1 / K, 1] (Geifman and El-Yaniv, NeurIPS 2017);
            ``energy``, T * log sum exp(logits / T), the negative of the energy of Liu et al. (NeurIPS 2020).
        temperature: T > 0.

    Raises:
        ValueError: if the score is unknown, or the logits have another shape.
    """
    scaled = _table(logits) / temperature
    if score not in SCORES:
        raise ValueError(f"unknown score; expected {' or '.join(SCORES)}, found {score!r}")
    if not scaled.size:
        return np.zeros(len(scaled))
    top = scaled.max(axis=1)
    rest = np.exp(scaled - top[:, None]).sum(axis=1)
    values: NDArray[np.float64] = 1 / rest if score == CONFIDENCE else temperature * (top + np.log(rest))
    return values


def refusal(trust: Trust | None, score: str, *, linear: bool) -> dict[str, str] | None:
    """Say why no prediction of a student can be refused by a score.

    Args:
        linear: whether the student has a linear classifier, which cannot be given negative texts.

    Returns:
        The arguments of an error, or None if the student has what the score needs.
    """
    if trust is None:
        return {
            "problem": "This student has no rejection thresholds.",
            "expected": "trust data (trust.json, or in the exported file)",
            "found": "none: the run had no validation images, or trust.json was removed",
            "next_step": "fit it, also for the exported files of a run: vl2v trust RUN; or predict without --coverage",
        }
    if score != NEGATIVES or trust.negatives is not None:
        return None
    return {
        "problem": "This student has no negative texts.",
        "expected": "negative texts in its trust data",
        "found": "a linear classifier, which cannot be given any" if linear else "none",
        "next_step": "use --coverage with --score confidence or energy"
        if linear
        else "add them once: vl2v trust RUN --reject; or predict without --reject",
    }


def _thresholds(content: Mapping[str, Any]) -> dict[float, float]:
    if len(content) > MOST:
        raise ValueError(f"{len(content):,} thresholds of a score, expected at most {MOST}")
    return {
        number(float(share), "coverage", 0, 1): number(least, f"the threshold of {share}", -1e9, 1e9)
        for share, least in content.items()
    }


def _table(logits: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(logits, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] < 1:
        raise ValueError(f"expected logits [N, K] with K at least 1, found shape {list(rows.shape)}")
    return rows


@dataclass(frozen=True)
class Trust:
    """Trust data from ``trust.json`` of a student, or from the metadata of an exported file.

    Attributes:
        temperature: T > 0, by which logits are divided.
        reject: thresholds by score and coverage, the share of accepted validation images.
        calibration: number of ``images`` on which T was fitted, ``ece_before`` and ``ece_after`` in [0, 1].
        reference: summary of the training domains; None for a student without embeddings.
        negatives: negative texts; None if the student has none.
    """

    temperature: float
    reject: Mapping[str, Mapping[float, float]]
    calibration: Mapping[str, float] = field(default_factory=dict)
    reference: Reference | None = None
    negatives: Negatives | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"expected a finite temperature above 0, found {self.temperature}")

    @property
    def coverages(self) -> tuple[float, ...]:
        """Coverages that have a threshold, in decreasing order."""
        return tuple(sorted(self.reject.get(CONFIDENCE, {}), reverse=True))

    def probabilities(self, logits: ArrayLike) -> NDArray[np.float32]:
        """Compute calibrated probabilities, [N, K] float32, from [N, K] logits. The order within a row is the same."""
        return probabilities(logits, self.temperature)

    @property
    def available(self) -> tuple[str, ...]:
        """Scores that have thresholds."""
        return tuple(score for score in ALL_SCORES if score in self.reject)

    def scores(
        self, logits: ArrayLike, score: str = CONFIDENCE, embeddings: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """Compute scores of predictions, [N]; see `vl2v_runtime.trust.scores` and `Negatives.scores`.

        Args:
            logits: [N, K], not divided by the temperature.
            embeddings: [N, D], rows of length one; required by ``negatives``.

        Raises:
            ValueError: if the score is unknown or not available, or the shapes do not fit.
        """
        if score != NEGATIVES:
            return scores(logits, score, self.temperature)
        if self.negatives is None:
            raise ValueError(NO_NEGATIVES)
        if embeddings is None:
            raise ValueError(f"the score {NEGATIVES} needs the embeddings of the images")
        return self.negatives.scores(logits, embeddings, self.temperature)

    def check_dimension(self, dimension: int | None) -> None:
        """Check that centres and negative texts have the dimension of the student's embeddings.

        Args:
            dimension: D, or None for a student without embeddings.

        Raises:
            ValueError: if their dimension is different.
        """
        widths = {
            "centres": None if self.reference is None else self.reference.centres.shape[1],
            "negative texts": None if self.negatives is None else self.negatives.embeddings.shape[1],
        }
        for what, width in widths.items():
            if width is not None and width != dimension:
                raise ValueError(f"{what} of dimension {width}, embeddings of dimension {dimension}")

    def threshold(self, score: str = CONFIDENCE, coverage: float = 0.95) -> float:
        """Return the lowest accepted score. Coverage 1 accepts everything.

        Raises:
            ValueError: if the score is unknown, or no threshold was fitted for this coverage.
        """
        if score == NEGATIVES and self.negatives is None:
            raise ValueError(NO_NEGATIVES)
        if score not in self.reject:
            raise ValueError(f"unknown score; expected {' or '.join(self.reject) or 'none'}, found {score!r}")
        if coverage == 1:
            return -np.inf
        for share, value in self.reject[score].items():
            if abs(share - coverage) < 1e-9:
                return value
        expected = ", ".join(f"{share:g}" for share in (1.0, *self.coverages))
        raise ValueError(f"no threshold for this coverage; expected one of {expected}, found {coverage:g}")

    def accepts(
        self,
        logits: ArrayLike,
        score: str = CONFIDENCE,
        coverage: float = 0.95,
        embeddings: ArrayLike | None = None,
    ) -> NDArray[np.bool_]:
        """Return which predictions reach the threshold, [N] bool. A score that is NaN does not.

        Args:
            logits: [N, K], not divided by the temperature.
            score: ``confidence``, ``energy``, or ``negatives`` if the student has negative texts.
            coverage: share of the validation images that is accepted. The share of other images may differ.
            embeddings: [N, D] of the same images, rows of length one; required by ``negatives``.

        Raises:
            ValueError: see `threshold` and `scores`.
        """
        least, values = self.threshold(score, coverage), self.scores(logits, score, embeddings)
        accepted: NDArray[np.bool_] = values >= least
        return accepted

    def drift(self, embeddings: ArrayLike) -> Drift | None:
        """Compare a batch of [N, D] embeddings of length one with the training domains. None without a reference.

        Raises:
            ValueError: if the shape of the embeddings is different.
        """
        return self.reference.of(embeddings) if self.reference else None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Trust:
        """Read the result of `to_dict`.

        Raises:
            ValueError: if the content is invalid or of another format.
        """
        if not isinstance(content, Mapping) or content.get("format") != FORMAT:
            version = content.get("format") if isinstance(content, Mapping) else type(content).__name__
            raise ValueError(f"expected trust of format {FORMAT}, found {version}")
        try:
            negatives = content.get("negatives")
            score_names = SCORES if negatives is None else ALL_SCORES
            reject = {score: _thresholds(content["reject"][score]) for score in score_names}
            domains = content.get("domains")
            reference = Reference.from_dict(domains, content["drift"]) if domains else None
            temperature = number(content["temperature"], "temperature", LEAST, GREATEST)
            calibration = dict(content.get("calibration", {}))
            if len(calibration) > MOST:
                raise ValueError(f"{len(calibration):,} values of the calibration, expected at most {MOST}")
            for name, value in calibration.items():
                number(value, name, 0, 1e12)
            texts = None if negatives is None else Negatives.from_dict(negatives)
            return cls(temperature, reject, calibration, reference, texts)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"broken trust: {type(error).__name__} {error}"[:300]) from error

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        reject = {
            score: {f"{share:g}": least for share, least in thresholds.items()}
            for score, thresholds in self.reject.items()
        }
        content = {
            "format": FORMAT,
            "temperature": self.temperature,
            "calibration": dict(self.calibration),
            "reject": reject,
        }
        if self.negatives is not None:
            content["negatives"] = self.negatives.to_dict()
        if self.reference is None:
            return content
        domains, drift = self.reference.to_dict()
        return content | {"domains": domains, "drift": drift}
