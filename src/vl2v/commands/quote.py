"""State what a run would buy."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from vl2v.cluster.connection import ClusterUse
from vl2v.cluster.pool import cluster_workers
from vl2v.config import RunConfig
from vl2v.locations import StoragePaths
from vl2v.planning.choice import quoted_choice
from vl2v.planning.models import ready_teacher
from vl2v.planning.plan import plan_run
from vl2v.planning.prepare import list_folder
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
    cluster: ClusterUse | None = None,
) -> Quote:
    """State what a run would buy. Spends nothing; a student is not needed (`config.student.spec` may be empty).

    The workers of `cluster` read the images.
    """
    with_student, listing, backbone = bool(config.student.spec), list_folder(config.data), None
    storage, progress = storage or StoragePaths(), progress or Silent()
    teacher = ready_teacher(config, teacher)
    if with_student:
        from vl2v.training.image_size import with_image_size  # imports torch
        from vl2v.training.process import make_accelerator

        config, backbone = with_image_size(config, listing, make_accelerator(config), progress)
    with cluster_workers(cluster, progress):
        plan = plan_run(
            config, storage, progress, teacher=teacher, backbone=backbone, with_student=with_student, listing=listing
        )
    with closing(EmbeddingStore(plan.paths.store)) as store:
        plan = quoted_choice(plan, store)
        if not with_student:
            return plan.quote
        from vl2v.analysis.teacher_value import advice_for  # imports torch
        from vl2v.training.duration import quoted_time

        advice = advice_for(plan, store, progress)
    return replace(plan.quote, training=quoted_time(plan), advice="" if advice is None else advice.line)
