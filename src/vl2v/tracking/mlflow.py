"""MLflow tracker. It uses the server in MLFLOW_TRACKING_URI, or a database in the run folder."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vl2v.sqlite import SUFFIXES
from vl2v.tracking.base import Memory
from vl2v.writing import check_alone


class MlflowTracker:
    """Logs to one MLflow run, whose id is saved. See `vl2v.tracking.base.Tracker`."""

    def __init__(self, run: Path, memory: Memory) -> None:
        self.memory = memory
        self._folder = run.resolve()
        self._client: Any = None

    def start(self, config: Mapping[str, Any]) -> None:
        """Open the run. Steps that it already contains are not logged again."""
        for suffix in SUFFIXES:
            check_alone(self._folder / f"mlflow.db{suffix}")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # an unavailable server must not delay training
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self._folder / 'mlflow.db'}"
        self._client = MlflowClient(uri)
        if self.memory.run:
            self.memory.last = max(self.memory.last, self._last_step())
            self._client.set_terminated(self.memory.run, "RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "vl2v")
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self.memory.run = self._client.create_run(experiment_id, run_name=self._folder.name).info.run_id
        for key, value in _flat(config):
            self._client.log_param(self.memory.run, _clean(key), str(value)[:6000])

    def log(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        """See `Tracker.log`."""
        self._metrics({f"{stage}/{name}": value for name, value in values.items()}, step)

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Log the final figures: numbers as metrics, other values as tags."""
        if summary is not None:
            numbers = {name: value for name, value in summary.items() if isinstance(value, int | float)}
            self._metrics(numbers, max(0, self.memory.last))
            for name in summary.keys() - numbers.keys():
                self._client.set_tag(self.memory.run, _clean(name), str(summary[name]))
        self._client.set_terminated(self.memory.run, "FINISHED" if summary is not None else "KILLED")

    def _metrics(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_clean(name), float(value), now, step) for name, value in values.items()]
        self._client.log_batch(self.memory.run, metrics=metrics)

    def _last_step(self) -> int:
        names = self._client.get_run(self.memory.run).data.metrics
        steps = [m.step for name in names for m in self._client.get_metric_history(self.memory.run, name)]
        return max(steps, default=-1)


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _clean(name: str) -> str:
    """Replace characters that MLflow does not allow in names."""
    return re.sub(r"[^\w\-./ ]", "_", name)
