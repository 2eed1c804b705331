"""State what a run would buy."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from vl2v.config import RunConfig
from vl2v.locations import StoragePaths
from vl2v.planning.choice import quoted_choice
from vl2v.planning.plan import plan_run
from vl2v.progress import Progress, Silent
from vl2v.renamed import old_keywords
from vl2v.teacher.base import Teacher
from vl2v.teacher.purchase.ledger import Quote
from vl2v.teacher.purchase.store import EmbeddingStore


@old_keywords
def quote_run(
    config: RunConfig,
    storage: StoragePaths | None = None,
    progress: Progress | None = None,
    teacher: Teacher | None = None,
) -> Quote:
    """State what a run would buy. Spends nothing; a student is not needed (`config.student.spec` may be empty)."""
    named = bool(config.student.spec)
    plan = plan_run(config, storage or StoragePaths(), progress, teacher=teacher, with_student=named)
    with closing(EmbeddingStore(plan.paths.store)) as store:
        plan = quoted_choice(plan, store)
        if not named:
            return plan.quote
        from vl2v.analysis.worth import worth_of  # imports torch
        from vl2v.training.duration import quoted_time

        advice = worth_of(plan, store, progress or Silent())
    return replace(plan.quote, training=quoted_time(plan), advice="" if advice is None else advice.line)
