"""Plan a repair: select images of the new site, quote their queries, and derive the settings of the new run."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from vl2v.analysis.selection import k_centre
from vl2v.commands import repair_checks
from vl2v.commands.choosing import with_recorded_choice
from vl2v.commands.moved import StatedLocations, locate_images
from vl2v.commands.new_site import ensure_new_images, follow_images
from vl2v.config import RunConfig
from vl2v.data.caches import open_caches
from vl2v.data.images import ImageDataset
from vl2v.data.pixels import Digests, PixelCache
from vl2v.data.tables.columns import IMAGE_ONLY
from vl2v.digests import distinct
from vl2v.errors import ConfigError, DataError
from vl2v.evaluation.evaluation import Evaluation
from vl2v.evaluation.features import pass_through
from vl2v.faults import explaining
from vl2v.locations import StoragePaths
from vl2v.method.registry import METHODS
from vl2v.nested import merge
from vl2v.planning.models import open_configured_teacher
from vl2v.planning.plan import plan_run
from vl2v.planning.prepare import known_columns, read_unlabelled
from vl2v.planning.requirements import make_quote
from vl2v.progress import Progress, Silent
from vl2v.runs.folder import CHECKED, TRAINED, RunFolder
from vl2v.runs.start_checks import ensure_finished, ensure_new, ensure_same_model, ensure_teacher_allowed
from vl2v.runs.storage import storage_of
from vl2v.settings import make_config
from vl2v.sources.named import imported
from vl2v.student.model import Student
from vl2v.teacher.base import Price, Teacher
from vl2v.teacher.file import FileTeacher
from vl2v.teacher.purchase.ledger import Quote, parse_budget
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v_runtime.names import quoted

PURPOSE = "repair"  # purpose of the queries in the ledger
QUERIES = 50  # default number of image queries
FEWEST = 5  # minimum number of image queries: three for training, and two for checking, since a table needs two
CHECKS = 5  # one of this many queried images is not used for training
MOST = 10_000  # images to select from; of more, a random sample is used
# Chosen with source domains of PACS in the role of the new site; see docs/results/repair.md.
STEPS, SHARE, NEW = 60, 0.25, 16  # steps, share of the trained weights, new images per batch
TRAINING: dict[str, Any] = {
    "steps": STEPS, "minutes": 0, "warmup_steps": 10, "checkpoint_every": 20, "weights": "last", "wise_ft": SHARE,
    "refit": False,  # Align is solved on the features of the student already
}  # fmt: skip


@dataclass(frozen=True)
class RepairPlan:
    """What a repair will query and train. Nothing has been spent or written.

    Attributes:
        first: folder of the run to repair.
        images: the images of the new site, as given.
        student: the student to repair.
        evaluation: evaluation of this student.
        trained: images to query and to use for training.
        checked: images to query and to use for comparing the students.
        prompts: the K * T texts of the teacher's zero-shot predictions, class by class.
        quote: the queries that the store lacks for these images and for those of the first run, and their cost.
        begun: whether the folder has a repair that this one continues.
        record: the run, the images and the options of this repair, as its folder records them.
    """

    first: Path
    images: Path
    out: Path
    config: RunConfig
    storage: StoragePaths
    teacher: Teacher
    student: Student
    evaluation: Evaluation
    trained: ImageDataset
    checked: ImageDataset
    prompts: tuple[str, ...]
    quote: Quote
    begun: bool
    record: dict[str, Any]


@dataclass(frozen=True)
class _FirstRun:
    """The run to repair. Its attributes are those of `RepairPlan`."""

    path: Path
    config: RunConfig
    storage: StoragePaths
    student: Student
    evaluation: Evaluation

    @classmethod
    def load(cls, path: Path, storage: StoragePaths | None, data: StatedLocations, progress: Progress) -> _FirstRun:
        """Load the run, and check that its student can be repaired."""
        folder = RunFolder(path)
        folder.config()
        ensure_finished(folder)
        config = locate_images(folder, data, storage, progress)
        repair_checks.ensure_repairable(config, path)
        evaluation, student = repair_checks.compared_evaluation(folder), Student.load(path)
        repair_checks.ensure_same_classes(student, path)
        return cls(path, config, storage or storage_of(path), student, evaluation)


@explaining
def plan_repair(
    run: str | Path,
    images: str | Path,
    out: str | Path | None = None,
    *,
    queries: int = QUERIES,
    budget: Decimal | str | float | None = None,
    column: str | None = None,
    skip_bad: bool = False,
    teacher: Teacher | None = None,
    data: StatedLocations = None,
    storage: StoragePaths | None = None,
    progress: Progress | None = None,
    settings: dict[str, Any] | None = None,
) -> RepairPlan:
    """Select the images to query, and quote. Nothing is spent.

    A fifth of the queried images, drawn at random, is not used for training. The others are a diverse set on the
    features of the student (k-centre).

    Args:
        images: images of the new site, without labels: a folder of any depth, a table, or a dataset of another tool. If
            they have moved since a repair was begun, their new location.
        out: folder of the new run; None is the name of the first one with ``-repaired``.
        queries: maximum number of images to query, at least 5. The budget may allow fewer.
        budget: maximum amount to spend; required if the teacher charges.
        column: column of the paths if the images are a table; None takes that of the run, or else recognises it by its
            name.
        skip_bad: whether unreadable files among the new images are skipped.
        teacher: an open teacher that replaces the one in the settings.
        data: the images of the first run, if they have moved, or `NewLocations`; the runs record them.
        storage: paths of cache and store; None uses those of the run.
        progress: receives the progress of scan and features.
        settings: nested settings of the new run, which replace those of a repair and of the first run.

    Raises:
        RunError: if the run is not finished, its images have moved, or `out` is not empty or has a repair with other
            options.
        ConfigError: if the run's student cannot be repaired, the number of queries is too small, the budget is not an
            amount of money, or a setting would change what the students are compared on.
        DataError: if there are fewer than 5 different images.
        StudentError: if the student cannot be loaded.
    """
    progress, location = progress or Silent(), Path(images)
    target = Path(out) if out is not None else Path(run).resolve().with_name(f"{Path(run).resolve().name}-repaired")
    _check_queries(queries)
    limit = parse_budget(budget)
    first = _FirstRun.load(Path(run), storage, data, progress)
    record = {
        "first_run": str(first.path.resolve()),
        "images": str(location.resolve()),
        "queries": min(queries, MOST),
        "settings": json.loads(json.dumps(settings or {}, default=str)),
    }
    follow_images(target, record, first.storage, progress)
    begun = repair_checks.is_begun(target, record)
    if begun and RunFolder(target).config_file.is_file():
        locate_images(RunFolder(target), data, first.storage, progress)
    for source in () if begun else (first.config.data.root, location):
        ensure_new(RunFolder(target), source)
    config = _settings(first, target, limit, settings or {})
    if begun:
        step = f"repeat the command with their new location: vl2v repair {quoted(first.path)} PATH"
        ensure_new_images(config, target, step)
    repair_checks.ensure_comparable(config, first.config)
    if teacher is None:
        ensure_teacher_allowed(RunFolder(first.path), (settings or {}).get("teacher", {}).get("spec"))
    teacher_instance = teacher or open_configured_teacher(config)
    ensure_same_model(RunFolder(first.path), teacher_instance, record=False)
    classes, fit = first.student.classes, (first.student.preprocess.size, first.student.preprocess.fit)
    with open_caches(first.storage.cache, *fit) as (index, cache):
        if begun:
            tables = target / TRAINED, target / CHECKED
            trained, checked = (read_unlabelled(table, None, classes, index, cache, progress) for table in tables)
        else:
            listing = _listed(first, location, column, progress)
            new_images = read_unlabelled(*listing, classes, index, cache, progress, skip_bad=skip_bad)
            count = _affordable(queries, limit, teacher_instance.describe().price)
            trained, checked = _select(first, new_images, cache, count, progress)
    _bind(teacher_instance, first.config, location, trained, checked)
    prompts, quote = _quote(first, teacher_instance, np.concatenate([trained.digests, checked.digests]), progress)
    return RepairPlan(
        first.path, location, target, config, first.storage, teacher_instance, first.student, first.evaluation, trained,
        checked, prompts, quote, begun, record,
    )  # fmt: skip


def _listed(first: _FirstRun, images: Path, column: str | None, progress: Progress) -> tuple[Path, str | None]:
    """Return the folder or the table of the new images, and the column of their paths."""
    if column is None:
        column = known_columns(first.config.data.model_dump(mode="json"), str(images))["image"]
    return imported(images, {**IMAGE_ONLY, "image": column}, first.storage, progress) or images, column


def _check_queries(queries: int) -> None:
    if queries < FEWEST:
        step = "raise --queries"
        raise ConfigError("Too few queries.", expected=f"at least {FEWEST}", found=str(queries), next_step=step)


def _quote(first: _FirstRun, teacher: Teacher, digests: Digests, progress: Progress) -> tuple[tuple[str, ...], Quote]:
    """Return the prompts of the zero-shot predictions, and the quote of the new images with those of the first run."""
    config = first.config.model_copy(update={"repair": None})  # the images of an earlier repair are not used again
    plan = plan_run(config, first.storage, progress, teacher=teacher, with_student=False, layout_known=True)
    with closing(EmbeddingStore(first.storage.store)) as store:
        needed = with_recorded_choice(plan, RunFolder(first.path), store).requirements
        required = replace(needed, purposes={(PURPOSE, 0): digests} | needed.purposes)
        size = first.student.preprocess.size
        return needed.prompts, make_quote(required, teacher, store, len(digests), size, None)


def _settings(first: _FirstRun, out: Path, budget: Decimal | None, settings: dict[str, Any]) -> RunConfig:
    """Return the settings of the new run: those of the first one, with few steps and the new images."""
    before = first.config
    method, values = METHODS[before.method], before.model_dump(mode="json")
    if method.has_settings:  # defaults that depend on the data are chosen again
        without = method.defaults(True)
        defaults = method.defaults(bool(before.data.classes or before.data.unlabelled or before.data.rest_unlabelled))
        method_values = values[method.name]
        values[method.name] = method_values | {
            key: without[key] for key, value in defaults.items() if method_values[key] == value
        }
    values["budget"], values["distill"]["passes"], values["measure"] = None, None, {}
    solved = method.free_image_weight and before.student.spec != "teacher"
    changes: dict[str, Any] = {
        "align": {"solver": "ridge", "average": "none"} if solved else {},
        "distill": TRAINING,
        "repair": {"run": str(first.path.resolve()), "images": str((out / TRAINED).resolve()), "per_batch": NEW},
        "budget": budget,
    }
    return make_config(None, merge(merge(merge(values, changes), settings), {"budget": budget}))


def _affordable(queries: int, limit: Decimal | None, price: Price) -> int:
    """Return the number of images that the budget allows, at least `FEWEST`; the budget is checked later."""
    if limit is None or not price.per_1000_images:
        return queries
    return max(FEWEST, min(queries, int(1000 * limit / price.per_1000_images)))


def _select(
    first: _FirstRun, new_images: ImageDataset, cache: PixelCache, count: int, progress: Progress
) -> tuple[ImageDataset, ImageDataset]:
    """Select a diverse set of images to train on, and a random set to compare the students on."""
    student, seed = first.student, first.config.seed
    generator = np.random.default_rng(seed)
    rows = np.sort(distinct(new_images.digests))
    if len(rows) < FEWEST:
        raise DataError(
            "There are too few images.",
            expected=f"at least {FEWEST} different ones",
            found=str(len(rows)),
            next_step="add images of the place where the student is used",
        )
    rows = generator.permutation(rows)[:MOST]
    count = min(count, len(rows))
    checked, others = np.split(rows, [max(2, count // CHECKS)])
    slots = cache.slots(new_images.digests[others])
    with progress.stage("features of the new images", len(others), 0) as advance:
        features = []
        for part in pass_through(student.backbone, student.preprocess, cache.map(), slots, student.device):
            features.append(part.cpu().numpy())
            advance(len(part))
    selection = others[k_centre(np.concatenate(features), count - len(checked), seed=seed)]
    return new_images.take(selection), new_images.take(checked)


def _bind(teacher: Teacher, config: RunConfig, images: Path, *parts: ImageDataset) -> None:
    """Pass the paths of the images to a teacher in a file, relative to the run's data or else to their own folder."""
    if not isinstance(teacher, FileTeacher):
        return
    data, folder = config.data.folder.resolve(), images if images.is_dir() else images.parent
    for part in parts:
        paths = [(part.root / path).absolute() for path in part.paths]
        roots = [data if path.is_relative_to(data) else folder.resolve() for path in paths]
        relative = [p.relative_to(r) if p.is_relative_to(r) else p for p, r in zip(paths, roots, strict=True)]
        teacher.bind([path.as_posix() for path in relative], part.digests)
