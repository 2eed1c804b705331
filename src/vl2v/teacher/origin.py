"""Whether answers come from the model that was quoted."""

from __future__ import annotations

import math

from vl2v.errors import TeacherError
from vl2v.teacher.base import TeacherCard
from vl2v.teacher.remote import Origin


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
        next_step="ask for a new quote (vl2v quote); what was bought stays stored under the old revision, "
        "and nothing of this answer was stored",
    )
