"""Shared by the commands: options, error messages, paths and progress."""

from __future__ import annotations

import json
import math
import os
import re
import traceback
from collections.abc import Callable, Mapping
from contextvars import copy_context
from decimal import Decimal
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from vl2v.errors import ConfigError, Interrupted, MissingExtraError, UnexpectedError, Vl2vError
from vl2v.faults import explained
from vl2v.hints import advising, resume_command
from vl2v.progress import use_for_command
from vl2v.terminal import say
from vl2v_runtime.terminal import BROKEN_PIPE, flush_streams

if TYPE_CHECKING:
    from vl2v.locations import StoragePaths
    from vl2v.progress import Progress
    from vl2v.web.limits import Limits

P = ParamSpec("P")
AMOUNT = re.compile(r"[0-9]{1,13}(\.[0-9]{0,30})?|\.[0-9]{1,30}")
MOST_MONEY = 1_000_000_000_000
REPEATED = ("repair", "final", "label", "add")  # commands that continue where they were stopped
TRACEBACK = "VL2V_TRACEBACK"  # if set, unexpected errors are shown with a traceback

DataArg = Annotated[
    Path,
    typer.Argument(
        help="Images: DATA/<domain>/<class>/<image>, DATA/<class>/<image>, a table (.csv, .parquet, ...), "
        "hf:user/name, a dataset of the package datasets, WebDataset shards (.tar), or an export of Label Studio or "
        "CVAT."
    ),
]
ImageOpt = Annotated[
    str | None,
    typer.Option(help="Table column with the image paths (default: as in training, else recognised by name)."),
]
CacheOpt = Annotated[Path | None, typer.Option(help="Cache folder for decoded pixels; may be deleted at any time.")]
StoreOpt = Annotated[Path | None, typer.Option(help="File of purchased embeddings; back it up.")]
BudgetOpt = Annotated[str | None, typer.Option(help="The most to spend; required if the teacher charges.")]
TeacherOpt = Annotated[str | None, typer.Option(help="Teacher of the run, if its address has changed.")]
MovedOpt = Annotated[
    Path | None, typer.Option("--data", help="The run's images, if they have moved; the run records the new location.")
]
UnlabelledOpt = Annotated[
    Path | None, typer.Option("--unlabelled", help="The run's images without labels, if they have moved.")
]
DropOpt = Annotated[Path | None, typer.Option("--drop", help="The run's list of dropped images, if it has moved.")]
NewSiteOpt = Annotated[
    Path | None,
    typer.Option("--new-site", help="Images of the new site that vl2v repair used for the run, if they have moved."),
]
ReportOpt = Annotated[bool, typer.Option(help="Write report.html at the end.")]


def finite(value: float | None) -> float | None:
    """Reject NaN and infinity, which the limits of an option do not exclude."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


def within(text: str, low: float, high: float | None = None) -> dict[str, Any]:
    """Return the help and the check of an option with limits, for `typer.Option`.

    The limits of typer itself appear in the help as ``x>=1``.

    Args:
        text: help, to which the limits are added unless the only one is 0.
    """
    words = f"from {low:,} to {high:,}" if high is not None else f"{low:,} or more"

    def check(value: float | None) -> float | None:
        if finite(value) is not None and not low <= value <= (math.inf if high is None else high):  # type: ignore[operator]
            raise typer.BadParameter(f"expected {words}, found {value}")
        return value

    return {"help": f"{text.removesuffix('.')}, {words}." if low or high is not None else text, "callback": check}


def _resource(text: str) -> Any:
    return typer.Option(**within(text, 0), rich_help_panel="Machine")


RayOpt = Annotated[
    str | None,
    typer.Option(
        help="Read images and query a teacher on Ray: local, auto, host:port or ray://host:port.",
        rich_help_panel="Machine",
    ),
]
CpusOpt = Annotated[float, _resource("With --ray: cores per worker that runs a teacher.")]
GpusOpt = Annotated[float, _resource("With --ray: GPUs per worker that runs a teacher.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only warnings and the result.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and progress as JSON lines.")]


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Convert the errors of a command to a message and an exit code, without a traceback."""

    @wraps(command)
    def inner(*args: P.args, **kwargs: P.kwargs) -> None:
        from vl2v.cli.settings import forms_of

        as_json = bool(kwargs.get("as_json"))
        try:
            with advising(forms_of(command)), explained(kwargs, command.__name__):
                try:
                    copy_context().run(command, *args, **kwargs)
                finally:  # while errors of the output can still be reported
                    if code := flush_streams():  # its reader has closed it
                        raise SystemExit(code)
        except Vl2vError as error:
            _fail(error, as_json)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except KeyboardInterrupt as stopped:
            out = kwargs.get("out")
            begun = out and (Path(str(out)) / "config.yaml").exists()
            step = f"continue: {resume_command(str(out))}" if begun else ""
            if command.__name__ in REPEATED:
                step = "continue: repeat the command"
            step = step or ("run the same command again" if stopped.args else "")
            problem = ". ".join(("Stopped; all purchased embeddings are saved", *map(str, stopped.args)))
            _fail(Interrupted(f"{problem}.", next_step=step), as_json)
        except BrokenPipeError:
            raise SystemExit(flush_streams() or BROKEN_PIPE) from None
        except Exception as error:
            if os.environ.get(TRACEBACK):
                raise
            _fail(_unexpected(error), as_json)

    return inner


