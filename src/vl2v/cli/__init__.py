"""The command line: each command parses, calls one function of the API, and prints."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vl2v import __version__
from vl2v.cli import benchmark, classes, data, distill, finished, label, predict, repair, serve, teacher, trust, vendor
from vl2v.cli.common import guarded
from vl2v.threads import sleep_while_waiting
from vl2v_runtime.terminal import flush_streams, prepare_streams


class _Commands(TyperGroup):
    """Rejects empty arguments, because an empty path would be the current folder."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See `click.Group.parse_args`; the arguments of the commands pass through here."""
        if "" in args:
            where = args.index("")
            after = f" after {args[where - 1]}" if where else ""
            ctx.fail(f"The argument{after} is empty. Give a value, or leave it out; is a variable of the shell unset?")
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="vl2v",
    cls=_Commands,
    help="Distil a pay-per-query vision-language model into your own image classifier for unseen domains.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(flag: bool) -> None:
    if flag:
        print(f"vl2v {__version__}")
        raise typer.Exit


@app.callback()
def _setup(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Silence warnings and log messages of other packages."""
    warnings.filterwarnings("ignore", module=r"(torch|timm|open_clip|transformers|huggingface_hub)(\.|$)")
    for package in ("HF_HUB", "TRANSFORMERS"):  # they set the level of their loggers when they are imported
        os.environ.setdefault(f"{package}_VERBOSITY", "error")
    for name in ("huggingface_hub", "timm", "transformers", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # open_clip logs with the root logger, which would be configured to print; errors are also raised.
    logging.getLogger().addHandler(logging.NullHandler())


SECTIONS: dict[str, tuple[typer.Typer | Callable[..., None], ...]] = {
    "Train a student": (distill.quote, distill.distill, distill.demo, repair.final),
    "Use a student": (
        *(predict.evaluate, predict.predict, finished.report, finished.export, serve.serve, classes.COMMANDS),
        finished.push,
    ),
    "Check and repair a student": (trust.trust, trust.expect, repair.repair),
    "Teachers and data": (teacher.COMMANDS, teacher.ledger, label.label, data.COMMANDS),
    "Compare methods, offer a model": (benchmark.COMMANDS, vendor.COMMANDS),
}
for section, commands in SECTIONS.items():
    for command in commands:
        if isinstance(command, typer.Typer):
            app.add_typer(command, rich_help_panel=section)
        else:
            app.command(rich_help_panel=section)(guarded(command))


def main() -> None:
    """Entry point of the command `vl2v`."""
    sleep_while_waiting()
    prepare_streams()
    try:
        app()
    finally:  # for output of typer itself, such as help
        with suppress(OSError):
            flush_streams()
