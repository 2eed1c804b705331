"""Validated reading of the JSON files of a finished run, which may come from a stranger."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vl2v.errors import RunError
from vl2v.json_files import read_json
from vl2v.origin import ORIGIN, check_origin
from vl2v.strict import described
from vl2v_runtime import strict_json
from vl2v_runtime.regular import read_text

MAX_METRICS = 2**30  # bytes of metrics.jsonl
Text = Annotated[str, Field(max_length=10_000)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Share = Annotated[float, Field(ge=0, le=1)]
Money = Annotated[str, Field(pattern=r"^[0-9]{1,15}(\.[0-9]{1,18})?$")]
Role = Literal["in-domain", "test", "out-of-domain", "all images"]
Part = TypeVar("Part", bound=BaseModel)


class _Part(BaseModel):
    """A part of a file. Unknown keys are accepted, since later versions may write some."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class ClassPart(_Part):
    """Schema of `vl2v.evaluation.evaluation.ClassRecall`."""

    images: Count
    student: Share
    zero_shot: Share | None = None


class RowPart(BaseModel):
    """Schema of `vl2v.evaluation.evaluation.DomainScore`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    domain: Text
    role: Role
    images: Count
    student: Share
    zero_shot: Share | None = None
    student_ece: Share | None = None
    zero_shot_ece: Share | None = None
    student_ece_calibrated: Share | None = None
    student_aurc: Share | None = None
    student_aurc_energy: Share | None = None
    student_macro: Share | None = None
    zero_shot_macro: Share | None = None
    classes: Annotated[dict[Text, ClassPart], Field(max_length=100_000)] = {}


class MeansPart(_Part):
    """Schema of the means over the domains of a role."""

    zero_shot: Share | None
    student: Share | None
    zero_shot_macro: Share | None = None
    student_macro: Share | None = None


class TablePart(_Part):
    """Schema of `vl2v.evaluation.evaluation.Evaluation`."""

    domains: Annotated[list[RowPart], Field(max_length=10_000)]
    means: dict[str, MeansPart]
    beside: dict[str, TablePart] = {}
    reference: Literal["labels", "teacher"] = "labels"
    metric: Literal["accuracy", "macro"] = "accuracy"


class AskedPart(_Part):
    """Schema of the teacher queries that training needed."""

    image_queries: Count
    text_queries: Count
    cost: Money
    currency: Text
    price_per_1000_images: Money | None = None


class UnseenPart(_Part):
    """Schema of `vl2v.evaluation.unseen.Unseen`."""

    seen: Share | None = None
    unseen: Share | None = None
    harmonic: Share | None = None
    alone: Share | None = None


class UnseenRowPart(_Part):
    """Schema of `vl2v.evaluation.unseen.UnseenRow`."""

    domain: Text
    role: Role
    student: UnseenPart | None = None
    adjusted: UnseenPart | None = None
    zero_shot: UnseenPart | None = None


class UnseenTablePart(_Part):
    """Schema of `vl2v.evaluation.unseen.UnseenClasses`."""

    classes: list[Text] = []
    offset: float | None = None
    domains: list[UnseenRowPart] = []
    means: dict[str, dict[Literal["zero_shot", "student", "adjusted"], UnseenPart]] = {}


class IntervalPart(_Part):
    """Schema of `vl2v.analysis.intervals.Share`."""

    value: Share
    low: Share
    high: Share


class AdvicePart(_Part):
    """Schema of `vl2v.analysis.advice.Advice`."""

    action: Text
    teacher: IntervalPart
    answers: Count
    probe: IntervalPart
    images: Count
    by_domain: bool
    classes: Count
    of_classes: Count
    line: Text


class EvaluationFile(TablePart):
    """Schema of `evaluation.json`."""

    origin: Text = ""
    advice: AdvicePart | None = None
    asked: AskedPart | None = None
    unseen_classes: UnseenTablePart | None = None
    fresh_queries: Count | None = None
    warnings: Annotated[list[Text], Field(max_length=10_000)] = []


class ComparedPart(_Part):
    """Schema of `vl2v.onnx_export.parity.Compared`."""

    bytes: Count | None = None
    images: Count | None = None
    logits: Annotated[float, Field(ge=0)] | None = None
    agreement: Share | None = None
    accuracy: Share | None = None
    student: Share | None = None


class ExportFile(_Part):
    """Schema of `export/export.json`."""

    files: dict[str, ComparedPart]
    origin: Text = ""


class JobFile(_Part):
    """Schema of `job.json`, the result of a benchmark job."""

    method: Text
    title: Text
    target: Text
    seed: Annotated[int, Field(ge=0, le=2**63)]
    candidate: dict[Text, Any]
    crossed: Text | None
    seconds: Annotated[float, Field(ge=0, le=1e12)]


class StateValues(_Part):
    """Schema of the plain values in the training state."""

    stage: Literal["align", "distill"]
    step: Count
    digest: Text
    losses: list[float]
    parts: dict[str, float] = {}
    metrics: Count
    fresh_queries: Count = 0
    micro_batch: Annotated[int, Field(gt=0)] | None = None
    best: float = -1.0
    swad: dict[str, Any] | None = None
    origin: Text = ""


def _either(part: Part, *values: float | None) -> Part:
    if all(value is None for value in values):
        raise ValueError("neither accuracy nor agreement")
    return part


class ScorePart(_Part):
    """Schema of the scores of a domain in a line of metrics: `accuracy` or, without labels, `agreement`."""

    loss: float
    accuracy: Share | None = None
    agreement: Share | None = None
    macro: Share | None = None

    @model_validator(mode="after")
    def _one(self) -> ScorePart:
        return _either(self, self.accuracy, self.agreement)


class MetricsLine(_Part):
    """Schema of a line of `metrics.jsonl`."""

    stage: Text
    step: Count
    losses: list[float]
    parts: dict[str, float] = {}
    val_loss: float
    val_accuracy: Share | None = None
    val_agreement: Share | None = None
    val_macro: Share | None = None
    domains: dict[str, ScorePart]
    origin: Text = ""

    @model_validator(mode="after")
    def _one(self) -> MetricsLine:
        return _either(self, self.val_accuracy, self.val_agreement)


def _read(model: type[BaseModel], path: Path, origin: str = "") -> dict[str, Any]:
    """Read a JSON file.

    Args:
        origin: that of the student of the run; empty accepts the file of any student.

    Raises:
        RunError: if the file cannot be read, has invalid content, or belongs to another student.
    """
    content = check(model, read_json(path), path)
    check_origin(content.get(ORIGIN), origin, path)
    return content


read_evaluation = partial(_read, EvaluationFile)
read_export = partial(_read, ExportFile)
read_job = partial(_read, JobFile)


def read_metrics(path: Path, origin: str = "") -> tuple[dict[str, Any], ...]:
    """Read the lines of `metrics.jsonl`, oldest first. Losses may be NaN. A truncated last line is ignored.

    Args:
        origin: that of the run; empty accepts the file of any run.

    Raises:
        RunError: if a line has invalid content, or belongs to another run.
        OSError, ValueError: if the file cannot be read.
    """
    *lines, last_line = read_text(path, MAX_METRICS).split("\n")  # a complete line ends with a newline
    with suppress(ValueError, RunError):
        check(MetricsLine, strict_json.parse(last_line, allow_nan=True), path)
        lines.append(last_line)
    checked = tuple(check(MetricsLine, strict_json.parse(line, allow_nan=True), path) for line in lines if line.strip())
    for line in checked:
        check_origin(line.get(ORIGIN), origin, path, owner="run")
    return checked


def first_origin(path: Path) -> str:
    """Return the origin in the first line of `metrics.jsonl`; empty if there is none, or the line is damaged."""
    with suppress(OSError, ValueError, RunError):
        line = strict_json.parse(read_text(path, MAX_METRICS).partition("\n")[0], allow_nan=True)
        return str(check(MetricsLine, line, path).get(ORIGIN, ""))
    return ""


def check(model: type[BaseModel], content: Any, path: Path) -> dict[str, Any]:
    """Validate content and return it unchanged.

    Args:
        path: path of the file, for the message.

    Raises:
        RunError: names the first faults.
    """
    try:
        model.model_validate(content)
    except ValidationError as error:
        step = "copy it again from its source"
        raise RunError(
            f"{path} cannot be used.", expected="what vl2v wrote", found=described(error), next_step=step
        ) from error
    valid_content: dict[str, Any] = content
    return valid_content
