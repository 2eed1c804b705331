"""Read a run folder for its report. Missing data are None, with the reason."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from vl2v.arrays import FLOAT, TEXT, WHOLE, Form, read_arrays
from vl2v.config import RunConfig
from vl2v.errors import RunError, Vl2vError
from vl2v.evaluation.evaluation import IN_DOMAIN, OUT_OF_DOMAIN, TEST, Evaluation
from vl2v.evaluation.predictions import Predictions, check_answers, read_predictions
from vl2v.evaluation.reference import Reference
from vl2v.faults import UNREADABLE, reading
from vl2v.hints import resume_command
from vl2v.onnx_export.exported import EXPORT, REPORT
from vl2v.origin import ORIGIN, check_origin, origin_of
from vl2v.runs.folder import RunFolder
from vl2v.runs.run_files import read_evaluation, read_export, read_metrics
from vl2v.runs.storage import made_here
from vl2v.student.files import CARD, read_card
from vl2v.trust import files as trust_file
from vl2v_runtime.trust import Trust

Arrays = Mapping[str, NDArray[Any]]
Found = TypeVar("Found")
EMBEDDINGS = {  # `embeddings.npz`, see `vl2v.evaluation.embeddings.save_embeddings`
    ORIGIN: Form(TEXT, (), optional=True),
    "classes": Form(TEXT, ("K",), optional=True),  # missing in earlier versions
    **{name: Form(TEXT, ("N",)) for name in ("path", "domain", "role")},
    "label": Form(WHOLE, ("N",)),
    "features": Form(FLOAT, ("N", "F"), optional=True),
    **{name: Form(FLOAT, ("N", "D"), optional=True) for name in ("aligned", "distilled", "teacher")},
    "texts": Form(FLOAT, ("K", "D"), optional=True),
}
HEADS = {IN_DOMAIN: "in-domain", TEST: "test", OUT_OF_DOMAIN: "held-out"}  # column headings
ROLE_NAMES = {IN_DOMAIN: "in-domain", TEST: "test", OUT_OF_DOMAIN: "held-out domain"}


@dataclass(frozen=True)
class Source:
    """The data of a report.

    Attributes:
        evaluation: the table of results.
        content: content of `evaluation.json`.
        card: content of `student.json`.
        metrics: the lines of `metrics.jsonl`, oldest first.
        predictions: saved predictions. None in runs of earlier versions.
        embeddings: content of `embeddings.npz`. None in runs of earlier versions.
        trust: content of `student/trust.json`. None if nothing was fitted.
        export: content of `export/export.json`. None if nothing was exported.
        missing: why a part is None, by name of the attribute.
    """

    folder: RunFolder
    config: RunConfig
    evaluation: Evaluation
    content: Mapping[str, Any]
    card: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    predictions: Predictions | None
    embeddings: Arrays | None
    trust: Trust | None
    export: Mapping[str, Any] | None
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """Class names of the run in the order of its logits, without later changes of the student."""
        if self.embeddings is not None and "classes" in self.embeddings:
            return [str(name) for name in self.embeddings["classes"]]
        names = [str(name) for name in self.card["classes"]]
        if self.predictions is None:
            return names
        count = self.predictions.student.shape[1]
        if len(names) >= count:
            return names[:count]
        pairs = zip(self.predictions.label, self.predictions.path, strict=True)
        folders = {int(label): Path(str(path)).parent.name for label, path in pairs}
        return [folders.get(k, f"class {k}") for k in range(count)]

    @property
    def reference(self) -> Reference:
        """What predictions are compared with: labels or the teacher."""
        return self.evaluation.reference

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Provenance of the student."""
        provenance: Mapping[str, Any] = self.card.get("provenance", {})
        return provenance


def evaluation_of_run(folder: RunFolder) -> tuple[Evaluation, dict[str, Any]]:
    """Read the evaluation of a finished run, and the whole content of its file.

    Raises:
        RunError: if the file cannot be read, or is not what vl2v wrote.
    """
    with reading(folder.evaluation_file, f"write it again: {resume_command(folder.path)}"):
        content = read_evaluation(folder.evaluation_file, folder.origin())
        return Evaluation.from_dict(content), content


def read_run(path: Path) -> Source:
    """Read a finished run.

    Raises:
        RunError: if the folder does not contain one.
    """
    folder = RunFolder(path)
    config = folder.config()
    if not folder.evaluation_file.is_file() or not (folder.student / CARD).is_file():
        raise RunError(
            f"{path} is an unfinished run.",
            expected="evaluation.json and student/student.json",
            found="a run without them",
            next_step=f"continue it: {resume_command(path)}",
        )
    evaluation, content = evaluation_of_run(folder)
    card, is_own, parts = read_card(folder.student), made_here(path), _Parts(path)
    origin = origin_of(card["provenance"])
    predictions = parts.read(
        "predictions",
        folder.predictions_file,
        lambda file: read_predictions(file, is_own, origin=origin),
        "The run has no saved predictions",
    )
    metrics = parts.read(
        "metrics", folder.metrics_file, lambda file: read_metrics(file, config.origin), "There are no curves"
    )
    embeddings = parts.read(
        "embeddings",
        folder.embeddings_file,
        lambda file: _embeddings(file, predictions, len(card["classes"]), is_own, origin),
        "The run has no saved embeddings, which benchmark jobs never have",
    )
    trust = parts.read(
        "trust",
        folder.student / trust_file.FILE,
        lambda file: trust_file.load(file.parent, origin),
        "There is no temperature",
    )
    export = parts.read(
        "export", path / EXPORT / REPORT, lambda file: read_export(file, origin), "Nothing was exported"
    )
    return Source(
        folder, config, evaluation, content, card, metrics or (), predictions, embeddings, trust, export, parts.missing
    )


class _Parts:
    """Reads the optional files of a run, and records why some of them are missing."""

    def __init__(self, run: Path) -> None:
        self.run, self.missing = run, dict[str, str]()

    def read(self, name: str, file: Path, read: Callable[[Path], Found], why: str) -> Found | None:
        try:
            if os.path.lexists(file):  # a link to nothing is not a missing file
                return read(file)
            self.missing[name] = f"{why} ({file.relative_to(self.run).as_posix()} is missing)."
        except (OSError, *UNREADABLE, Vl2vError) as error:
            reason = error.found if isinstance(error, Vl2vError) else error
            self.missing[name] = f"{file.relative_to(self.run).as_posix()} cannot be read: {reason}."
        return None


def _embeddings(file: Path, predictions: Predictions | None, classes: int, is_own: bool, origin: str) -> Arrays:
    """Read `embeddings.npz`; `classes` is the number of classes if neither the file nor the predictions state it."""
    arrays = read_arrays(file, EMBEDDINGS)
    check_origin(arrays.get(ORIGIN), origin, file)
    counts = [len(arrays[name]) for name in ("classes", "texts") if name in arrays]
    counts += [] if predictions is None else [predictions.student.shape[1]]
    if len(set(counts)) > 1:
        raise ValueError(f"{counts[0]} classes, the predictions have {counts[-1]}")
    check_answers(arrays["role"], arrays["path"], arrays["label"], counts[0] if counts else classes, is_own)
    return arrays
