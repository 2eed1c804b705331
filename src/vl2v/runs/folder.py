"""The run folder: settings, metrics, training state, student and results."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from vl2v.config import RunConfig
from vl2v.data.folder import read_mapping
from vl2v.errors import ConfigError, RunError
from vl2v.faults import UNREADABLE
from vl2v.hints import resume_command
from vl2v.json_files import read_json, write_json
from vl2v.locations import StoragePaths
from vl2v.origin import ORIGIN, check_origin, origin_of
from vl2v.runs.ownership import LOCK, OWNER
from vl2v.runs.relative_paths import located
from vl2v.runs.run_files import StateValues, first_origin
from vl2v.runs.signatures import sign_teacher
from vl2v.runs.storage import FILE as STORAGE
from vl2v.runs.storage import remember
from vl2v.student.files import CARD, read_card
from vl2v.teacher.purchase import spending
from vl2v.tensor_files import open_tensors
from vl2v.validation import parse
from vl2v.writing import atomic_write, in_place, write_text
from vl2v_runtime import strict_json
from vl2v_runtime.names import printable, quoted, shown

# Files in a folder without a run, if a process was killed before it had written the settings.
EXPECTED = "expected.json"  # of `vl2v final`
REPAIR, TRAINED, CHECKED = "repair.json", "repair-trained.csv", "repair-checked.csv"  # files of `vl2v repair`
WRITTEN = (OWNER, spending.FILE, STORAGE, REPAIR, TRAINED, CHECKED, EXPECTED)  # each first under its name with .new
BEFORE_A_RUN = {LOCK, spending.LOCK, "config.yaml.new", *WRITTEN, *(f"{name}.new" for name in WRITTEN)}


@dataclass
class State:
    """State of a training in progress.

    Attributes:
        tensors: weights, optimiser state and weight averages, by name.
        values: stage, next step and other plain values.
    """

    tensors: dict[str, Tensor]
    values: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors under ``prefix/``, without the prefix."""
        head = f"{prefix}/"
        return {name.removeprefix(head): t for name, t in self.tensors.items() if name.startswith(head)}


