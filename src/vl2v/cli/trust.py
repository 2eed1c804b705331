"""`vl2v trust`: fit and show the trust data of a finished run. Heavy imports happen when the command runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vl2v.cli.common import (
    BudgetOpt,
    DropOpt,
    Json,
    MovedOpt,
    Quiet,
    StoreOpt,
    TeacherOpt,
    UnlabelledOpt,
    make_progress,
    money,
    storage_paths,
)
from vl2v.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from vl2v.commands.trust import DomainTrust, Refitted

SHOWN = (0.95, 0.8)  # coverages of the table; the JSON has all


def trust(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    reject: Annotated[
        bool | None,
        typer.Option(
            "--reject/--no-reject",
            help="Add or remove the negative texts that predict --reject needs to recognise images of no class.",
            show_default=False,
        ),
    ] = None,
    reject_texts: Annotated[
        Path | None, typer.Option(help="Text file with one noun per line for --reject, instead of the list of vl2v.")
    ] = None,
    quote: Annotated[bool, typer.Option("--quote", help="Only show the cost of --reject.")] = False,
    budget: BudgetOpt = None,
    teacher: TeacherOpt = None,
    data: MovedOpt = None,
    unlabelled: UnlabelledOpt = None,
    drop: DropOpt = None,
    store: StoreOpt = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Refit calibration and rejection from the saved predictions, and show their effect on each domain."""
    from vl2v.allocator import keep_freed_memory
    from vl2v.cli.show import show
    from vl2v.commands.moved import NewPlaces
    from vl2v.commands.trust import Reject, quote_reject, refit

    keep_freed_memory()
    _check_options(reject, {"--reject-texts": reject_texts, "--quote": quote or None, "--budget": budget,
                            "--teacher": teacher, "--store": store})  # fmt: skip
    change = None
    if reject is not None:
        storage = storage_paths(None, store, run)
        change = Reject(reject, reject_texts, money(budget), teacher, storage)
    if quote and change is not None:
        cost = quote_reject(run, change)
        show(cost.to_dict() if as_json else cost.table())
        return
    result = refit(run, make_progress(quiet, as_json), change, NewPlaces(data, unlabelled, drop))
    show(result.to_dict() if as_json else trust_text(result, run))


def _check_options(reject: bool | None, options: Mapping[str, object]) -> None:
    names = [name for name, value in options.items() if value is not None]
    if names and not reject:
        raise ConfigError(
            f"{', '.join(names)} can only be used to add negative texts.",
            expected="--reject",
            found="--no-reject" if reject is False else "no --reject",
            next_step="add --reject, or drop the option",
        )


def trust_text(result: Refitted, run: Path) -> RenderableType:
    """For a terminal, in percent."""
    from rich.console import Group

    wrong, negatives = result.reference.other, result.trust.negatives
    calibration = _table("calibration, percent", "domain", "", "images", wrong, "ECE", "calibrated")
    rejection = _table(
        f"percent; accepted and {wrong} at thresholds for this coverage of the validation images",
        "domain",
        *(f"{100 * c:g}: accepted, {wrong}" for c in SHOWN),
        *(["unusual batches of 1, 8, 32"] if any(domain.unusual for domain in result.domains) else []),
        *(["accepted by --reject"] if negatives else []),
    )
    for domain in result.domains:
        calibration.add_row(*_calibration(domain))
        rejection.add_row(*_rejection(domain))
    before, after = (100 * result.trust.calibration[f"ece_{when}"] for when in ("before", "after"))
    head = f"temperature {result.trust.temperature:.3f}; ECE on the validation images {before:.1f} -> {after:.1f}"
    if negatives:
        head += f"; {len(negatives.texts):,} negative texts"
    return Group(head, calibration, rejection, f"written: {run / 'student' / 'trust.json'}")


def _table(title: str, *columns: str) -> Table:
    """A table in which a narrow terminal folds cells and never cuts them off."""
    from rich.table import Table

    table = Table(title=title)
    for name in columns:
        table.add_column(name, justify="left" if name in ("domain", "") else "right", overflow="fold")
    return table


def _calibration(domain: DomainTrust) -> list[str]:
    from vl2v.evaluation.evaluation import percent

    row = domain.row
    figures = 1 - row.student, row.student_ece, row.student_ece_calibrated
    return [row.domain, row.role, f"{row.images:,}", *map(percent, figures)]


def _rejection(domain: DomainTrust) -> list[str]:
    from vl2v.evaluation.evaluation import percent
    from vl2v_runtime.trust import REJECT_COVERAGE

    cells = [domain.row.domain, *(", ".join(map(percent, domain.answered[coverage])) for coverage in SHOWN)]
    cells += [", ".join(map(percent, domain.unusual.values()))] if domain.unusual else []
    return cells + ([percent(domain.accepted_shares[REJECT_COVERAGE])] if domain.accepted_shares else [])
