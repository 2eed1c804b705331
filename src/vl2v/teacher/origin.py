"""Check that embeddings come from the quoted model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from vl2v.errors import TeacherError
from vl2v.teacher.base import TeacherCard
from vl2v.teacher.http.remote import Answer, Kind, Origin
from vl2v.teacher.purchase.store import EmbeddingStore

ENOUGH = 8  # embeddings from which on their lengths say what is usual
EQUAL = 0.01  # relative spread of lengths that are meant to be equal
OFF = 0.05  # relative difference from such lengths that is none of theirs
FAR = 3.0  # factor beyond all lengths so far, where they differ


def other_revision(card: TeacherCard, origin: Origin) -> TeacherError | None:
    """The error for an answer of another revision or logit scale than the quoted ones; None if they agree.

    Args:
        card: the teacher as it was quoted.
        origin: what the answer says of itself; what it leaves out is not compared.
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
    """Whether the answers of one purchase seem to come from one model, where a vendor sends no revision.

    Compared are the model that an answer names, and the length of its embeddings with those that are stored. Neither is
    proof, so this is left out for a teacher that the user accepts as it is.
    """

    _names: dict[Kind, str] = field(default_factory=dict)

    def fault(self, store: EmbeddingStore, card: TeacherCard, kind: Kind, answer: Answer) -> TeacherError | None:
        """The error for an answer that does not fit the ones before it; None if it does.

        Args:
            store: where the earlier ones are.
            card: the teacher's.
            kind: of the answer.
            answer: not stored yet.
        """
        model = answer.origin.model
        first = self._names.setdefault(kind, model) if model is not None else None
        if first != model:
            return _changed(card, f"responses of the model {first}, as before", f"a response of the model {model}")
        known, lengths = store.lengths(card, kind, 64), np.linalg.norm(answer.vectors.astype(np.float64), axis=1)
        if len(known) < ENOUGH or not len(lengths):
            return None
        low, high, found = float(known.min()), float(known.max()), float(np.median(lengths))
        equal = high / low < 1 + EQUAL
        if abs(found / low - 1) > OFF if equal else not low / FAR <= found <= high * FAR:
            return _changed(card, f"embeddings of length {low:.4g} to {high:.4g}, as before", f"length {found:.4g}")
        return None


def _changed(card: TeacherCard, expected: str, found: str) -> TeacherError:
    return TeacherError(
        f"{card.identity} seems to have changed its model during the purchase.",
        expected=expected,
        found=found,
        next_step="ask the vendor; nothing of this response was stored. If it is the same model: --accept-teacher",
    )
