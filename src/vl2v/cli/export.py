"""`vl2v export`: export a student to ONNX. Heavy imports happen when the command runs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from vl2v.allocator import keep_freed_memory
from vl2v.cli.common import CacheOpt, Json, Quiet, make_progress, storage_paths, within


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
    ] = 0.5,
    cache: CacheOpt = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Export a student to ONNX, and verify its predictions (extra: export)."""
    keep_freed_memory()
    from vl2v.api import export as work
    from vl2v.cli.show import show

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
