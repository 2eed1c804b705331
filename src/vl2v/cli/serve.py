"""`vl2v serve`: a student behind HTTP. Everything heavy is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vl2v.cli.common import StoreOpt, guarded, make_limits, make_places, make_progress, money, need_packages


def serve(
    run: Annotated[Path, typer.Argument(help="A run's folder, or an exported .onnx file.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's own open it up.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port.")] = 8000,
    int8: Annotated[bool, typer.Option("--int8", help="Serve the quantised file.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads (default: measured at the start).")] = None,
    edits: Annotated[
        bool | None, typer.Option("--edits/--no-edits", help="Classes may be changed; default: from this machine only.")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="The most that all new classes may cost together.")] = None,
    gallery: Annotated[bool, typer.Option("--gallery/--no-gallery", help="Show the nearest training images.")] = True,
    max_inputs: Annotated[int, typer.Option(min=1, help="Images of a request.")] = 64,
    max_body_mb: Annotated[int, typer.Option(min=1, help="Megabytes of a request.")] = 64,
    max_image_mb: Annotated[int, typer.Option(min=1, help="Megabytes of an image file.")] = 10,
    max_megapixels: Annotated[int, typer.Option(min=1, help="Million pixels of an image.")] = 20,
    cache: Annotated[Path | None, typer.Option(help="Where it is kept which files were read before.")] = None,
    store: StoreOpt = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Serve a student: a JSON API, and a page to try it on (extra: serve)."""
    need_packages(
        "Serving a student", "serve", "fastapi", "onnxruntime", "prometheus_client", "python_multipart", "uvicorn"
    )
    from vl2v.serve.running import serve as work
    from vl2v.serve.settings import ServeSettings

    limits = make_limits(max_inputs, max_body_mb, max_image_mb, max_megapixels)
    settings = ServeSettings(run, host, port, int8, threads, edits, money(budget), gallery, limits)
    work(settings, make_places(cache, store, run), make_progress(quiet, False))


def attach(app: typer.Typer) -> None:
    """Hang the command into the application."""
    app.command("serve")(guarded(serve))
