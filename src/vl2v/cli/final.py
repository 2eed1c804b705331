"""`vl2v final`: retrain on all domains for deployment. Heavy imports happen when the command runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vl2v.allocator import keep_freed_memory
from vl2v.cli.common import (
    CacheOpt,
    DropOpt,
    Json,
    MovedOpt,
    Quiet,
    ReportOpt,
    StoreOpt,
    TeacherOpt,
    UnlabelledOpt,
    make_progress,
    storage_paths,
)


def final(
    first: Annotated[Path, typer.Argument(help="Folder of the finished run.")],
    out: Annotated[Path, typer.Option(help="Folder of the new run, new or empty.")] = Path("runs/final"),
    budget: Annotated[
        str | None, typer.Option(help="The most to spend on embeddings that the first run did not buy (default 0).")
    ] = None,
    teacher: TeacherOpt = None,
    data: MovedOpt = None,
    unlabelled: UnlabelledOpt = None,
    drop: DropOpt = None,
    report: ReportOpt = True,
    cache: CacheOpt = None,
    store: StoreOpt = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Retrain for deployment: the settings of a finished run on all domains, including the held-out ones."""
    keep_freed_memory()
    from vl2v.cli.printing import run_json, run_text, show
    from vl2v.commands.final import final as work
    from vl2v.commands.moved import NewPlaces

    places = NewPlaces(data, unlabelled, drop)
    storage, progress = storage_paths(cache, store, first), make_progress(quiet, as_json)
    done, expected = work(
        first, out, budget=budget, teacher=teacher, data=places, storage=storage, progress=progress, report=report
    )
    if done is not None:
        show(run_json(done) | {"expected": asdict(expected)} if as_json else run_text(done))
        if not as_json:
            show(str(expected))
