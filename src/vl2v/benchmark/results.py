"""The results of finished jobs, as used by selection, tables and plots."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from statistics import fmean
from typing import Any

from vl2v.benchmark.protocol import Job
from vl2v.errors import RunError
from vl2v.evaluation.evaluation import IN_DOMAIN, DomainScore, Evaluation
from vl2v.faults import reading
from vl2v.runs.folder import RunFolder
from vl2v.runs.run_files import read_evaluation, read_job
from vl2v.training.weights import wise_ft_name
from vl2v_runtime.names import shown

ZERO_SHOT = "zero-shot"


def candidate_key(candidate: Mapping[str, Any]) -> str:
    """Return the JSON by which candidates are compared and sorted."""
    return json.dumps(dict(candidate), sort_keys=True, default=str)


@dataclass(frozen=True)
class DomainResult:
    """Results on the images of one domain.

    Attributes:
        accuracy: top-1 accuracy in [0, 1].
        ece: expected calibration error in [0, 1].
        ece_calibrated: `ece` with temperature scaling; None in runs of earlier versions, and for the teacher.
    """

    accuracy: float
    ece: float
    images: int
    ece_calibrated: float | None = None


@dataclass(frozen=True)
class Record:
    """Results of one set of weights of one job.

    Attributes:
        method: label of the method in the grid, e.g. ``adip``; `ZERO_SHOT` for the teacher itself.
        title: name of the method in tables.
        target: domain that is held out for testing.
        candidate: candidate values of settings, by dotted key; empty if there is only one candidate.
        weights: name of the weights: ``swad``, ``best``, ``last``, or ``wise-ft <share>``; empty for the teacher.
        saved: whether these are the saved weights of the run.
        validation: results on the validation images of each source domain.
        test: results on all images of the target domain or, with `crossed`, of that source domain.
        image_queries: image queries of a run with an empty store, including fresh views, without those of the
            zero-shot row.
        text_queries: text queries of a run with an empty store.
        cost: cost of these queries.
        seconds: wall time of the job.
        inherited: whether the candidate was selected with another seed and is the only one of this seed.
        crossed: source domain that was also held out, for leave-one-domain-out cross-validation.
    """

    method: str
    title: str
    target: str
    seed: int
    weights: str
    saved: bool
    validation: Mapping[str, DomainResult]
    test: DomainResult
    image_queries: int
    text_queries: int
    cost: Decimal
    currency: str
    seconds: float
    candidate: Mapping[str, Any] = field(default_factory=dict)
    inherited: bool = False
    crossed: str | None = None

    @property
    def kept(self) -> bool:
        """The name of `saved` until 0.1, which the next release removes."""
        warnings.warn("Record.kept is now Record.saved", DeprecationWarning, stacklevel=2)
        return self.saved

    @property
    def validation_accuracy(self) -> float:
        """Mean over source domains, the criterion of training-domain validation."""
        return fmean(result.accuracy for result in self.validation.values())


JOBS = "jobs"


def job_file(out: Path, job: Job) -> Path:
    """Return the path of the file that describes a finished job."""
    return out / JOBS / job.name / "job.json"


def is_finished(out: Path, job: Job) -> bool:
    """Whether a job is finished."""
    return job_file(out, job).is_file()


AGAIN = "delete the folder of this job and run the benchmark again; only this job is repeated"


def job_seconds(file: Path) -> float:
    """Return the wall time of a finished job in seconds, from its `job.json`.

    Raises:
        RunError: if the file does not contain it.
    """
    with reading(file, AGAIN):
        return float(read_job(file)["seconds"])


def records_of(file: Path) -> list[Record]:
    """Return the records of one job: one for each set of weights that it evaluated, and one for the zero-shot teacher.

    Raises:
        DamagedError, RunError: if the files of the job are damaged.
    """
    with reading(file.parent, AGAIN):
        return _records(file.parent, read_job(file))


def _records(folder: Path, facts: dict[str, Any]) -> list[Record]:
    content = read_evaluation(RunFolder(folder).evaluation_file, RunFolder(folder).origin())
    evaluation, settings = Evaluation.from_dict(content), RunFolder(folder).config().distill
    weights_name = settings.weights if settings.wise_ft == 1 else wise_ft_name(settings.wise_ft)
    usage = {**content["asked"]}
    usage["image_queries"] += content.get("fresh_queries", 0)  # not in the ledger, but a vendor would charge for them
    pairs = [(facts["target"], facts["crossed"])]
    if facts["crossed"] is not None:  # either of the two may be the target
        pairs.append((facts["crossed"], facts["target"]))
    records = []
    for target, crossed in pairs:
        job_facts = {**facts, "target": target, "crossed": crossed}
        records += [
            _record(job_facts, usage, evaluation, weights_name, True),
            *(_record(job_facts, usage, part, name, False) for name, part in evaluation.alternatives.items()),
        ]
    if facts["crossed"] is None and all(row.zero_shot is not None for row in evaluation.rows):
        record = _record(facts | {"candidate": {}, "seconds": 0.0}, usage, evaluation, "", True, "zero_shot")
        record = replace(record, method=ZERO_SHOT, title="zero-shot teacher")
        records.append(replace(record, image_queries=0, text_queries=0, cost=Decimal(0)))
    return records


def _record(
    facts: Mapping[str, Any],
    usage: Mapping[str, Any],
    evaluation: Evaluation,
    weights: str,
    saved: bool,
    column: str = "student",
) -> Record:
    results = {row.domain: _result(row, column) for row in evaluation.rows}
    return Record(
        **{key: facts[key] for key in ("method", "title", "target", "seed", "seconds", "candidate", "crossed")},
        weights=weights,
        saved=saved,
        validation={row.domain: results[row.domain] for row in evaluation.rows if row.role == IN_DOMAIN},
        test=results[facts["crossed"] or facts["target"]],
        image_queries=usage["image_queries"],
        text_queries=usage["text_queries"],
        cost=Decimal(usage["cost"]),
        currency=usage["currency"],
    )


def _result(row: DomainScore, column: str) -> DomainResult:
    calibrated = getattr(row, f"{column}_ece_calibrated", None)  # the teacher has no temperature
    return DomainResult(getattr(row, column), getattr(row, f"{column}_ece"), row.images, calibrated)


def once(records: Iterable[Record]) -> Iterator[Record]:
    """Remove duplicates: every job has a record of the teacher, which depends on target and seed alone."""
    keys = set()
    for record in records:
        key = (record.target, record.seed)
        if record.method != ZERO_SHOT or key not in keys:
            yield record
        if record.method == ZERO_SHOT:
            keys.add(key)


def nothing_finished(out: Sequence[Path]) -> RunError:
    """Return the error of benchmarks without a finished job, which says how many jobs were begun."""
    begun = [folder for base in out if (base / JOBS).is_dir() for folder in (base / JOBS).iterdir() if folder.is_dir()]
    names = ", ".join(shown(folder.name) for folder in sorted(begun)[:3])
    return RunError(
        f"There are no results in {', '.join(map(shown, out))}.",
        expected="finished jobs, with job.json",
        found=f"{len(begun):,} unfinished jobs, such as {names}" if begun else "no job",
        next_step="continue the grid: repeat its vl2v benchmark run; jobs continue where they were stopped",
    )
