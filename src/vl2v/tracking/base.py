"""The tracker protocol, and the list of trackers."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from vl2v.errors import MissingExtraError

TRACKERS = {  # by name: module, class, package to import, package to install
    "tensorboard": ("vl2v.tracking.tensorboard", "TensorBoardTracker", "tensorboard", "tensorboard"),
    "wandb": ("vl2v.tracking.wandb", "WandbTracker", "wandb", "wandb"),
    "mlflow": ("vl2v.tracking.mlflow", "MlflowTracker", "mlflow", "mlflow-skinny"),
}


@dataclass
class Memory:
    """State of a tracker, for later processes of the same run.

    Attributes:
        run: id of the run in the tracker. Empty before the first start.
        last: last step that was logged, or -1.
        finished: whether the final figures were logged.
    """

    run: str = ""
    last: int = -1
    finished: bool = False

    def __post_init__(self) -> None:
        """Check the values, since the run folder may come from an untrusted source."""
        is_name = isinstance(self.run, str) and re.fullmatch(r"[\w-]{0,64}", self.run, re.ASCII)
        if not is_name or type(self.last) is not int or self.last < -1 or type(self.finished) is not bool:
            raise ValueError(f"not the state of a tracker: {str(self)[:100]}")


class Tracker(Protocol):
    """Receives the metrics of a run. If it raises any exception, `Tracking` continues without it."""

    memory: Memory

    def start(self, config: Mapping[str, Any]) -> None:
        """Create the run in the tracker, or continue the run of `memory`.

        Args:
            config: settings of the run as plain values, redacted.
        """
        ...

    def log(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        """Log metrics.

        Args:
            step: number of the step from 0, counted over both stages. It increases from call to call.
            stage: ``align`` or ``distill``.
        """
        ...

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Log the final figures by name, and close. `summary` is None if the run has not finished."""
        ...


def check_installed(names: Iterable[str]) -> None:
    """Check that the packages of trackers are installed.

    Raises:
        MissingExtraError: with the extra to install.
    """
    for name in names:
        _, _, package, installed = TRACKERS[name]
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(f"The tracker {name}", name, installed)


def open_tracker(name: str, run: Path, memory: Memory) -> Tracker:
    """Create a tracker. It is not started yet."""
    module, cls, _, _ = TRACKERS[name]
    tracker: Tracker = getattr(import_module(module), cls)(run, memory)
    return tracker