class RunFolder:
    """The files of a run.

    They are `config.yaml`, `metrics.jsonl`, `state.safetensors` with `state.json`, `student/`, `evaluation.json`,
    `predictions.npz`, `embeddings.npz` and `report.html`, and `queries.json` if the images to query were chosen.
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
        self.data_file = self.work / "data.json"  # the images of an unfinished run; later, the student records them

    def create(self, config: RunConfig, storage: StoragePaths | None = None) -> None:
        """Create the folder of a new run, from which it can be resumed.

        Raises:
            RunError: if the folder is not empty, or its path is not UTF-8.
        """
        self.check_free()
        self.path.mkdir(parents=True, exist_ok=True)
        if storage is not None:
            remember(self.path, storage, teacher=sign_teacher(config))
        self.write_config(config.model_copy(update={ORIGIN: _origin_of_run(config)}))

    def check_free(self) -> None:
        """Check that a new run can be created in the folder.

        Raises:
            RunError: if the folder is not empty, or its path is not UTF-8.
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
            f"{self.path} is not {'empty' if self.path.is_dir() else 'a folder'}.",
            expected="a new or empty folder for --out",
            found="a run" if run else "other files" if self.path.is_dir() else "a file",
            next_step=f"{f'continue it: {resume_command(self.path)}; or ' if run else ''}choose another --out",
        )

    def write_config(self, config: RunConfig) -> None:
        """Write the settings of the run, atomically."""
        write_text(self.config_file, config.to_yaml())

    def config(self, resuming: bool = False) -> RunConfig:
        """Read the settings of the run. Relative paths are converted to be valid in the current folder.

        Args:
            resuming: whether the run is resumed with --resume, which the message then mentions.

        Raises:
            RunError: if the folder contains no run.
        """
        if not self.config_file.is_file():
            parent = self.path.absolute().parent  # of a student
            step = "pass the folder of an earlier run (vl2v distill --out)"
            step += "; omit --resume to start a new run" * resuming
            if (parent / self.config_file.name).is_file():
                step = f"pass the folder of the run: {quoted(parent)}"
            elif (self.student / CARD).is_file():
                step = f"copy {self.config_file.name} again from its source"
            raise RunError(f"{self.path} contains no run.", expected="config.yaml", found="none", next_step=step)
        return located(self.written_config(), self.path)

    def images(self) -> Path | None:
        """Return the folder or table of images of the run; None if the folder contains no run."""
        return Path(self.config().data.root) if self.config_file.is_file() else None

    def written_config(self) -> RunConfig:
        """Read the settings of the run with paths as in `config.yaml`.

        Raises:
            ConfigError: if the file cannot be read, its end is missing (these settings would have their defaults), or
                a setting is not valid.
        """
        values = read_mapping(self.config_file)
        if values and "made_with" not in values:
            raise ConfigError(
                f"{self.config_file} is incomplete.",
                expected="all settings of the run, as it wrote them",
                found="no made_with, which is at the end of the file",
                next_step="copy it again from its source",
            )
        return parse(RunConfig, values, str(self.config_file))

    def provenance(self) -> Mapping[str, Any]:
        """Return the provenance of the student; empty if there is no student yet.

        Raises:
            StudentError: if its `student.json` is damaged.
        """
        return read_card(self.student)["provenance"] if (self.student / CARD).is_file() else {}

    def origin(self) -> str:
        """Return the origin of the student, see `vl2v.origin`; empty if there is no student yet."""
        return origin_of(self.provenance())

    def teacher(self) -> Mapping[str, Any] | None:
        """Return identity, revision and dimension of the vendor's model at the start of the run; None if not recorded.

        Raises:
            RunError: if the file is damaged.
        """
        if not self.teacher_file.is_file():
            return None
        record = read_json(self.teacher_file)
        if not isinstance(record, dict):
            step, kind = "copy it again from its source", type(record).__name__
            problem = f"{self.teacher_file} is damaged."
            raise RunError(problem, expected="the model of the vendor", found=kind, next_step=step)
        return record

    @cached_property
    def own_origin(self) -> str:
        """The origin of the run itself, see `vl2v.origin`; empty in earlier versions."""
        return self.written_config().origin if self.config_file.is_file() else ""

    def save_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Write the training state, atomically.

        Args:
            values: plain values. They are saved in the file of the tensors; `state.json` is a copy for people.
        """
        flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        values = {**values, **self._mark()}
        with atomic_write(self.state_file) as fresh:
            save_file(flat, fresh, metadata={"state": json.dumps(values)})
        write_json(self.path / "state.json", values)

    def load_state(self) -> State | None:
        """Read the training state; None if none has been saved yet.

        Raises:
            RunError: if the file is damaged, or it or `metrics.jsonl` belongs to another run.
        """
        if not self.state_file.exists():
            return None
        try:
            with open_tensors(self.state_file) as file:
                values = strict_json.parse(file.metadata()["state"], allow_nan=True)
                StateValues.model_validate(values)
                state = State({name: file.get_tensor(name) for name in file.keys()}, values)  # noqa: SIM118
        except (OSError, *UNREADABLE) as error:
            step = "start a new run with another --out; purchased embeddings are reused for free"
            raise RunError(
                f"{self.state_file} is damaged.", expected="a saved training state", found=str(error), next_step=step
            ) from error

        step = "copy the file of this run again from its source, or delete it"
        check_origin(values.get(ORIGIN), self.own_origin, self.state_file, f"{step} to train from the start", "run")
        if self.metrics_file.exists():
            found = first_origin(self.metrics_file)
            check_origin(found, self.own_origin, self.metrics_file, f"{step} to go on without earlier curves", "run")
        return state

    @contextmanager
    def state_fits(self) -> Iterator[None]:
        """Convert errors of the block, which loads a state, to an error that says that it does not fit the run.

        Raises:
            RunError: if the block raises.
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
        """Append a line to `metrics.jsonl`. Returns the length of the file in bytes, for `cut_metrics`."""
        with in_place(self.metrics_file) as handle:
            handle.seek(0, os.SEEK_END)
            handle.write(json.dumps({**line, **self._mark()}).encode() + b"\n")
            handle.flush()
            return handle.tell()

    def _mark(self) -> dict[str, str]:
        return {ORIGIN: self.own_origin} if self.own_origin else {}

    def cut_metrics(self, length: int) -> None:
        """Remove the lines of `metrics.jsonl` that were written after the state was saved."""
        if self.metrics_file.exists():
            with in_place(self.metrics_file) as handle:
                handle.truncate(min(length, self.metrics_file.stat().st_size))

    def tidy(self) -> None:
        """Delete the temporary files of training."""
        shutil.rmtree(self.work, ignore_errors=True)


def _origin_of_run(config: RunConfig) -> str:
    """Return the origin of a new run: a hash of its settings, so that repeated runs are equal in every file."""
    settings = config.model_dump(mode="json", exclude={"made_with", "origin", "budget", "tracking"})
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]
