"""Weights & Biases tracker, online or offline according to the environment variables of W&B."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vl2v.tracking.base import Memory

FINISH_SECONDS = 60.0  # data that are not sent by then stay in RUN/wandb, for `wandb sync`


class WandbTracker:
    """Logs to one W&B run, whose id is saved. See `vl2v.tracking.base.Tracker`."""

    def __init__(self, run: Path, memory: Memory) -> None:
        self.memory = memory
        self._folder = run
        self._run: Any = None

    def start(self, config: Mapping[str, Any]) -> None:
        """Open the run. It does not prompt for a key and does not upload code.

        Raises:
            LookupError: if W&B is online and no key is set.
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
            resume="allow" if online else None,  # offline, `wandb sync` joins parts with the same id
            config=dict(config),
            settings=settings,
        )

    def log(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        """See `Tracker.log`."""
        self._run.log({f"{stage}/{name}": value for name, value in values.items()}, step=step)

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Write the final figures to the summary of the run."""
        if summary is not None:
            self._run.summary.update(dict(summary))
        self._run.finish(exit_code=0 if summary is not None else 1)
