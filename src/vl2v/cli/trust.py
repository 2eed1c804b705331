"""`vl2v trust`: fit and show the trust data of a finished run. Heavy imports happen when the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vl2v.cli.common import Json, Quiet, guarded, make_progress

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vl2v.commands.trust import DomainTrust, Refitted

SHOWN = (0.95, 0.8)  # coverages of the table; the JSON has all


def trust(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Refit calibration and rejection from the saved predictions, and show their effect on each domain."""
    from vl2v.allocator import keep_freed_memory
    from vl2v.cli.printing import show
    from vl2v.commands.trust import refit

    keep_freed_memory()
    found = refit(run, make_progress(quiet, as_json))
    show(found.to_dict() if as_json else trust_text(found, run))


def trust_text(found: Refitted, run: Path) -> RenderableType:
    """For a terminal, in percent."""
    from rich.console import Group
    from rich.table import Table

    wrong = found.reference.other
    table = Table(title=f"percent; 'accepted' and '{wrong}' at thresholds for this coverage of the validation images")
    for name in ("domain", "", "images", wrong):
        table.add_column(name, justify="left" if name in ("domain", "") else "right")
    titles = [f"{100 * c:g}: accepted, {wrong}" for c in SHOWN]
    unusual = any(domain.unusual for domain in found.domains)
    for name in ("ECE", "calibrated", *titles, *(["unusual batches of 1, 8, 32"] if unusual else [])):
        table.add_column(name, justify="right")
    for domain in found.domains:
        table.add_row(*_cells(domain))
    before, after = (100 * found.trust.calibration[f"ece_{when}"] for when in ("before", "after"))
    head = f"temperature {found.trust.temperature:.3f}; ECE on the validation images {before:.1f} -> {after:.1f}"
    return Group(head, table, f"written: {run / 'student' / 'trust.json'}")


def _cells(domain: DomainTrust) -> list[str]:
    from vl2v.evaluation.evaluation import percent

    row = domain.row
    cells = [row.domain, row.role, f"{row.images:,}", *map(percent, (1 - row.student, row.student_ece))]
    cells.append(percent(row.student_ece_calibrated))
    cells += [", ".join(map(percent, domain.answered[coverage])) for coverage in SHOWN]
    return cells + ([", ".join(map(percent, domain.unusual.values()))] if domain.unusual else [])


def attach(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("trust")(guarded(trust))
