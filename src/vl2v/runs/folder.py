"""A run folder: settings, metrics, training state and student."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from vl2v.config import RunConfig, parse
from vl2v.data.folder import read_yaml
from vl2v.errors import RunError
from vl2v.faults import UNREADABLE
from vl2v.hints import resume_command
from vl2v.json_files import read_json, write_json
from vl2v.locations import StoragePaths
from vl2v.runs.ownership import LOCK, OWNER
from vl2v.runs.relative import located
from vl2v.runs.run_files import StateValues
from vl2v.runs.storage import FILE as STORAGE
from vl2v.runs.storage import remember
from vl2v.teacher.purchase import spending
from vl2v.writing import in_place, replacing, write_text
from vl2v_runtime import strict_json
from vl2v_runtime.names import printable, shown

# Files that a folder may contain without being a run: a process was killed before it had written the settings.
REPAIR, TRAINED, CHECKED = "repair.json", "repair-trained.csv", "repair-checked.csv"  # of `vl2v repair`
BEFORE_A_RUN = (
    *(LOCK, OWNER, spending.FILE, spending.LOCK, STORAGE, f"{STORAGE}.new", "config.yaml.new"),
    *(name + end for name in (REPAIR, TRAINED, CHECKED) for end in ("", ".new")),
)


@dataclass
class State:
    """Where training stands.

    Attributes:
        tensors: weights, optimiser and averaging state, by name.
        values: stage, next step, and the rest that is no tensor.
    """

    tensors: dict[str, Tensor]
    values: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under ``prefix/``, without it."""
        head = f"{prefix}/"
        return {name.removeprefix(head): t for name, t in self.tensors.items() if name.startswith(head)}


class RunFolder:
    """`config.yaml`, `metrics.jsonl`, `state.safetensors` with `state.json`, `student/`, `evaluation.json`,
    `predictions.npz`, `embeddings.npz`, `report.html`; `queries.json` if the images to query were chosen.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.teacher_file = path / "teacher.json"
        self.metrics_file = path / "metrics.jsonl"
        self.state_file = path / "state.safetensors"
        self.student = path / "student"
        self.evaluation_file = path / "evaluation.json"
        self.predictions_file = path / "predictions.npz"
        self.embeddings_file = path / "embeddings.npz"
        self.report_file = path / "report.html"
        self.queries_file = path / "queries.json"
        self.work = path / "work"

    def create(self, config: RunConfig, storage: StoragePaths | None = None) -> None:
        """Begin a run, with all that is needed to go on with it.

        Args:
            config: its settings.
            storage: its cache and store.

        Raises:
            RunError: if the folder holds something already.
        """
        self.check_free()
        self.path.mkdir(parents=True, exist_ok=True)
        if storage is not None:
            remember(self.path, storage)
        self.write_config(config)

    def check_free(self) -> None:
        """Refuse a folder that holds something already, or whose name the files' formats cannot take.

        Raises:
            RunError: if it does.
        """
        if printable(self.path) != str(self.path):
            found, step = shown(self.path), "choose another --out"
            problem, expected = "The path of the run is not UTF-8.", "a path in UTF-8"
            raise RunError(problem, expected=expected, found=found, next_step=step)
        if not self.path.exists():
            return
        if self.path.is_dir() and all(file.name in BEFORE_A_RUN for file in self.path.iterdir()):
            return
        run = self.config_file.exists()
        raise RunError(
            f"{self.path} is not empty.",
            expected="a new or empty folder for --out",
            found="a run" if run else "other files",
            next_step=f"{f'continue it: {resume_command(self.path)}; or ' if run else ''}choose another --out",
        )

    def write_config(self, config: RunConfig) -> None:
        """Write the run's settings over what stands there, at once."""
        write_text(self.config_file, config.to_yaml())

    def config(self, resuming: bool = False) -> RunConfig:
        """The run's settings, with paths that are found from the current folder.

        Args:
            resuming: whether they are read for --resume, which the message mentions.

        Raises:
            RunError: if the folder holds no run.
        """
        if not self.config_file.is_file():
            step = f"pass the --out of an earlier vl2v distill{'; omit --resume to start a new run' * resuming}"
            raise RunError(f"{self.path} contains no run.", expected="config.yaml", found="none", next_step=step)
        return located(parse(RunConfig, read_yaml(self.config_file), str(self.config_file)), self.path)

    def teacher(self) -> Mapping[str, Any] | None:
        """Identity, revision and dimension of the vendor's model that the run began with; None if none is noted.

        Raises:
            RunError: if the file is broken.
        """
        found = read_json(self.teacher_file) if self.teacher_file.is_file() else None
        return found if isinstance(found, dict) else None

    def save_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Replace the state at once: the tensors' file carries the values too, `state.json` is a copy to read."""
        flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        with replacing(self.state_file) as fresh:
            save_file(flat, fresh, metadata={"state": json.dumps(values)})
        write_json(self.path / "state.json", values)

    def load_state(self) -> State | None:
        """The saved state, or None if the run was stopped before the first.

        Raises:
            RunError: if the file is broken.
        """
        if not self.state_file.exists():
            return None
        try:
            with safe_open(self.state_file, "pt") as file:
                values = strict_json.parse(file.metadata()["state"], allow_nan=True)
                StateValues.model_validate(values)
                return State({name: file.get_tensor(name) for name in file.keys()}, values)  # noqa: SIM118
        except (OSError, *UNREADABLE) as error:
            step = "start a new run with another --out; purchased embeddings are reused for free"
            raise RunError(
                f"{self.state_file} is damaged.", expected="a state", found=str(error), next_step=step
            ) from error

    @contextmanager
    def state_fits(self) -> Iterator[None]:
        """Turn what torch says of a state that does not fit the run into an error.

        Raises:
            RunError: instead.
        """
        try:
            yield
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise RunError(
                f"{self.state_file} does not fit this run.",
                expected="the state that the run saved",
                found=" ".join(f"{type(error).__name__}: {error}".split())[:300],
                next_step="start a new run with another --out; purchased embeddings are reused for free",
            ) from error

    def add_metrics(self, line: Mapping[str, Any]) -> int:
        """Append one line to `metrics.jsonl`; returns the file's length in bytes, to go back to on resume."""
        with in_place(self.metrics_file) as handle:
            handle.seek(0, os.SEEK_END)
            handle.write(json.dumps(line).encode() + b"\n")
            handle.flush()
            return handle.tell()

    def cut_metrics(self, length: int) -> None:
        """Drop what was written to `metrics.jsonl` after the state was saved."""
        if self.metrics_file.exists():
            with in_place(self.metrics_file) as handle:
                handle.truncate(min(length, self.metrics_file.stat().st_size))

    def tidy(self) -> None:
        """Remove what only training needed."""
        shutil.rmtree(self.work, ignore_errors=True)
