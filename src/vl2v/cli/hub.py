"""`vl2v push`: a finished run for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vl2v.cli.common import Json, guarded


def push(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.")],
    name: Annotated[str, typer.Argument(help="The repository: user/name.")],
    private: Annotated[bool, typer.Option("--private", help="Only you may see it.")] = False,
    licence: Annotated[str | None, typer.Option(help="Of the student, e.g. apache-2.0 (default: none stated).")] = None,
    revision: Annotated[str | None, typer.Option(help="A branch; the main one by default.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write what would be sent into --out.")] = False,
    out: Annotated[Path | None, typer.Option(help="With --dry-run: a new folder (default RUN/hub).")] = None,
    as_json: Json = False,
) -> None:
    """Publish a student on the Hugging Face hub, with a model card. Images, keys and paths stay here."""
    from vl2v.hub.push import clear
    from vl2v.hub.push import push as send
    from vl2v.job.printing import show

    folder = (out or clear(run / "hub")) if dry_run else None
    done = send(run, name, private=private, licence=licence, revision=revision, dry_run=folder)
    if as_json:
        where: dict[str, Any] = {"folder": done.folder and str(done.folder), "url": done.url or None}
        show({"files": dict(done.sizes), **where})
        return
    width = max(map(len, done.sizes))
    lines = [f"{path:{width}}  {size:>12,} bytes" for path, size in done.sizes.items()]
    total = f"{len(done.sizes)} files, {sum(done.sizes.values()):,} bytes"
    show("\n".join([*lines, f"{total}: {f'nothing was sent; see {done.folder}' if done.folder else done.url}"]))


def attach(app: typer.Typer) -> None:
    """Hang the command into the application."""
    app.command("push")(guarded(push))
