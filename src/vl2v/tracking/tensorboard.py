"""TensorBoard tracker. It writes event files to the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vl2v.tracking.base import Memory


class TensorBoardTracker:
    """Writes to ``RUN/tensorboard``. See `vl2v.tracking.base.Tracker`."""

    def __init__(self, run: Path, memory: Memory) -> None:
        self.memory = memory
        self._folder = run / "tensorboard"

    def start(self, config: Mapping[str, Any]) -> None:
        """Open a new event file. Readers ignore later steps in earlier files."""
        from torch.utils.tensorboard import SummaryWriter

        is_resumed = self.memory.last >= 0
        self._writer = SummaryWriter(str(self._folder), purge_step=self.memory.last + 1 if is_resumed else None)
        if not is_resumed:
            text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
            self._writer.add_text("config", f"```yaml\n{text}```", 0)

    def log(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        """See `Tracker.log`."""
        for name, value in values.items():
            self._writer.add_scalar(f"{stage}/{name}", value, step)
        self._writer.flush()

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Write the final figures as a text table."""
        if summary is not None:
            rows = [f"| {name} | {value} |" for name, value in summary.items()]
            text = "\n".join(["| figure | value |", "|---|---|", *rows])
            self._writer.add_text("summary", text, max(0, self.memory.last))
        self._writer.close()
