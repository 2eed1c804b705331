"""Convert errors of the system, SQLite and parsers to errors with a path, an option and a next step.

`explain` translates one exception; `explained` does so for all that a block raises. The command line puts every command
in such a block, and so do the functions of `vl2v.api`.
"""

from __future__ import annotations

import errno
import inspect
import multiprocessing
import os
import re
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar
from zipfile import BadZipFile

from safetensors import SafetensorError

from vl2v.errors import AccessError, ConfigError, DamagedError, RunError, StudentError, Vl2vError
from vl2v.faults.database import database
from vl2v.faults.other import content, network
from vl2v.faults.system import disk_full, system
from vl2v.locations import Location, check_names, locations_in
from vl2v_runtime.errors import ModelError

P = ParamSpec("P")
T = TypeVar("T")
UNREADABLE = (  # what parsers raise for a file that was cut, zeroed, or written by something else
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, EOFError),
    *(BadZipFile, zlib.error, MemoryError, SafetensorError),
)
GUARD = 'put the code of the script under if __name__ == "__main__":'


@contextmanager
def explained(values: Mapping[str, object], command: str = "") -> Iterator[None]:
    """Convert exceptions in the block to a `Vl2vError` where `explain` can.

    Args:
        values: arguments of the command or function, by keyword.
        command: name of the command or function.
    """
    try:
        check_names(values)
        yield
    except Vl2vError:
        raise
    except Exception as error:
        explanation = explain(error, locations_in(values, command))
        if explanation is None:
            raise
        raise explanation from error


def explaining(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function of the Python API, so that exceptions are converted to a `Vl2vError` where possible."""
    parameters = inspect.signature(function)

    @wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        _check_guard(function.__name__)
        with explained(parameters.bind(*args, **kwargs).arguments, function.__name__):
            return function(*args, **kwargs)

    return inner


def _check_guard(name: str) -> None:
    """Check that this is not a process that is just starting, where a script without the guard runs again."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigError(
            f"vl2v.{name} was called while a loading process started.",
            expected='the script\'s work under if __name__ == "__main__":',
            found="a script that runs its code whenever it is imported, as every spawned process does",
            next_step=f"{GUARD}; or load in one process: workers: 0",
        )


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the name of a file to errors of the system that do not contain one, such as errors while writing."""
    try:
        yield
    except Exception as error:
        code = re.search(r"\(os error (\d+)\)", str(error))  # safetensors has a class of its own for them
        if code and not isinstance(error, OSError) and os.name == "posix":
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def reading(path: Path, step: str = "restore it from a backup, or repeat the command that wrote it") -> Iterator[None]:
    """Convert exceptions from parsing a file to a `DamagedError` with its path.

    Args:
        step: what the user can do if it is damaged.
    """
    try:
        yield
    except RunError as error:  # from the JSON reader, which does not know the purpose of a file
        raise RunError(error.problem, expected=error.expected, found=error.found, next_step=step) from error
    except Vl2vError:
        raise
    except UNREADABLE as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DamagedError(f"{path} is damaged.", expected="what vl2v wrote", found=message, next_step=step) from error


def explain(error: BaseException, locations: Sequence[Location] = ()) -> Vl2vError | None:
    """Convert an exception to an error for users; None for an exception that indicates a bug.

    Args:
        locations: paths of the command or function, with their options.
    """
    if isinstance(error, Vl2vError):
        return error
    if isinstance(error, ModelError):
        return StudentError(error.problem, expected=error.expected, found=error.found, next_step=error.next_step)
    lite = getattr(error, "orig", error)  # exceptions of SQLAlchemy contain those of SQLite
    if isinstance(lite, sqlite3.Error):
        return database(lite, locations)
    if isinstance(error, RuntimeError) and ("shared memory" in str(error) or "</torch_" in str(error)):
        return AccessError(
            "There is not enough shared memory.",
            expected="space in /dev/shm",
            found=" ".join(str(error).split())[:200],
            next_step="load in one process: --workers 0; or give the container more: docker run --shm-size 2g",
        )
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # from Path.resolve before 3.13
        error = OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(error).partition("'")[2].rpartition("'")[0])
    return disk_full(error, locations) or network(error) or system(error, locations) or content(error, locations)
