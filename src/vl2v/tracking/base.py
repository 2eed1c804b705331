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

TRACKERS = {  # by name: the module and its class, the package to import, the one to install
    "tensorboard": ("vl2v.tracking.tensorboard", "TensorBoardTracker", "tensorboard", "tensorboard"),
    "wandb": ("vl2v.tracking.wandb", "WandbTracker", "wandb", "wandb"),
    "mlflow": ("vl2v.tracking.mlflow", "MlflowTracker", "mlflow", "mlflow-skinny"),
}


@dataclass
class Memory:
    """What a tracker has to know of an earlier process of the same run.

    Attributes:
        run: the run's id at the tracker's; empty before the first start.
        last: the last step that was logged; -1 before any.
        finished: whether it has the final figures.
    """

    run: str = ""
    last: int = -1
    finished: bool = False

    def __post_init__(self) -> None:
        """Refuse values that no tracker wrote: the run's folder may come from a stranger."""
        named = isinstance(self.run, str) and re.fullmatch(r"[\w-]{0,64}", self.run, re.ASCII)
        if not named or type(self.last) is not int or self.last < -1 or type(self.finished) is not bool:
            raise ValueError(f"a run's id, last step and end that no tracker writes: {str(self)[:100]}")


class Tracker(Protocol):
    """A place where a run's figures go. It may raise whatever it likes: `Tracking` then goes on without it."""

    memory: Memory

    def start(self, config: Mapping[str, Any]) -> None:
        """Begin, or go on with the run that `memory` names.

        Args:
            config: the run's settings as plain values, without what is private.
        """
        ...

    def log(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        """Take in figures.

        Args:
            step: counted through both stages, from 0, growing.
            stage: ``align`` or ``distill``.
            values: by name, e.g. ``val_accuracy/sketch``.
        """
        ...

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Take in the final figures by name, and close; None where the run stops before its end."""
        ...


def check_installed(names: Iterable[str]) -> None:
    """Refuse trackers whose package is missing.

    Raises:
        MissingExtraError: with the extra that brings it.
    """
    for name in names:
        _, _, package, installed = TRACKERS[name]
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(f"The tracker {name}", name, installed)


def open_tracker(name: str, run: Path, memory: Memory) -> Tracker:
    """The tracker of a name, not yet started.

    Args:
        name: a key of `TRACKERS`.
        run: the run's folder.
        memory: of the earlier processes; it is kept up to date.
    """
    module, cls, _, _ = TRACKERS[name]
    tracker: Tracker = getattr(import_module(module), cls)(run, memory)
    return tracker
