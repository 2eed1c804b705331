"""Write the report at the end of a run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from torch import nn

from vl2v.evaluation.embeddings import save_embeddings
from vl2v.evaluation.split import DomainPredictions
from vl2v.planning.plan import RunPlan
from vl2v.progress import Progress, warn
from vl2v.purchase import BoughtEmbeddings
from vl2v.runs.folder import RunFolder


def write_report(
    plan: RunPlan,
    bought: BoughtEmbeddings,
    folder: RunFolder,
    projection: nn.Module,
    parts: Sequence[DomainPredictions],
    origin: str,
    progress: Progress,
) -> None:
    """Write `embeddings.npz`, `report.html` and the values of its figures. An error is reported as a warning."""
    from vl2v.reports.run import write_run_report  # imported here because it is slow

    try:
        save_embeddings(plan, bought, projection, parts, folder.work, folder.embeddings_file, origin)
        write_run_report(folder.path, plan.paths.store)
    except Exception as error:  # the run is finished and saved, whatever the error is
        fault = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        warn(progress, f"the report failed ({fault}); try again with vl2v report {shlex.quote(str(folder.path))}")
