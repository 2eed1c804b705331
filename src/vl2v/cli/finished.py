"""`vl2v export`, `vl2v report` and `vl2v push`, of finished runs. Heavy imports happen when a command runs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from vl2v.allocator import keep_freed_memory
from vl2v.cli.common import CacheOpt, Json, Quiet, ensure_effect, make_progress, storage_paths, within
from vl2v.errors import ConfigError

TOLERANCE = 0.5  # percentage points


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run or of a student.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx in float32 (default).")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Write the quantised model.int8.onnx.")] = False,
    out: Annotated[Path | None, typer.Option(help="Output folder (default: RUN/export).")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Images of the run, if they have moved, or other images of its classes.")
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            **within(
                "Accuracy that INT8 may lose, in percentage points. Unless this is 0, it may always lose one image.", 0
            )
        ),
    ] = TOLERANCE,
    cache: CacheOpt = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Export a student to ONNX, and verify its predictions (extra: export)."""
    keep_freed_memory()
    from vl2v.api import export as work
    from vl2v.cli.console import show

    ensure_effect("--int8", int8, {"--tolerance": tolerance != TOLERANCE})
    done = work(
        run,
        onnx=onnx,
        int8=int8,
        out=out,
        data=data,
        tolerance=tolerance,
        storage=storage_paths(cache, None, run, uses_store=False),
        progress=make_progress(quiet, as_json),
    )
    show(done.to_dict() if as_json else done.table())
    if not as_json:
        flag = " --int8" if int8 and not onnx else ""
        show(f"try it:  vl2v-predict {shlex.quote(str(done.folder))} <image or folder>{flag}")


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
            "The file in --store does not exist.",
            expected="the file of purchased embeddings of this run",
            found=str(store),
            next_step="correct --store, or drop it: the run records its store",
        )
    keep_freed_memory()
    from vl2v.api import report as make
    from vl2v.cli.console import show

    page = make(folder, out=out, storage=storage_paths(None, store, folder), hour_price=hour_price)
    show({"report": str(page), "values": str(page.parent / "report")} if as_json else f"report: {page}")


def push(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    name: Annotated[str, typer.Argument(help="Repository, as user/name.")],
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the student, e.g. apache-2.0 (default: none).")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch (default: the main branch).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the files to --out; upload nothing.")] = False,
    out: Annotated[Path | None, typer.Option(help="New folder for --dry-run (default: RUN/hub).")] = None,
    as_json: Json = False,
) -> None:
    """Upload a student with a model card to the Hugging Face Hub; no images, keys or paths are uploaded."""
    from vl2v.cli.console import show
    from vl2v.hub.push import dry_run_folder
    from vl2v.hub.push import push as send

    ensure_effect("--dry-run", dry_run, {"--out": out is not None})
    folder = (out or dry_run_folder(run)) if dry_run else None
    progress = make_progress(False, as_json)
    done = send(run, name, private=private, licence=licence, revision=revision, dry_run=folder, progress=progress)
    if as_json:
        where: dict[str, Any] = {"folder": done.folder and str(done.folder), "url": done.url or None}
        show({"files": dict(done.sizes), **where})
        return
    width = max(map(len, done.sizes))
    lines = [f"{path:{width}}  {size:>12,} bytes" for path, size in done.sizes.items()]
    total = f"{len(done.sizes)} files, {sum(done.sizes.values()):,} bytes"
    show("\n".join([*lines, f"{total}: {f'nothing was sent; see {done.folder}' if done.folder else done.url}"]))
