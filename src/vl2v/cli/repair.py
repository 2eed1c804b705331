"""`vl2v repair` and `vl2v final`: a new student from a finished run. Heavy imports happen when a command runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vl2v.allocator import keep_freed_memory
from vl2v.cli import common
from vl2v.cli.settings import with_settings
from vl2v.formatting import exact
from vl2v.nested import merge, nested

if TYPE_CHECKING:
    from vl2v.commands.repair import Repair


@with_settings(fixed=("data", "student", "method", "seed"))
def repair(
    run: Annotated[Path, typer.Argument(help="Folder of the finished run.")],
    images: Annotated[
        Path, typer.Argument(help="Images of the new site, without labels: a folder, a table, or a dataset.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the new run (default: RUN-repaired); the first run is not changed.")
    ] = None,
    queries: Annotated[int, typer.Option(help="Maximum number of images to query, at least 5.")] = 50,
    budget: Annotated[
        str | None, typer.Option(help="The most to spend; required if the teacher charges. It may limit the queries.")
    ] = None,
    quote: Annotated[bool, typer.Option("--quote", help="Show the cost and stop; nothing is spent.")] = False,
    image: common.ImageOpt = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip unreadable files among the new images.")] = False,
    tolerance: Annotated[
        float,
        typer.Option(**common.within("Warn if validation accuracy falls by more than this fraction.", 0, 1)),
    ] = 0.005,
    teacher: common.TeacherOpt = None,
    data: common.MovedOpt = None,
    unlabelled: common.UnlabelledOpt = None,
    drop: common.DropOpt = None,
    report: common.ReportOpt = True,
    cache: common.CacheOpt = None,
    store: common.StoreOpt = None,
    quiet: common.Quiet = False,
    as_json: common.Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Adapt a student to a new site: query a few images of it, train briefly, and compare it before and after.

    Repeat the command to continue an interrupted repair.
    """
    keep_freed_memory()
    from vl2v.cli.console import show
    from vl2v.commands.moved import NewLocations
    from vl2v.commands.repair import repair as work
    from vl2v.commands.repair_plan import plan_repair

    locations = NewLocations(data, unlabelled, drop)
    storage, progress = common.storage_paths(cache, store, run), common.make_progress(quiet, as_json)
    settings = merge(settings, nested({"teacher.spec": teacher}))
    plan = plan_repair(
        run, images, out, queries=queries, budget=common.money(budget), column=image, skip_bad=skip_bad, data=locations,
        storage=storage, progress=progress, settings=settings,
    )  # fmt: skip
    if quote:
        counts = {"trained": len(plan.trained), "checked": len(plan.checked)}
        show(counts | plan.quote.to_dict() if as_json else plan.quote.table())
        return
    result = work(plan, tolerance=tolerance, progress=progress, report=report)
    show(result.to_dict() if as_json else _text(result, plan.first))


def _text(result: Repair, first: Path) -> str:
    from vl2v_runtime.names import quoted, shown

    values = result.to_dict()
    measure = result.new.reference.measure_of(False)
    lines = [
        f"student   {shown(result.folder / 'student')}; {shown(first / 'student')} is unchanged",
        f"queries   {result.queries:,} images: {exact(result.spent)} {result.currency}",
        f"new site  agreement with the teacher on {result.checked} images that were not trained on: "
        f"{result.agreement[0]} before, {result.agreement[1]} after",
        f"{measure} on validation images, percent:",
    ]
    for domain, row in values["validation"]["domains"].items():
        lines.append(f"  {shown(domain)}  {100 * row['old']:.1f} before, {100 * row['new']:.1f} after")
    lines.append(f"  mean  {100 * result.change:+.1f} points")
    if result.worse:
        lines.append(
            f"WORSE     The new student loses {-100 * result.change:.1f} points on the validation images, more than "
            f"{100 * result.tolerance:g}. Keep the earlier student unless the new site matters more."
        )
    lines.append(f"next      vl2v predict {quoted(result.folder)} <image or folder>")
    return "\n".join(lines)


def final(
    first: Annotated[Path, typer.Argument(help="Folder of the finished run.")],
    out: Annotated[Path, typer.Option(help="Folder of the new run, new or empty.")] = Path("runs/final"),
    budget: Annotated[
        str | None, typer.Option(help="The most to spend on embeddings that the first run did not buy (default 0).")
    ] = None,
    teacher: common.TeacherOpt = None,
    data: common.MovedOpt = None,
    unlabelled: common.UnlabelledOpt = None,
    drop: common.DropOpt = None,
    new_site: common.NewSiteOpt = None,
    report: common.ReportOpt = True,
    cache: common.CacheOpt = None,
    store: common.StoreOpt = None,
    quiet: common.Quiet = False,
    as_json: common.Json = False,
) -> None:
    """Retrain for deployment: the settings of a finished run on all domains, including the held-out ones."""
    keep_freed_memory()
    from vl2v.cli.printing import run_json, run_text, show
    from vl2v.commands.final import final as work
    from vl2v.commands.moved import NewLocations

    locations = NewLocations(data, unlabelled, drop, new_site)
    storage, progress = common.storage_paths(cache, store, first), common.make_progress(quiet, as_json)
    done, expected = work(
        first, out, budget=budget, teacher=teacher, data=locations, storage=storage, progress=progress, report=report
    )
    if done is not None:
        show(run_json(done) | {"expected": asdict(expected)} if as_json else run_text(done))
        if not as_json:
            show(str(expected))
