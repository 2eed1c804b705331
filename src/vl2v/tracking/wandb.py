"""Weights & Biases, online or offline as its own environment variables say."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vl2v.tracking.base import Memory

FINISH_SECONDS = 60.0  # what is not sent by then stays in RUN/wandb, for `wandb sync`


class WandbTracker:
    """Logs into one run of W&B's, whose id is kept; see `vl2v.tracking.base.Tracker`."""

    def __init__(self, run: Path, memory: Memory) -> None:
        self.memory = memory
        self._folder = run
        self._run: Any = None

    def start(self, config: Mapping[str, Any]) -> None:
        """Open the run, without asking at the terminal for a key and without a look at the user's code.

        Raises:
            LookupError: if W&B is to be reached and no key is set.
        """
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            x_disable_machine_info=True,
            finish_timeout=FINISH_SECONDS,
        )
        online = wandb.setup().settings.mode == "online"
        if online and not wandb.login(prompt=False):
            raise LookupError("no key; export WANDB_API_KEY, or WANDB_MODE=offline to send later with wandb sync")
        self.memory.run = self.memory.run or secrets.token_hex(8)
        self._run = wandb.init(
            dir=str(self._folder),
            project=os.environ.get("WANDB_PROJECT", "vl2v"),
            name=os.environ.get("WANDB_NAME", self._folder.resolve().name),
            id=self.memory.run,
            resume="allow" if online else None,  # offline, the same id makes `wandb sync` join the parts
            config=dict(config),
            settings=settings,
        )

    def log(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        """See `Tracker.log`."""
        self._run.log({f"{stage}/{name}": value for name, value in values.items()}, step=step)

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Write the final figures into the run's summary."""
        if summary is not None:
            self._run.summary.update(dict(summary))
        self._run.finish(exit_code=0 if summary is not None else 1)
