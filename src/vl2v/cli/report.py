"""`vl2v report`: the report of a run or a benchmark. Heavy imports happen when the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vl2v.allocator import keep_freed_memory
from vl2v.cli.common import storage_paths
from vl2v.errors import ConfigError


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run or of a benchmark.")],
    hour_price: Annotated[
        str | None, typer.Option(help="Price of one hour on this machine, to compute the cost of predictions.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Output folder (default: FOLDER).")] = None,
    store: Annotated[Path | None, typer.Option(help="File of purchased embeddings, with the ledger.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the path of the page as JSON.")] = False,
) -> None:
    """Write a self-contained report.html, and the values of its figures as CSV."""
    if store is not None and not store.is_file():
        raise ConfigError(
            "--store names no file.",
            expected="the file of purchased embeddings of this run",
            found=str(store),
            next_step="correct --store, or drop it: the run records its store",
        )
    keep_freed_memory()
    from vl2v.api import report as make
    from vl2v.cli.show import show

    page = make(folder, out=out, storage=storage_paths(None, store, folder), hour_price=hour_price)
    show({"report": str(page), "values": str(page.parent / "report")} if as_json else f"report: {page}")
