"""The report of a finished run."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from vl2v.reports.accuracy import recall_section
from vl2v.reports.calibration import fitted
from vl2v.reports.comparison import compare
from vl2v.reports.page import Page
from vl2v.reports.prediction_sections import confusion_section, map_section, mistake_section, trust_section
from vl2v.reports.sections import (
    accuracy_section,
    advice_section,
    comparison_section,
    export_section,
    learning_section,
    making_section,
    spending_section,
    warnings_section,
)
from vl2v.reports.source import read_run
from vl2v.reports.spending import spending
from vl2v.reports.summary import lead_of, tiles_of, title_of

STATED = "vl2v {version}, {time} UTC. The values of all figures are in the folder report next to this page, as CSV."


def write_run_report(folder: Path, store: Path, hour_price: Decimal | None = None, out: Path | None = None) -> Path:
    """Write ``report.html`` and ``report/*.csv`` for a run, and return the path of the page. Older files are replaced.

    Args:
        folder: folder of a finished run. For runs of older versions, the report names the missing data.
        store: file of purchased embeddings with the ledger. It is not created if it is missing.
        hour_price: cost of an hour of this machine, in the currency of the teacher. None omits the cost of the student.
        out: folder to write to, created if it is missing. None writes to `folder`.

    Raises:
        RunError: if the folder does not contain a finished run.
    """
    source = read_run(folder)
    costs = spending(folder, source.content.get("asked", {}), store)
    comparison = compare(source, costs, hour_price)
    trust = source.trust
    if trust is None and source.predictions is not None:
        trust = fitted(source.predictions)
    sections = [
        warnings_section(source),
        accuracy_section(source),
        recall_section(source),
        comparison_section(source, comparison),
        spending_section(source, costs),
        advice_section(source),
        learning_section(source),
        confusion_section(source),
        trust_section(source, trust),
        mistake_section(source, trust),
        map_section(source),
        export_section(source),
        making_section(source),
    ]
    page = Page(
        "Report of a run",
        title_of(source),
        lead_of(source, costs, comparison),
        tiles_of(source, costs, comparison),
        [section for section in sections if section is not None],
        foot(),
    )
    return page.write(out or folder)


def foot() -> str:
    """Return the version of vl2v and the time."""
    from importlib.metadata import version

    return STATED.format(version=version("vl2v"), time=f"{datetime.now(UTC):%Y-%m-%d %H:%M}")