def group(name: str, text: str, **commands: Callable[..., None]) -> typer.Typer:
    """Create a group of commands with its help."""
    app = typer.Typer(name=name, help=text, no_args_is_help=True)
    app.callback()(lambda: None)  # so that a group of one command remains a group
    for command, function in commands.items():
        app.command(command)(guarded(function))
    return app


def _unexpected(error: Exception) -> UnexpectedError:
    """Return the report of an unexpected error."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "vl2v" in Path(frame.filename).parts]
    where = f", at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return UnexpectedError(
        "Unexpected error.",
        found=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{where}",
        next_step=f"check that the files named in the command are complete; if they are, please report this with the "
        f"output of {TRACEBACK}=1 vl2v ...",
    )


def _fail(error: Vl2vError, as_json: bool) -> None:
    if as_json:
        parts = {"problem": error.problem, "expected": error.expected, "found": error.found, "next": error.next_step}
        say(json.dumps({"error": type(error).__name__, **parts}))
    else:
        say(f"{'' if isinstance(error, Interrupted) else 'error: '}{error}")
    raise typer.Exit(error.exit_code)


def ensure_workers(ray: str | None, cpus: float, gpus: float) -> None:
    """Check that resources of workers are only given with ``--ray``.

    Raises:
        ConfigError: if they are given without it.
    """
    ensure_effect("--ray", ray is not None, {"--cpus-per-worker": cpus != 1, "--gpus-per-worker": gpus != 0})


def make_progress(quiet: bool, as_json: bool) -> Progress:
    """Create the progress callback: silent, JSON lines, or for people. Warnings are always printed."""
    from vl2v.cli import console

    made: Progress = console.JsonLines() if as_json else console.for_people()
    if quiet:
        made = console.Quiet(as_json)
    use_for_command(made)
    return made


def storage_paths(cache: Path | None, store: Path | None, run: Path | None = None, **which: bool) -> StoragePaths:
    """Return the paths of cache and store; see `vl2v.runs.storage.storage_of`."""
    from vl2v.runs.storage import storage_of

    return storage_of(run, cache, store, **which)


def make_limits(inputs: int, body_mb: int, image_mb: int, megapixels: int) -> Limits:
    """Create the limits of a service from the options."""
    from vl2v.web.limits import MB, Limits

    return Limits(
        inputs=inputs,
        body_bytes=body_mb * MB,
        image_bytes=image_mb * MB,
        pixels=megapixels * 1_000_000,
        held_bytes=max(512, 4 * body_mb) * MB,
    )


def need_packages(purpose: str, extra: str, *packages: str) -> None:
    """Check that the packages of an extra are installed.

    Raises:
        MissingExtraError: for the first missing package.
    """
    for package in packages:
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(purpose, extra, package.replace("_", "-")) from error


def amount(text: str, what: str, flag: str) -> Decimal:
    """Parse an amount of money exactly: from 0 to `MOST_MONEY`, in plain digits.

    Args:
        what: meaning of the amount, for the message.

    Raises:
        ConfigError: if it is not an amount of money.
    """
    value = Decimal(text) if AMOUNT.fullmatch(text) else None
    if value is None or value > MOST_MONEY:
        raise ConfigError(
            f"{what} is not an amount of money.",
            expected=f"a number from 0 to {MOST_MONEY:,} such as 0.50, with a decimal point",
            found=text[:40],
            next_step=f"correct {flag}",
        )
    return value


def ensure_effect(needed: str, used: bool, options: Mapping[str, bool]) -> None:
    """Check that options are only given together with the one that they need.

    Args:
        needed: the option, e.g. ``--ray``.
        used: whether it is given.
        options: whether each of the others is given, by its flag.

    Raises:
        ConfigError: if one is given without it.
    """
    if used or not (given := [flag for flag, there in options.items() if there]):
        return
    raise ConfigError(
        f"{', '.join(given)} {'has' if len(given) == 1 else 'have'} no effect without {needed}.",
        expected=needed,
        found=f"no {needed}",
        next_step=f"add {needed}, or drop {', '.join(given)}",
    )


def money(text: str | None, what: str = "The budget", flag: str = "--budget") -> Decimal | None:
    """Parse an amount of money as `amount` does; None if the option was not given.

    Raises:
        ConfigError: if it is not an amount of money.
    """
    return None if text is None else amount(text, what, flag)


def pair(item: str, flag: str) -> tuple[str, Any]:
    """Parse KEY=VALUE; the value is parsed as YAML, except for --vary.

    Raises:
        ConfigError: if the item has another form.
    """
    import yaml

    from vl2v.yaml_keys import Settings

    key, sign, text = item.partition("=")
    if not sign or not all(key.split(".")) or not text:
        step = f"e.g. {flag} distill.steps=500"
        raise ConfigError(f"{flag} is not valid.", expected="KEY=VALUE", found=item, next_step=step)
    try:
        return key, text if flag == "--vary" else yaml.load(text, Settings)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        step = f"e.g. {flag} distill.steps=500; quote a value that has special characters"
        raise ConfigError(f"{flag} {key} is not valid.", expected="a YAML value", found=text, next_step=step) from error
