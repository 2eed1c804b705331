"""Send the lines of `metrics.jsonl` to trackers after the training state has been saved.

Trackers therefore never receive a line that a resumed run removes. Lines that they missed are sent later.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from vl2v.faults import reading
from vl2v.json_files import read_json, write_json
from vl2v.redaction import public_config
from vl2v.runs.folder import RunFolder
from vl2v.tracking.base import Memory, Tracker, open_tracker

Note = Callable[[str], None]


class Tracking:
    """All trackers of a run. A tracker that fails is disabled with one warning, and training continues.

    Args:
        names: names of the trackers. Empty if another process logs.
    """

    def __init__(self, names: Sequence[str], folder: RunFolder, warn: Note) -> None:
        self._folder, self._warn = folder, warn
        self._state_file = folder.path / "tracking.json"
        with reading(self._state_file, "delete it: the trackers then receive the whole run again"):
            state = read_json(self._state_file) if names and self._state_file.exists() else {}
            self._memories = {name: Memory(**values) for name, values in state.items()}
        self._live: dict[str, Tracker] = {}
        self._offset, self._aligned = 0, 0
        for name in names:
            self._try(name, partial(self._open, name))

    def send_new_lines(self) -> None:
        """Send the new lines of `metrics.jsonl` to the trackers."""
        if not self._live:
            return
        with self._folder.metrics_file.open("rb") as handle:
            handle.seek(self._offset)
            lines = handle.readlines()
            self._offset = handle.tell()
        for text in lines:
            line = json.loads(text)
            step = int(line["step"])
            if line["stage"] == "align":
                self._aligned = step + 1
            else:
                step += self._aligned
            for name in tuple(self._live):
                self._try(name, partial(self._log, name, step, line))
        self._remember()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Send the remaining lines and the final figures, including those of held-out domains, and close."""
        if self._live:
            self.send_new_lines()
            self.close(summary)

    def close(self, summary: Mapping[str, Any] | None = None) -> None:
        """Close the trackers, by default those of an unfinished run. It has no effect after `finish`."""
        for name in tuple(self._live):
            self._try(name, partial(self._finish, name, summary))
        if self._live:
            self._remember()
        self._live = {}

    def _open(self, name: str) -> None:
        memory = self._memories.setdefault(name, Memory())
        if memory.finished:  # a finished run was resumed: there is nothing to add
            return
        tracker = open_tracker(name, self._folder.path, memory)
        config = self._folder.config().model_dump(mode="json", exclude={"budget"})
        tracker.start(public_config(config))
        self._live[name] = tracker
        self._remember()

    def _log(self, name: str, step: int, line: Mapping[str, Any]) -> None:
        tracker = self._live[name]
        if step > tracker.memory.last:
            tracker.log(step, line["stage"], values_of(line))
            tracker.memory.last = step

    def _finish(self, name: str, summary: Mapping[str, Any] | None) -> None:
        tracker = self._live[name]
        tracker.finish(summary)
        tracker.memory.finished = summary is not None

    def _remember(self) -> None:
        write_json(self._state_file, {name: asdict(memory) for name, memory in self._memories.items()})

    def _try(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # networks, disks and three packages raise many types
            self._live.pop(name, None)
            message = " ".join(str(error).split())[:300] or type(error).__name__
            self._warn(f"the tracker {name} failed and is disabled; training continues ({message})")


def values_of(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of one line of `metrics.jsonl`.

    Args:
        line: a line from `vl2v.evaluation.metrics.metrics_line`.

    Returns:
        Values by name:

        - ``loss``, the mean since the previous line, and the same for each named part, e.g. ``loss/image``.
        - ``val_loss`` and ``val_accuracy`` (``val_agreement`` without labels) on the validation images of the source
          domains, also per domain; ``val_macro`` is the mean over classes.
        - ``learning_rate``.
        - ``swad_start`` and ``swad_end``, steps of the stage, as soon as they are known.
    """
    losses = line["losses"]
    values: dict[str, float] = {"loss": sum(losses) / len(losses)} if losses else {}
    values |= {f"loss/{name}": value for name, value in line.get("parts", {}).items()}
    metric_names = ("loss", "accuracy", "agreement", "macro")
    values |= {f"val_{key}": line[f"val_{key}"] for key in metric_names if f"val_{key}" in line}
    for domain, score in line["domains"].items():
        values |= {f"val_{key}/{domain}": score[key] for key in metric_names if key in score}
    tracked_names = {"learning_rate": "learning_rate", "converged_at": "swad_start", "dead_at": "swad_end"}
    return values | {name: line[key] for key, name in tracked_names.items() if line.get(key) is not None}
