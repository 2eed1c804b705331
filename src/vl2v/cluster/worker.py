"""What runs on the machines of a cluster: calls of functions, after checks of the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vl2v.allocator import keep_freed_memory
from vl2v.errors import RunError, Vl2vError


@dataclass(frozen=True)
class Driver:
    """What workers must have in common with the process that starts them.

    Attributes:
        cwd: its working directory, for relative paths in the settings.
        version: its version of vl2v.
    """

    cwd: Path = field(default_factory=Path.cwd)
    version: str = field(default_factory=lambda: importlib.metadata.version("vl2v"))

    def adopt(self, gpus: float) -> None:
        """Prepare this process for work: its working directory, its memory, and no GPUs unless it was given some."""
        if self.cwd.is_dir():
            os.chdir(self.cwd)
        keep_freed_memory()
        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # whether Ray does so differs between versions

    def check(self) -> None:
        """Check that this machine has the same version of vl2v.

        Raises:
            RunError: if it has another one.
        """
        if (version := importlib.metadata.version("vl2v")) != self.version:
            raise RunError(
                f"The machine {platform.node()} has another version of vl2v.",
                expected=self.version,
                found=version,
                next_step="install the same there or remove that machine from the cluster; then repeat the command",
            )


@dataclass(frozen=True)
class Failed:
    """An error for users that a call raised. Ray would return an exception of another class."""

    error: Vl2vError


class Worker:
    """An actor that calls functions."""

    def start(self, driver: Driver, gpus: float) -> tuple[str, int] | Failed:
        """Prepare and check the machine; return its name and the id of this process."""
        driver.adopt(gpus)
        try:
            driver.check()
        except Vl2vError as error:
            return Failed(error)
        return platform.node(), os.getpid()

    def call(self, function: Callable[[Any], Any], item: Any) -> Any:
        """Return the result of a function, or the error for users that it raised."""
        try:
            return function(item)
        except Vl2vError as error:
            return Failed(error)
