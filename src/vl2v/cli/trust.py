"""`vl2v trust` and `vl2v expect`: trust in a finished student. Heavy imports happen when a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vl2v.allocator import keep_freed_memory
from vl2v.cli import common

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from vl2v.commands.expect import Expected
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
    budget: common.BudgetOpt = None,
    teacher: common.TeacherOpt = None,
    data: common.MovedOpt = None,
    unlabelled: common.UnlabelledOpt = None,
    drop: common.DropOpt = None,
    store: common.StoreOpt = None,
    quiet: common.Quiet = False,
    as_json: common.Json = False,
) -> None:
    """Refit calibration and rejection from the saved predictions, and show their effect on each domain."""
    from vl2v.cli.console import show
    from vl2v.commands.moved import NewLocations
    from vl2v.commands.trust import Reject, quote_reject, refit

    keep_freed_memory()
    options = {"--reject-texts": reject_texts, "--budget": budget, "--teacher": teacher, "--store": store}
    common.ensure_effect(
        "--reject", bool(reject), {flag: value is not None for flag, value in options.items()} | {"--quote": quote}
    )
    change = None
    if reject is not None:
        storage = common.storage_paths(None, store, run)
        change = Reject(reject, reject_texts, common.money(budget), teacher, storage)
    if quote and change is not None:
        cost = quote_reject(run, change)
        show(cost.to_dict() if as_json else cost.table())
        return
    result = refit(run, common.make_progress(quiet, as_json), change, NewLocations(data, unlabelled, drop))
    show(result.to_dict() if as_json else trust_text(result, run))


def trust_text(result: Refitted, run: Path) -> RenderableType:
    """For a terminal, in percent."""
    from rich.console import Group

    from vl2v.evaluation.evaluation import percent

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
        row = domain.row
        shares = map(percent, (1 - row.student, row.student_ece, row.student_ece_calibrated))
        calibration.add_row(row.domain, row.role, f"{row.images:,}", *shares)
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


def _rejection(domain: DomainTrust) -> list[str]:
    from vl2v.evaluation.evaluation import percent
    from vl2v_runtime.trust import REJECT_COVERAGE

    cells = [domain.row.domain, *(", ".join(map(percent, domain.answered[coverage])) for coverage in SHOWN)]
    cells += [", ".join(map(percent, domain.unusual.values()))] if domain.unusual else []
    return cells + ([percent(domain.accepted_shares[REJECT_COVERAGE])] if domain.accepted_shares else [])


def expect(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    images: Annotated[
        list[Path],
        typer.Argument(help="Unlabelled images of a new site: files, folders, tables, or datasets of other tools."),
    ],
    image: common.ImageOpt = None,
    data: common.MovedOpt = None,
    unlabelled: common.UnlabelledOpt = None,
    drop: common.DropOpt = None,
    quiet: common.Quiet = False,
    as_json: common.Json = False,
) -> None:
    """Estimate the accuracy on unlabelled images of a new site, with a 95% interval. Nothing is queried."""
    keep_freed_memory()
    from vl2v.cli.console import show
    from vl2v.commands.expect import expect as work
    from vl2v.commands.moved import NewLocations

    locations = NewLocations(data, unlabelled, drop)
    estimate = work(run, images, column=image, data=locations, progress=common.make_progress(quiet, as_json))
    show(estimate.to_dict() if as_json else _expected_text(estimate))


def _expected_text(estimate: Expected) -> RenderableType:
    """For a terminal."""
    from rich.console import Group
    from rich.table import Table

    table = Table(show_header=False)
    of_all = f" of {estimate.found:,}" if estimate.images < estimate.found else ""
    rows = {
        "images": f"{estimate.images:,}{of_all}",
        "mean confidence, calibrated": f"{estimate.confidence:.0%}",
        "same answer from a probe": f"{estimate.agreement:.0%}",
        "estimated from": estimate.calibration.estimator,
        "error measured on": f"{estimate.calibration.groups} parts of the training images, each left out in turn, "
        f"and {estimate.calibration.sites} sites with changed copies of images",
    }
    if estimate.distance is not None:
        scale = "0 is like the training domains, 1 like a domain that was left out"
        rows["distance"] = f"{estimate.distance:.2f} in pretrained features ({scale})"
    if estimate.drift is not None:
        rows["drift"] = f"in the student's embeddings: {estimate.drift.text}"
    for name, value in rows.items():
        table.add_row(name, value)
    return Group(estimate.line, table, f"next: {estimate.next_step}")
