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
    predict,
    report,
    export,
    serve,
    classes,
    hub,
    trust,
    expect,
    repair,
    teacher,
    label,
    data,
    benchmark,
    vendor,
)
SECTIONS = {
    "Train a student": ("quote", "distill", "final", "demo"),
    "Use a student": ("predict", "evaluate", "report", "export", "serve", "classes", "push"),
    "Check and repair a student": ("trust", "expect", "repair"),
    "Teachers and data": ("teacher", "label", "data", "ledger"),
    "Compare methods, sell a model": ("benchmark", "vendor"),
}


def _add_commands() -> None:
    """Add the commands, each in its section of the help."""
    for part in COMMANDS:
        part.attach(app)
    section_of = {name: section for section, names in SECTIONS.items() for name in names}
    for command in app.registered_commands:
        command.rich_help_panel = section_of[command.name or command.callback.__name__]  # type: ignore[union-attr]
    for group in app.registered_groups:
        group.rich_help_panel = section_of[str(group.name or group.typer_instance.info.name)]  # type: ignore[union-attr]


_add_commands()


def main() -> None:
    """Entry point of the command `vl2v`."""
    sleep_while_waiting()
    prepare_streams()
    try:
        app()
    finally:  # for output of typer itself, such as help
        with suppress(OSError):
            flush_streams()
