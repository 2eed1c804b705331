"""`vl2v label`: label images with a teacher. Heavy imports happen when the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vl2v.cli import common
from vl2v.cli.settings import with_settings
from vl2v.formatting import exact
from vl2v.schema.inputs import PRICES

if TYPE_CHECKING:
    from vl2v.commands.label import Labels


@with_settings(
    *(*PRICES, "teacher.batch_api"),
    *("data.image", "data.label", "data.domain", "data.layout_as_found", "data.skip_bad"),
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
    budget: common.BudgetOpt = None,
    ray: common.RayOpt = None,
    cpus_per_worker: common.CpusOpt = 1.0,
    gpus_per_worker: common.GpusOpt = 0.0,
    cache: common.CacheOpt = None,
    store: common.StoreOpt = None,
    quiet: common.Quiet = False,
    as_json: common.Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Label images with a teacher, and write a table that vl2v distill accepts."""
    from vl2v.cli.console import show
    from vl2v.cluster.connection import cluster_of
    from vl2v.commands.label import label as work

    common.ensure_workers(ray, cpus_per_worker, gpus_per_worker)
    result = work(
        data,
        teacher,
        classes,
        out,
        check=check,
        error=error,
        trusted_only=trusted_only,
        budget=common.money(budget),
        storage=common.storage_paths(cache, store),
        progress=common.make_progress(quiet, as_json),
        settings=settings,
        cluster=cluster_of(ray, cpus_per_worker, gpus_per_worker),
    )
    show(_json(result) if as_json else _text(result))


def _counts(labels: Labels) -> dict[str, int]:
    return {name: int((labels.predictions == i).sum()) for i, name in enumerate(labels.classes)}


def _json(labels: Labels) -> dict[str, Any]:
    return {
        "file": str(labels.file),
        "images": len(labels.predictions),
        "written": labels.written,
        "classes": _counts(labels),
        "trusted": None if labels.trusted is None else int(labels.trusted.sum()),
        "checked": labels.checked,
        "accuracy_on_checked": labels.accuracy,
        "error": labels.error,
        "image_queries": labels.queries[0],
        "text_queries": labels.queries[1],
        "spent": exact(labels.spent),
        "currency": labels.currency,
    }


def _text(labels: Labels) -> str:
    counts = ", ".join(f"{name} {count:,}" for name, count in _counts(labels).items())
    lines = [
        f"{labels.file}: {labels.written:,} of {len(labels.predictions):,} images",
        f"classes   {counts}",
        f"queries   {labels.queries[0]:,} images, {labels.queries[1]:,} texts: {exact(labels.spent)} {labels.currency}",
    ]
    if labels.trusted is None:
        lines.append("trusted   unknown: pass some labelled images of the same kind with --check")
    else:
        lines.append(
            f"trusted   {int(labels.trusted.sum()):,}. The right class is ruled out for at most {labels.error:.0%} of "
            f"images like the {labels.checked} checked ones, {labels.accuracy:.0%} of which the teacher gets right."
        )
    lines.append(f"next      vl2v distill {labels.file} --image image --label label ...")
    return "\n".join(lines)
