"""`vl2v push`: publish a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vl2v.cli.common import Json


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
    from vl2v.cli.show import show
    from vl2v.hub.push import clear
    from vl2v.hub.push import push as send

    folder = (out or clear(run)) if dry_run else None
    done = send(run, name, private=private, licence=licence, revision=revision, dry_run=folder)
    if as_json:
        where: dict[str, Any] = {"folder": done.folder and str(done.folder), "url": done.url or None}
        show({"files": dict(done.sizes), **where})
        return
    width = max(map(len, done.sizes))
    lines = [f"{path:{width}}  {size:>12,} bytes" for path, size in done.sizes.items()]
    total = f"{len(done.sizes)} files, {sum(done.sizes.values()):,} bytes"
    show("\n".join([*lines, f"{total}: {f'nothing was sent; see {done.folder}' if done.folder else done.url}"]))
