"""Label images with a teacher's zero-shot predictions, as a table that a run accepts as data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v.cluster.connection import ClusterUse
from vl2v.cluster.pool import cluster_workers, ensure_named
from vl2v.commands.label_table import ensure_trainable, warn_of_faults, write_labels
from vl2v.config import DataConfig, RunConfig
from vl2v.data.caches import open_index
from vl2v.data.images import ImageDataset, spelling
from vl2v.errors import ConfigError, DataError
from vl2v.faults import explaining
from vl2v.locations import StoragePaths
from vl2v.nested import merge
from vl2v.planning.models import ensure_known, open_configured_teacher
from vl2v.planning.prepare import list_folder, read_datasets
from vl2v.planning.requirements import Requirements, make_quote
from vl2v.progress import Progress, Silent
from vl2v.purchase import text_heads, zero_shot_logits
from vl2v.settings import make_config
from vl2v.sources.named import with_sources
from vl2v.teacher.base import Teacher
from vl2v.teacher.file import FileTeacher
from vl2v.teacher.prompts import load_templates, render
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.image_set import ImageSet
from vl2v.teacher.purchase.ledger import Budget, Ledger, parse_budget
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.trust.calibration import fit_temperature
from vl2v.writing import ensure_writable
from vl2v_runtime.trust import probabilities

LABELLING, CHECKING = "labels", "labels, checked images"  # purposes of the queries in the ledger
ERROR = 0.05  # default of `error`
SIZE = 0  # image size of the pixel cache, which is not used


@dataclass(frozen=True)
class Labels:
    """Labels of N images.

    Attributes:
        predictions: [N] int64, index of the most probable class.
        confidence: [N] float64 in [0, 1], probability of that class; calibrated if images were checked.
        trusted: [N] bool, whether the prediction set contains only this class; None without checked images.
        written: number of rows of the table.
        checked: number of labelled images on which the confidence and the trust flag are based.
        accuracy: accuracy of the teacher on the checked images, in [0, 1]; None without any.
        error: maximum share of prediction sets without the right class, in (0, 1).
        queries: number of image and of text queries that were paid for.
    """

    file: Path
    classes: tuple[str, ...]
    predictions: NDArray[np.int64]
    confidence: NDArray[np.float64]
    trusted: NDArray[np.bool_] | None
    written: int
    checked: int
    accuracy: float | None
    error: float
    queries: tuple[int, int]
    spent: Decimal
    currency: str


@explaining
def label(
    data: str | Path,
    teacher: str | Teacher,
    classes: Sequence[str] | str,
    out: str | Path,
    *,
    check: str | Path | None = None,
    error: float | None = None,
    trusted_only: bool = False,
    budget: Decimal | str | float | None = None,
    storage: StoragePaths | None = None,
    progress: Progress | None = None,
    settings: dict[str, Any] | None = None,
    cluster: ClusterUse | None = None,
) -> Labels:
    """Label the images of a folder with the classes that a teacher predicts, as a CSV file for `distill`.

    The embeddings are stored, so a later run on the same images does not pay for them again. With `check`, the trust
    flag is determined by split conformal prediction (Vovk et al., 2005). The prediction set of an image contains the
    most probable class and all classes that cannot be ruled out. For images of the same kind as those of `check`, it
    contains the right class with a probability of at least 1 - `error`. An image is trusted if its set contains one
    class.

    Args:
        data: images without labels: a folder of any depth, a table, or a dataset of another tool.
        teacher: name of the teacher, or an open one.
        classes: names of at least two classes; as one text, with commas between them or the path of a text file with
            one name per line.
        out: path of the table, a new `.csv` file.
        check: labelled images of the same kind, which are queried as well; as for `distill`.
        error: maximum share of images of the same kind whose prediction set lacks the right class, in (0, 1); None is
            0.05. Needs `check`.
        trusted_only: whether other images are omitted from the table; needs `check`.
        budget: maximum amount to spend; required if the teacher charges.
        progress: receives the progress of scan and queries.
        settings: nested settings of a run, e.g. `teacher.prompts`.
        cluster: a Ray cluster whose workers read the images and query a free teacher on their machine, given by name.

    Raises:
        ConfigError: if arguments contradict each other, `out` exists or does not end in `.csv`, or `distill` would not
            accept the names of the classes.
        DataError: if images are unreadable, or `check` has too few images or an unknown class.
        BudgetError: before anything is sent that would exceed the budget.
    """
    storage, progress, table = storage or StoragePaths(), progress or Silent(), Path(out)
    ensure_named(cluster, None if isinstance(teacher, str) else teacher)
    _ensure_valid(table, check, error, trusted_only, (settings or {}).get("data") or {})
    error = ERROR if error is None else error
    ensure_writable(table)
    limit = parse_budget(budget)
    spec, base = teacher if isinstance(teacher, str) else teacher.describe().identity, settings or {}
    ensure_known(None, base | {"teacher": {"spec": spec}}, teacher=isinstance(teacher, str))
    names = classes if isinstance(classes, str) else list(classes)
    columns = {**(base.get("data") or {})}
    columns.pop("label", None)  # `data` has no labels
    data_values = {"root": str(data), "classes": names}
    config = _config(base | {"data": columns}, spec, data_values, storage, progress)
    if not config.data.layout_as_found:
        ensure_trainable(config.data.classes, table)
    teacher_instance = open_configured_teacher(config) if isinstance(teacher, str) else teacher
    check_data = None if check is None else _config(base, spec, {"root": str(check)}, storage, progress).data
    with cluster_workers(cluster, progress), closing(EmbeddingStore(storage.store)) as store:
        parts, truth = _read_parts(config.data, check_data, error, storage, progress)
        ledger, name = Ledger(store), str(table.resolve())
        before = ledger.queries(name), ledger.queries(name, "text"), ledger.spent(name)
        logits = _buy(parts, config, teacher_instance, store, limit, name, progress)
        queries = ledger.queries(name) - before[0], ledger.queries(name, "text") - before[1]
        spent = ledger.spent(name) - before[2]
    accuracy = float((logits[1].argmax(axis=1) == truth).mean()) if len(parts) > 1 else None
    result = Labels(
        table, parts[0].names, *_decide(logits, truth, error), written=0, checked=len(truth), accuracy=accuracy,
        error=error, queries=queries, spent=spent, currency=teacher_instance.describe().price.currency,
    )  # fmt: skip
    labels = [result.classes[i] for i in result.predictions]
    row_count = write_labels(table, parts[0], labels, result.confidence, result.trusted, trusted_only, progress)
    warn_of_faults(table, len(parts[0].domains) > 1, config.data.layout_as_found, progress)
    return replace(result, written=row_count)


def least_images(error: float) -> int:
    """Return the minimum number of checked images with which a prediction set can lack a class."""
    return math.ceil(1 / error - 1e-9) - 1


def _ensure_valid(
    table: Path, check: str | Path | None, error: float | None, trusted_only: bool, data: Mapping[str, Any]
) -> None:
    if table.suffix.lower() != ".csv":
        expected, step = "a name that ends in .csv", "correct --out"
        raise ConfigError("The table needs another name.", expected=expected, found=str(table), next_step=step)
    if table.exists():
        step = "pass another --out, or delete the file"
        raise ConfigError("The table exists already.", expected="a new file", found=str(table), next_step=step)
    needless = [flag for flag, value in (("--error", error), ("--label", data.get("label"))) if value is not None]
    if needless and check is None:
        raise ConfigError(
            f"{' and '.join(needless)} would have no effect.",
            expected="labelled images (--check), which --error and the column --label are for",
            found="no --check",
            next_step="pass --check FOLDER, or drop the option",
        )
    if error is not None and not 0 < error < 1:
        expected, step = "a number between 0 and 1", "correct --error"
        raise ConfigError("error is out of range.", expected=expected, found=f"{error:g}", next_step=step)
    if trusted_only and check is None:
        raise ConfigError(
            "Without labelled images, no label can be trusted.",
            expected="some labelled images of the same kind (--check)",
            found="--trusted-only without --check",
            next_step="pass --check FOLDER, or drop --trusted-only",
        )


def _config(
    base: dict[str, Any], teacher: str, data: dict[str, Any], storage: StoragePaths, progress: Progress
) -> RunConfig:
    values = merge(base, {"teacher": {"spec": teacher}, "student": {}, "data": data})
    return make_config(None, with_sources(values, storage, progress))


def _read_parts(
    data: DataConfig, check_data: DataConfig | None, error: float, storage: StoragePaths, progress: Progress
) -> tuple[list[ImageDataset], NDArray[np.int64]]:
    """Read the images to label, and the checked images with their class indices, [M]."""
    with open_index(storage.cache) as index:
        sources = (data,) if check_data is None else (data, check_data)
        parts = [read_datasets(list_folder(source), source, index, None, progress)[0] for source in sources]
    return parts, np.zeros(0, np.int64) if check_data is None else _labels_of(parts[1], parts[0].names, error)


def _labels_of(dataset: ImageDataset, names: Sequence[str], error: float) -> NDArray[np.int64]:
    """Return the class of each of the M checked images as an index in `names`, [M]."""
    index_of = {spelling(name): i for i, name in enumerate(names)}
    if unknown := [name for name in dataset.names if spelling(name) not in index_of]:
        raise DataError(
            "An image in --check has an unknown class.",
            expected=f"classes among {', '.join(names)}",
            found=", ".join(unknown),
            next_step="rename the class in --check, or add it to --classes",
        )
    if len(dataset) < (least := least_images(error)):
        raise DataError(
            "There are too few images in --check.",
            expected=f"at least {least} labelled images for an error of {error:g}",
            found=str(len(dataset)),
            next_step="label more images, or raise --error",
        )
    return np.array([index_of[spelling(name)] for name in dataset.names], np.int64)[dataset.labels]


def _buy(
    parts: Sequence[ImageDataset],
    config: RunConfig,
    teacher: Teacher,
    store: EmbeddingStore,
    limit: Decimal | None,
    name: str,
    progress: Progress,
) -> list[NDArray[np.float32]]:
    """Buy what the store lacks, and return the teacher's logits of each part, [N, K]."""
    card, templates = teacher.describe(), load_templates(config.teacher.prompts)
    prompts = tuple(render(template, phrase) for phrase in parts[0].phrases for template in templates)
    purposes = {(purpose, 0): part.digests for purpose, part in zip((LABELLING, CHECKING), parts, strict=False)}
    if isinstance(teacher, FileTeacher):
        for part in parts:
            teacher.bind(part.paths, part.digests)
    quote = make_quote(Requirements(purposes, prompts, len(templates)), teacher, store, 0, SIZE, None)
    budget = Budget(limit, currency=card.price.currency, less="fewer images")
    budget.check(quote.due, quote.summary)
    buyer = Buyer(teacher, store, budget, name, progress, threads=config.threads, spec=config.teacher.spec)
    buyer.texts(prompts, LABELLING)
    buyer.all_images([ImageSet.of(p.digests, p.file, purpose) for (purpose, _), p in zip(purposes, parts, strict=True)])
    head = text_heads(store.texts(card, prompts), len(templates))
    return [zero_shot_logits(store.images(card, part.digests), head, card.logit_scale) for part in parts]


def _decide(
    logits: Sequence[NDArray[np.float32]], truth: NDArray[np.int64], error: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_] | None]:
    """Return predictions, confidence and trust flag of images, [N] each; no flags without checked images.

    Args:
        logits: logits [N, K] of the images, and [M, K] of the checked images if there are any.
        truth: [M] class indices of the checked images.
        error: maximum share of prediction sets without the right class.
    """
    predictions = logits[0].argmax(axis=1).astype(np.int64)
    if len(logits) == 1:
        return predictions, probabilities(logits[0]).max(axis=1), None
    temperature = fit_temperature(logits[1], truth)
    confidence = probabilities(logits[0] / temperature).max(axis=1)
    # The probabilities are not calibrated, so that the order of the scores does not depend on the same labels.
    scores = np.sort(probabilities(logits[1])[np.arange(len(truth)), truth])
    lowest = scores[max(0, math.floor(error * (len(scores) + 1) + 1e-9) - 1)]
    return predictions, confidence, np.sort(probabilities(logits[0]), axis=1)[:, -2] < lowest
