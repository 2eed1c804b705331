"""`vl2v label`: label images with a teacher. Heavy imports happen when the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vl2v.cli.common import (
    BudgetOpt,
    CacheOpt,
    CpusOpt,
    GpusOpt,
    Json,
    Quiet,
    RayOpt,
    StoreOpt,
    make_progress,
    money,
    storage_paths,
)  # fmt: skip
from vl2v.cli.settings import with_settings

if TYPE_CHECKING:
    from vl2v.commands.label import Labels


@with_settings(
    *("Money", "data.image", "data.label", "data.domain", "data.layout_as_found", "data.skip_bad"),
    without=("when_short",),
)
def label(
    data: Annotated[str, typer.Argument(help="Images without labels: a folder, a table, or a dataset.")],
    teacher: Annotated[str, typer.Option(help="The teacher, in the format of vl2v distill --teacher.")],
    classes: Annotated[str, typer.Option(help="Class names: cat,dog,... or a file with one name per line.")],
    out: Annotated[Path, typer.Option(help="The table, a new CSV file.")] = Path("labels.csv"),
    check: Annotated[
        str | None, typer.Option(help="Labelled images of the same kind, which determine the trusted labels.")
    ] = None,
    error: Annotated[
        float | None,
        typer.Option(
            help="With --check: maximum rate at which the right class may be ruled out, 0 to 1.", show_default="0.05"
        ),
    ] = None,
    trusted_only: Annotated[bool, typer.Option("--trusted-only", help="Write only trusted labels.")] = False,
    budget: BudgetOpt = None,
    ray: RayOpt = None,
    cpus_per_worker: CpusOpt = 1.0,
    gpus_per_worker: GpusOpt = 0.0,
    cache: CacheOpt = None,
    store: StoreOpt = None,
    quiet: Quiet = False,
    as_json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Label images with a teacher, and write a table that vl2v distill accepts."""
    from vl2v.cli.show import show
    from vl2v.cluster.connection import cluster_of
    from vl2v.commands.label import label as work

    result = work(
        data,
        teacher,
        classes,
        out,
        check=check,
        error=error,
        trusted_only=trusted_only,
        budget=money(budget),
        storage=storage_paths(cache, store),
        progress=make_progress(quiet, as_json),
        settings=settings,
        cluster=cluster_of(ray, cpus_per_worker, gpus_per_worker),
    )
    show(_json(result) if as_json else _text(result))


def _counts(found: Labels) -> dict[str, int]:
    return {name: int((found.predictions == i).sum()) for i, name in enumerate(found.classes)}


def _json(found: Labels) -> dict[str, Any]:
    return {
        "file": str(found.file),
        "images": len(found.predictions),
        "written": found.written,
        "classes": _counts(found),
        "trusted": None if found.trusted is None else int(found.trusted.sum()),
        "checked": found.checked,
        "accuracy_on_checked": found.accuracy,
        "error": found.error,
        "image_queries": found.queries[0],
        "text_queries": found.queries[1],
        "spent": f"{found.spent:f}",
        "currency": found.currency,
    }


def _text(found: Labels) -> str:
    counts = ", ".join(f"{name} {count:,}" for name, count in _counts(found).items())
    lines = [
        f"{found.file}: {found.written:,} of {len(found.predictions):,} images",
        f"classes   {counts}",
        f"queries   {found.queries[0]:,} images, {found.queries[1]:,} texts: {found.spent:f} {found.currency}",
    ]
    if found.trusted is None:
        lines.append("trusted   unknown: pass some labelled images of the same kind with --check")
    else:
        lines.append(
            f"trusted   {int(found.trusted.sum()):,}. The right class is ruled out for at most {found.error:.0%} of "
            f"images like the {found.checked} checked ones, {found.accuracy:.0%} of which the teacher gets right."
        )
    lines.append(f"next      vl2v distill {found.file} --image image --label label ...")
    return "\n".join(lines)
