"""Checks that embeddings come from the quoted model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from vl2v.errors import TeacherError
from vl2v.teacher.base import TeacherCard
from vl2v.teacher.http.remote import Answer, Kind, Origin
from vl2v.teacher.purchase.store import EmbeddingStore

ENOUGH = 8  # minimum number of stored embeddings for a comparison of norms
EQUAL = 0.01  # relative spread below which norms count as equal
OFF = 0.05  # relative difference from equal norms that counts as a fault
FAR = 3.0  # factor beyond the range of unequal norms that counts as a fault


def other_revision(card: TeacherCard, origin: Origin) -> TeacherError | None:
    """Return the error for a response of another revision or logit scale than quoted; None if they agree.

    Args:
        card: description of the teacher at the time of the quote.
        origin: origin of the response; what it does not state is not compared.
    """
    pairs = []
    if origin.revision is not None and origin.revision != card.revision:
        pairs.append(("revision", card.revision, origin.revision))
    if origin.logit_scale is not None and not math.isclose(origin.logit_scale, card.logit_scale, rel_tol=1e-6):
        pairs.append(("logit scale", f"{card.logit_scale:g}", f"{origin.logit_scale:g}"))
    if not pairs:
        return None
    return TeacherError(
        f"{card.identity} changed its model during the purchase.",
        expected=", ".join(f"{name} {quoted}, as quoted" for name, quoted, _ in pairs),
        found=", ".join(f"{name} {answered}" for name, _, answered in pairs),
        next_step="get a new quote (vl2v quote); earlier embeddings remain stored under the old revision, "
        "and nothing of this response was stored",
    )


@dataclass
class Consistency:
    """A check that the responses of a purchase come from one model, for vendors that send no revision.

    It compares the names of the model in the responses, and the norms of the embeddings with the stored ones. Neither
    is proof, so the check is skipped with ``--accept-teacher``.
    """

    _names: dict[Kind, str] = field(default_factory=dict)

    def fault(self, store: EmbeddingStore, card: TeacherCard, kind: Kind, answer: Answer) -> TeacherError | None:
        """Return the error for a response that does not match the earlier ones; None if it does.

        Args:
            answer: the response, which is not stored yet.
        """
        model = answer.origin.model
        first = self._names.setdefault(kind, model) if model is not None else None
        if first != model:
            return _changed(card, f"responses of the model {first}, as before", f"a response of the model {model}")
        stored_lengths, lengths = (
            store.lengths(card, kind, 64),
            np.linalg.norm(answer.embeddings.astype(np.float64), axis=1),
        )
        if len(stored_lengths) < ENOUGH or not len(lengths):
            return None
        low, high, median = float(stored_lengths.min()), float(stored_lengths.max()), float(np.median(lengths))
        equal = high / low < 1 + EQUAL
        if abs(median / low - 1) > OFF if equal else not low / FAR <= median <= high * FAR:
            return _changed(card, f"embeddings of length {low:.4g} to {high:.4g}, as before", f"length {median:.4g}")
        return None


def _changed(card: TeacherCard, expected: str, found: str) -> TeacherError:
    return TeacherError(
        f"{card.identity} seems to have changed its model during the purchase.",
        expected=expected,
        found=found,
        next_step="ask the vendor; nothing of this response was stored. If it is the same model: --accept-teacher",
    )
