"""Run `vl2v` commands in this process, which saves seconds of imports."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from typer.testing import CliRunner

from advised_options import foreign_options

SET_UP = ("huggingface_hub", "timm", "transformers", "torch.distributed")  # loggers that `vl2v` silences


@dataclass(frozen=True)
class Done:
    """The result of a command, with the attributes of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def environment() -> dict[str, str]:
    """Return the environment of a command in a test."""
    return os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "ACCELERATE_USE_CPU": "1"}


def run_cli(*arguments: str | Path, env: Mapping[str, str] | None = None) -> Done:
    """Run `vl2v ARGUMENTS` in this process and leave the process as it was.

    Its errors and warnings may only advise options that the command has.

    Args:
        arguments: the words after `vl2v`.
        env: variables on top of `environment()`.

    Raises:
        Exception: any that the command lets through; a user would see a traceback.
        AssertionError: if it advises an option of another command.
    """
    from vl2v.cli import app

    with unchanged_process():
        os.environ.update(environment() | dict(env or {}))
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if foreign := foreign_options([str(argument) for argument in arguments], result.stderr):
        raise AssertionError("\n".join(foreign))
    return Done(result.exit_code, result.stdout, result.stderr)


@contextmanager
def unchanged_process() -> Iterator[None]:
    """Restore everything that a command changes for the process."""
    with ExitStack() as after:
        after.enter_context(mock.patch.dict(os.environ))
        after.enter_context(warnings.catch_warnings())
        after.enter_context(mock.patch("vl2v.cli.distill.keep_freed_memory"))  # it cannot be undone in glibc
        after.callback(os.chdir, Path.cwd())
        for name in (None, *SET_UP):
            logger = logging.getLogger(name)
            after.callback(logger.setLevel, logger.level)
            after.callback(setattr, logger, "handlers", list(logger.handlers))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
            after.callback(signal.signal, number, signal.getsignal(number))
        after.callback(random.setstate, random.getstate())
        after.callback(np.random.set_state, np.random.get_state())
        _torch_unchanged(after)
        if (matplotlib := sys.modules.get("matplotlib")) is not None:
            after.enter_context(matplotlib.rc_context())
        yield


def _torch_unchanged(after: ExitStack) -> None:
    if (torch := sys.modules.get("torch")) is None:
        return
    after.callback(torch.set_num_threads, torch.get_num_threads())
    after.callback(torch.set_rng_state, torch.get_rng_state())
    after.callback(torch.set_grad_enabled, torch.is_grad_enabled())
    after.callback(torch.set_default_dtype, torch.get_default_dtype())
    mode, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    after.callback(torch.use_deterministic_algorithms, mode, warn_only=warn_only)
    after.callback(_forget_accelerator)


def _forget_accelerator() -> None:
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
