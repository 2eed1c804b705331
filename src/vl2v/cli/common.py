"""What the commands share: options, faults as messages, places and progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer

from vl2v.errors import ConfigError, Interrupted, MissingExtraError, StudentError, Vl2vError, as_disk_full
from vl2v.hints import resume_command
from vl2v_runtime.errors import ModelError

if TYPE_CHECKING:
    from vl2v.job.prepare import Places
    from vl2v.progress import Progress
    from vl2v.web.limits import Limits

P = ParamSpec("P")

DataArg = Annotated[Path, typer.Argument(help="Images: DATA/<domain>/<class>/<image>, or DATA/<class>/<image>.")]
SkipBad = Annotated[bool | None, typer.Option("--skip-bad", help="Go on without unreadable files.")]
CacheOpt = Annotated[Path | None, typer.Option(help="Where decoded pixels are kept; may be deleted at any time.")]
StoreOpt = Annotated[Path | None, typer.Option(help="The file of bought vectors; worth money.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; only the result.")]
Json = Annotated[
    bool, typer.Option("--json", help="The result as JSON on standard output; progress, if any, as JSON lines.")
]


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn every fault that a user can mend into a message and an exit code, without a traceback."""

    @wraps(command)
    def inner(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except Vl2vError as error:
            _fail(error, bool(kwargs.get("as_json")))
        except ModelError as e:
            parts = {"expected": e.expected, "found": e.found, "next_step": e.next_step}
            _fail(StudentError(e.problem, **parts), bool(kwargs.get("as_json")))
        except KeyboardInterrupt:
            out = kwargs.get("out")
            begun = out and (Path(str(out)) / "config.yaml").exists()
            step = f"go on: {resume_command(str(out))}" if begun else ""
            _fail(Interrupted("Stopped; what was bought is kept.", next_step=step), bool(kwargs.get("as_json")))
        except Exception as error:  # writers word a full disk in many kinds
            full = as_disk_full(error)
            if full is None:
                raise
            _fail(full, bool(kwargs.get("as_json")))

    return inner


def _fail(error: Vl2vError, as_json: bool) -> None:
    if as_json:
        parts = {"problem": error.problem, "expected": error.expected, "found": error.found, "next": error.next_step}
        print(json.dumps({"error": type(error).__name__, **parts}), file=sys.stderr)
    else:
        print(f"{'' if isinstance(error, Interrupted) else 'error: '}{error}", file=sys.stderr)
    raise typer.Exit(error.exit_code)


def make_progress(quiet: bool, as_json: bool) -> Progress:
    """Who is told of the stages: nobody, a script, or people."""
    from vl2v.job.console import JsonLines, for_people
    from vl2v.progress import Silent

    return JsonLines() if as_json else Silent() if quiet else for_people()


def make_places(cache: Path | None, store: Path | None, run: Path | None = None, *, present: bool = True) -> Places:
    """The places that the flags name, else those of the run, else the user's own; see `vl2v.job.places.places_of`."""
    from vl2v.job.places import places_of

    return places_of(run, cache, store, present=present)


def make_limits(inputs: int, body_mb: int, image_mb: int, megapixels: int) -> Limits:
    """How much a service takes from a client, as the flags say it."""
    from vl2v.web.limits import MB, Limits

    return Limits(
        inputs=inputs,
        body_bytes=body_mb * MB,
        image_bytes=image_mb * MB,
        pixels=megapixels * 1_000_000,
        held_bytes=max(512, 4 * body_mb) * MB,
    )


def need_packages(purpose: str, extra: str, *packages: str) -> None:
    """Refuse to go on without an extra's packages.

    Raises:
        MissingExtraError: with the first that is missing.
    """
    for package in packages:
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(purpose, extra, package.replace("_", "-")) from error


def money(text: str | None) -> Decimal | None:
    """A budget as typed, exact.

    Raises:
        ConfigError: if it is no amount.
    """
    try:
        money = None if text is None else Decimal(text)
    except InvalidOperation:
        money = Decimal("NaN")
    if money is not None and not (money.is_finite() and money >= 0):
        raise ConfigError("The budget is no amount of money.", expected="e.g. 0.50", found=str(text)[:40])
    return money
