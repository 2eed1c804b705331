"""`vl2v expect`: the accuracy to expect on unlabelled images. Heavy imports happen when the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vl2v.allocator import keep_freed_memory
from vl2v.cli.common import DropOpt, ImageOpt, Json, MovedOpt, Quiet, UnlabelledOpt, make_progress

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vl2v.commands.expect import Expected


def expect(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    images: Annotated[
        list[Path],
        typer.Argument(help="Unlabelled images of a new site: files, folders, tables, or datasets of other tools."),
    ],
    image: ImageOpt = None,
    data: MovedOpt = None,
    unlabelled: UnlabelledOpt = None,
    drop: DropOpt = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Estimate the accuracy on unlabelled images of a new site, with a 95% interval. Nothing is queried."""
    keep_freed_memory()
    from vl2v.cli.show import show
    from vl2v.commands.expect import expect as work
    from vl2v.commands.moved import NewPlaces

    places = NewPlaces(data, unlabelled, drop)
    estimate = work(run, images, column=image, data=places, progress=make_progress(quiet, as_json))
    show(estimate.to_dict() if as_json else text_of(estimate))


def text_of(estimate: Expected) -> RenderableType:
    """For a terminal."""
    from rich.console import Group
    from rich.table import Table

    table = Table(show_header=False)
    rows = {
        "images": f"{estimate.images:,} of {estimate.found:,}"
        if estimate.images < estimate.found
        else f"{estimate.images:,}",
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
