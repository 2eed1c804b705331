"""The command line: each command parses, calls one function of the API, and prints."""

from __future__ import annotations

import logging
import warnings
from contextlib import suppress
from typing import Any

import typer
from typer.core import TyperGroup

from vl2v.cli import (
    benchmark,
    classes,
    data,
    distill,
    expect,
    export,
    final,
    hub,
    label,
    predict,
    repair,
    report,
    serve,
    teacher,
    trust,
    vendor,
)
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


@app.callback()
def _setup() -> None:
    """Silence warnings and log messages of other packages."""
    warnings.filterwarnings("ignore", module=r"(torch|timm|open_clip|transformers|huggingface_hub)(\.|$)")
    for name in ("huggingface_hub", "timm", "transformers", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)


COMMANDS = (
    distill,
    final,
    label,
    predict,
    repair,
    teacher,
    report,
    export,
    serve,
    classes,
    trust,
    expect,
    hub,
    benchmark,
    data,
    vendor,
)
for part in COMMANDS:
    part.attach(app)


def main() -> None:
    """Entry point of the command `vl2v`."""
    sleep_while_waiting()
    prepare_streams()
    try:
        app()
    finally:  # for output of typer itself, such as help
        with suppress(OSError):
            flush_streams()
