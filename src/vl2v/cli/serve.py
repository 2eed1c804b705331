"""`vl2v serve`: serve a student over HTTP. Heavy imports happen when the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vl2v.cli import common


def serve(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or an exported .onnx file.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on (default: reachable from this machine only).")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(**common.within("TCP port.", 1, 65535))] = 8000,
    int8: Annotated[bool, typer.Option("--int8", help="Serve the quantised model.")] = False,
    threads: Annotated[
        int | None, typer.Option(**common.within("CPU threads (default: measured at the start).", 1, 1024))
    ] = None,
    edits: Annotated[
        bool | None,
        typer.Option("--edits/--no-edits", help="Allow clients to change classes (default: only if --host is local)."),
    ] = None,
    budget: Annotated[str | None, typer.Option(help="The most that all added classes may cost together.")] = None,
    gallery: Annotated[bool, typer.Option("--gallery/--no-gallery", help="Show the nearest training images.")] = True,
    max_inputs: Annotated[int, typer.Option(**common.within("Images per request.", 1))] = 64,
    max_body_mb: Annotated[int, typer.Option(**common.within("Megabytes per request.", 1, 100_000))] = 64,
    max_image_mb: Annotated[int, typer.Option(**common.within("Megabytes per image file.", 1, 2000))] = 10,
    max_megapixels: Annotated[int, typer.Option(**common.within("Megapixels per image.", 1, 178))] = 20,
    cache: Annotated[Path | None, typer.Option(help="Folder for the index of files that were read.")] = None,
    data: common.MovedOpt = None,
    unlabelled: common.UnlabelledOpt = None,
    drop: common.DropOpt = None,
    store: common.StoreOpt = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not show progress.")] = False,
) -> None:
    """Serve a student with a JSON API and a web page (extra: serve)."""
    common.need_packages(
        "Serving a student", "serve", "fastapi", "onnxruntime", "prometheus_client", "python_multipart", "uvicorn"
    )
    from vl2v.commands.moved import ROOT, NewLocations, locate_images
    from vl2v.runs.folder import RunFolder
    from vl2v.serve.running import serve as work
    from vl2v.serve.settings import ServeSettings

    common.ensure_effect("--edits", edits is not False, {"--budget": budget is not None})
    limits = common.make_limits(max_inputs, max_body_mb, max_image_mb, max_megapixels)
    settings = ServeSettings(run, host, port, int8, threads, edits, common.money(budget), gallery, limits)
    storage = common.storage_paths(cache, store, run, uses_store=edits is not False)
    progress = common.make_progress(quiet, False)
    if locations := NewLocations(data, unlabelled, drop):
        locate_images(RunFolder(run), locations, storage, progress, needed=ROOT)
    work(settings, storage, progress)
