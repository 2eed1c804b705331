"""The command line: each command parses, calls one function of the API, and prints."""

from __future__ import annotations

import logging
import warnings
from contextlib import suppress

import typer

from vl2v.cli import benchmark, classes, data, distill, export, hub, predict, report, serve, teacher, trust, vendor
from vl2v.threads import sleep_while_waiting
from vl2v_runtime.terminal import flush_streams, prepare_streams

app = typer.Typer(
    name="vl2v",
    help="Distil a pay-per-query vision-language model into your own image classifier for unseen domains.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _setup() -> None:
    """Keep other packages' chatter away from the user."""
    warnings.filterwarnings("ignore", module=r"(torch|timm|open_clip|transformers|huggingface_hub)(\.|$)")
    for name in ("huggingface_hub", "timm", "transformers", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)


for part in (distill, predict, teacher, report, export, serve, classes, trust, hub, benchmark, data, vendor):
    part.attach(app)


def main() -> None:
    """Entry point of the command `vl2v`."""
    sleep_while_waiting()
    prepare_streams()
    try:
        app()
    finally:  # what typer prints itself, such as help
        with suppress(OSError):
            flush_streams()
