"""Write the report at the end of a run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from torch import nn

from vl2v.evaluation.embeddings import keep_embeddings
from vl2v.evaluation.judging import Part
from vl2v.planning.session import Session
from vl2v.progress import warn
from vl2v.runs.folder import RunFolder


def report_at_end(session: Session, folder: RunFolder, projection: nn.Module, parts: Sequence[Part]) -> None:
    """Write `embeddings.npz`, `report.html` and the values of its figures; a fault is told and loses nothing.

    Args:
        session: the run's.
        folder: with everything else written.
        projection: P after training.
        parts: the saved student's answers.
    """
    from vl2v.reports.run import write_run_report  # slow to import

    try:
        keep_embeddings(session, projection, parts, folder.work, folder.embeddings_file)
        write_run_report(folder.path, session.store.path)
    except Exception as error:  # whatever it is, the run is finished and saved
        fault = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        warn(
            session.progress,
            f"the report failed ({fault}); try again with vl2v report {shlex.quote(str(folder.path))}",
        )
