"""Repair a deployed student: query a few images of the place where it is used, and train a new student with them."""

from __future__ import annotations

import csv
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v.commands.distill import run as train_run
from vl2v.config import RunConfig
from vl2v.data.images import ImageDataset
from vl2v.data.pixels import CachedPixels, PixelCache
from vl2v.data.scan import FileIndex
from vl2v.data.splits import Indices
from vl2v.errors import ConfigError, DataError, RunError
from vl2v.evaluation.evaluation import IN_DOMAIN, Evaluation, Row, student_answers
from vl2v.evaluation.features import pass_through
from vl2v.faults import explaining
from vl2v.json_files import read_json, write_json
from vl2v.locations import StoragePaths
from vl2v.method.registry import METHODS
from vl2v.nested import merge
from vl2v.planning.models import open_configured_teacher
from vl2v.planning.prepare import read_unlabelled
from vl2v.planning.requirements import Requirements, make_quote
from vl2v.progress import Progress, Silent
from vl2v.purchase import BudgetAccount, text_heads
from vl2v.runs.folder import CHECKED, REPAIR, TRAINED, RunFolder
from vl2v.runs.starting import ensure_finished, ensure_new, ensure_same_model, ledger_name
from vl2v.runs.storage import storage_of
from vl2v.settings import make_config
from vl2v.student.files import CHANGES
from vl2v.student.model import Student
from vl2v.teacher.base import Price, Teacher
from vl2v.teacher.file import FileTeacher
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.ledger import Budget, Ledger, Quote
from vl2v.teacher.purchase.spending import Spending
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.teacher.zero_shot import zero_shot_logits
from vl2v.writing import replacing
from vl2v_runtime.names import shown

PURPOSE = "repair"  # of the queries in the ledger
QUERIES = 50  # images queried by default
FEWEST = 5  # images to query at least: a table of images needs two, so three are trained on and two checked
CHECKS = 5  # one of so many queried images is not trained on
MOST = 10_000  # images among which to choose; of more, a random sample
TOLERANCE = 0.005  # loss of mean accuracy on the validation images from which the new student counts as worse
# Chosen on source domains of PACS that play the new place; see docs/results/repair.md.
STEPS, SHARE, NEW = 60, 0.25, 16  # steps, share of the trained weights, new images in a batch
TRAINING: dict[str, Any] = {
    "steps": STEPS, "minutes": 0, "warmup_steps": 10, "checkpoint_every": 20, "weights": "last", "wise_ft": SHARE,
}  # fmt: skip


@dataclass(frozen=True)
class RepairPlan:
    """What a repair would query and train. Nothing has been spent or written.

    Attributes:
        first: folder of the run to repair.
        images: the images of the new place, as given.
        out: folder of the new run.
        config: settings of the new run.
        storage: paths of cache and store.
        teacher: opened.
        student: the one to repair.
        trained: images to query and to train on.
        checked: images to query and to compare the students on.
        quote: what the store lacks of them, and its cost.
        begun: whether the folder has an unfinished repair that this one continues.
    """

    first: Path
    images: Path
    out: Path
    config: RunConfig
    storage: StoragePaths
    teacher: Teacher
    student: Student
    trained: ImageDataset
    checked: ImageDataset
    quote: Quote
    begun: bool

    @property
    def prompts(self) -> tuple[str, ...]:
        """The texts of the teacher's zero-shot predictions, K * T, class by class."""
        return tuple(self.student.provenance["prompts"])


@dataclass(frozen=True)
class Repair:
    """A repaired student next to the earlier one, which is unchanged.

    Attributes:
        folder: the new run.
        student: its student.
        old: evaluation of the earlier student.
        new: evaluation of the new one on the same images.
        trained: number of new images that were trained on.
        checked: number of new images that were queried and not trained on.
        agreement: on how many of them the earlier student and the new one agree with the teacher.
        queries: image queries that were paid for.
        spent: cost of all queries.
        currency: of the cost.
        tolerance: loss of accuracy on the validation images from which the new student counts as worse.
    """

    folder: Path
    student: Student
    old: Evaluation
    new: Evaluation
    trained: int
    checked: int
    agreement: tuple[int, int]
    queries: int
    spent: Decimal
    currency: str
    tolerance: float

    @property
    def change(self) -> float:
        """The new student's mean accuracy on the validation images minus the earlier student's, in [-1, 1]."""
        old, new = (evaluation.mean(IN_DOMAIN, "student") for evaluation in (self.old, self.new))
        assert old is not None
        assert new is not None
        return new - old

    @property
    def worse(self) -> bool:
        """Whether the new student loses more than the tolerance on the validation images."""
        return self.change < -self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = zip(_validation(self.old), _validation(self.new), strict=True)
        return {
            "run": str(self.folder),
            "student": str(self.folder / "student"),
            "trained": self.trained,
            "checked": self.checked,
            "agreement": {"old": self.agreement[0], "new": self.agreement[1]},
            "validation": {
                "domains": {old.domain: {"old": old.student, "new": new.student} for old, new in rows},
                "change": self.change,
                "tolerance": self.tolerance,
                "worse": self.worse,
            },
            "measure": self.new.reference.measure,
            "image_queries": self.queries,
            "spent": f"{self.spent:f}",
            "currency": self.currency,
        }


@explaining
def plan_repair(
    run: str | Path,
    images: str | Path,
    out: str | Path | None = None,
    *,
    queries: int = QUERIES,
    budget: Decimal | str | float | None = None,
    column: str | None = None,
    teacher: Teacher | None = None,
    storage: StoragePaths | None = None,
    progress: Progress | None = None,
    settings: dict[str, Any] | None = None,
) -> RepairPlan:
    """Select the images to query, and quote. Nothing is spent.

    A fifth of the queried images, drawn at random, is not trained on. The others are a diverse set on the features of
    the student (k-centre).

    Args:
        run: folder of a finished run.
        images: images of the place where its student is used, without labels: a folder of any depth, or a table.
        out: folder of the new run; None is the name of the first one with ``-repaired``.
        queries: the most images to query, at least 5. The budget may allow fewer.
        budget: the most to spend; required if the teacher charges.
        column: column of the paths if the images are a table; None recognises it by its name.
        teacher: an open one, instead of that of the run's settings.
        storage: paths of cache and store; None uses those of the run.
        progress: receives the progress of scan and features.
        settings: nested settings of the new run, which replace those of a repair and of the first run.

    Raises:
        RunError: if the run is not finished, or `out` has something else.
        ConfigError: if the run's student cannot be repaired, or the number of queries is too small.
        DataError: if there are fewer than 5 different images.
        StudentError: if the student cannot be loaded.
    """
    first, place = Path(run), Path(images)
    target = Path(out) if out is not None else first.resolve().with_name(f"{first.resolve().name}-repaired")
    folder, progress = RunFolder(first), progress or Silent()
    before = folder.config()
    ensure_finished(folder)
    _ensure_repairable(before, first)
    if queries < FEWEST:
        step = "raise --queries"
        raise ConfigError("That is too few queries.", expected=f"at least {FEWEST}", found=str(queries), next_step=step)
    limit = None if budget is None else Decimal(str(budget))
    begun = _is_begun(target, first, place)
    if not begun:
        ensure_new(RunFolder(target), before.data.root)
        ensure_new(RunFolder(target), place)
    paths, student = storage or storage_of(first), Student.load(first)
    _ensure_same_classes(student, first)
    config = _settings(before, first, target, limit, settings or {})
    opened = teacher or open_configured_teacher(before)
    ensure_same_model(folder, opened, record=False)
    fit = student.preprocess.size, student.preprocess.fit
    with (
        closing(FileIndex(paths.cache / "files.sqlite")) as index,
        closing(PixelCache(paths.cache, *fit)) as cache,
        closing(EmbeddingStore(paths.store)) as store,
    ):
        if begun:
            tables = target / TRAINED, target / CHECKED
            trained, checked = (read_unlabelled(t, student.classes, index, cache, progress) for t in tables)
        else:
            found = read_unlabelled(place, student.classes, index, cache, progress, column)
            count = _affordable(queries, limit, opened.describe().price)
            trained, checked = _select(student, found, cache, count, before.seed, progress)
        _bind(opened, before, place, trained, checked)
        digests = np.concatenate([trained.digests, checked.digests])
        prompts = tuple(student.provenance["prompts"])
        required = Requirements({(PURPOSE, 0): digests}, prompts, len(prompts) // len(student.classes))
        quote = make_quote(required, opened, store, len(digests), fit[0], None)
    return RepairPlan(first, place, target, config, paths, opened, student, trained, checked, quote, begun)


@explaining
def repair(
    plan: RepairPlan, *, tolerance: float = TOLERANCE, progress: Progress | None = None, report: bool = True
) -> Repair:
    """Query the images of a plan, train a new student from the earlier one, and compare the two.

    The new run is like the first one with three differences. Training starts from the first run's student. The selected
    images are part of every batch, without labels. Align is solved in closed form on the features of that student, and
    Distill takes few steps. The first run is not changed. If it is interrupted, plan and call it again.

    Args:
        plan: see `plan_repair`.
        tolerance: loss of mean accuracy on the validation images from which the new student counts as worse, in [0, 1].
        progress: receives the progress of every stage.
        report: whether to write ``report.html`` of the new run.

    Raises:
        BudgetError: before anything is sent that would exceed the budget.
        TeacherError: if a response cannot be used.
        TrainingError: if a loss is not finite.
    """
    progress, folder = progress or Silent(), RunFolder(plan.out)
    account = BudgetAccount.of_run(ledger_name(folder))
    with closing(EmbeddingStore(plan.storage.store)) as store:
        spending = Spending(account.folder, store, account.mine)
        currency = plan.quote.price.currency
        budget = Budget(plan.config.budget, currency=currency, less="fewer images (--queries)", spending=spending)
        budget.check(
            plan.quote.cost, f"{plan.quote.image_queries:,} image and {plan.quote.text_queries:,} text queries"
        )
        if not plan.begun:
            _write_selection(plan)
        buyer = Buyer(plan.teacher, store, budget, ledger_name(folder), progress, threads=plan.config.threads)
        buyer.texts(plan.prompts)
        for part in (plan.checked, plan.trained):
            buyer.images(part.digests, part.read, PURPOSE)
        reference = _zero_shot(plan, store)
    if not folder.evaluation_file.exists():
        resume = folder.config_file.exists()
        config = folder.config().model_copy(update={"budget": plan.config.budget}) if resume else plan.config
        train_run(
            config, plan.out, resume=resume, storage=plan.storage, progress=progress, teacher=plan.teacher,
            report=report,
        )  # fmt: skip
    return _compared(plan, folder, reference, tolerance)


def k_centre(features: NDArray[np.floating], count: int, seed: int = 0) -> Indices:
    """Choose rows that cover all others (Gonzalez, 1985): each is the one least similar to those chosen before it.

    Args:
        features: [N, F]. Similarity is the cosine of the centred rows.
        count: rows to choose, at most N.
        seed: of the first row.

    Returns:
        Row numbers in the order of choice, [count].
    """
    x = np.asarray(features, np.float32)
    x = x - x.mean(axis=0)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    near, chosen = np.full(len(x), -np.inf, np.float32), []
    row = int(np.random.default_rng(seed).integers(len(x)))
    for _ in range(count):
        chosen.append(row)
        near = np.maximum(near, x @ x[row])
        near[row] = np.inf
        row = int(near.argmin())
    return np.array(chosen, np.int64)


def _ensure_repairable(config: RunConfig, run: Path) -> None:
    """Refuse runs whose method cannot use images without labels."""
    if METHODS[config.method].needs_labels or not METHODS[config.method].queries_teacher:
        able = ", ".join(name for name, method in METHODS.items() if not method.needs_labels and method.queries_teacher)
        raise ConfigError(
            f"The student of {shown(run)} cannot be repaired: its method learns from labels alone.",
            expected=f"a run with one of the methods {able}",
            found=config.method,
            next_step="train with --recipe ood",
        )


def _ensure_same_classes(student: Student, run: Path) -> None:
    """Refuse a student whose classes are no longer those of its run, since the new run would not have them."""
    changes = student.provenance.get(CHANGES) or []
    if changes and changes[0]["before"] != student.classes:
        raise ConfigError(
            f"The classes of the student of {shown(run)} were changed after training.",
            expected=f"the classes of the run: {', '.join(map(shown, changes[0]['before']))}",
            found=", ".join(map(shown, student.classes)),
            next_step="repair a copy of the run from before the change, and change the classes of the new run",
        )


def _is_begun(out: Path, run: Path, images: Path) -> bool:
    """Whether a folder has a repair of this run with these images, to be continued.

    Raises:
        RunError: if it is a repair of another run or with other images.
    """
    if not (out / REPAIR).is_file():
        return False
    said, wanted = read_json(out / REPAIR), {"first_run": str(run.resolve()), "images": str(images.resolve())}
    if differing := [key for key in wanted if said.get(key) != wanted[key]]:
        raise RunError(
            f"{shown(out)} has another repair.",
            expected=", ".join(shown(str(said.get(key))) for key in differing),
            found=", ".join(shown(wanted[key]) for key in differing),
            next_step="choose another folder: --out FOLDER",
        )
    return all((out / name).is_file() for name in (TRAINED, CHECKED))


def _settings(before: RunConfig, run: Path, out: Path, budget: Decimal | None, settings: dict[str, Any]) -> RunConfig:
    """The settings of the new run: those of the first one, few steps, and the new images."""
    method, values = METHODS[before.method], before.model_dump(mode="json")
    if method.has_settings:  # what was left to the data depends on the data again
        without = method.defaults(True)
        defaults = method.defaults(bool(before.data.classes or before.data.unlabelled or before.data.rest_unlabelled))
        own = values[method.name]
        values[method.name] = own | {key: without[key] for key, value in defaults.items() if own[key] == value}
    values["budget"], values["distill"]["passes"], values["measure"] = None, None, {}
    solved = method.free_image_weight and before.student.spec != "teacher"
    changes: dict[str, Any] = {
        "align": {"solver": "ridge", "average": "none"} if solved else {},
        "distill": TRAINING,
        "repair": {"run": str(run.resolve()), "images": str((out / TRAINED).resolve()), "per_batch": NEW},
        "budget": budget,
    }
    return make_config(None, merge(merge(values, changes), settings))


def _affordable(queries: int, limit: Decimal | None, price: Price) -> int:
    """How many images the budget allows, at least the fewest; the check of the budget refuses those."""
    if limit is None or not price.per_1000_images:
        return queries
    return max(FEWEST, min(queries, int(1000 * limit / price.per_1000_images)))


def _select(
    student: Student, found: ImageDataset, cache: PixelCache, count: int, seed: int, progress: Progress
) -> tuple[ImageDataset, ImageDataset]:
    """Choose the images to train on, a diverse set, and those to check, a random one."""
    generator = np.random.default_rng(seed)
    rows = np.sort(np.unique(found.digests, axis=0, return_index=True)[1])
    if len(rows) < FEWEST:
        raise DataError(
            "There are too few images.",
            expected=f"at least {FEWEST} different ones",
            found=str(len(rows)),
            next_step="add images of the place where the student is used",
        )
    rows = generator.permutation(rows)[:MOST]
    count = min(count, len(rows))
    checked, rest = np.split(rows, [max(2, count // CHECKS)])
    slots = cache.slots(found.digests[rest])
    with progress.stage("features of the new images", len(rest), 0) as advance:
        features = []
        for part in pass_through(student.backbone, student.preprocess, cache.map(), slots, student.device):
            features.append(part.cpu().numpy())
            advance(len(part))
    chosen = rest[k_centre(np.concatenate(features), count - len(checked), seed)]
    return found.take(chosen), found.take(checked)


def _bind(teacher: Teacher, config: RunConfig, images: Path, *parts: ImageDataset) -> None:
    """Tell a teacher in a file the paths of the images, relative to the run's data or else to their own folder."""
    if not isinstance(teacher, FileTeacher):
        return
    data, own = config.data.folder.resolve(), images if images.is_dir() else images.parent
    for part in parts:
        paths = [(part.root / path).absolute() for path in part.paths]
        roots = [data if path.is_relative_to(data) else own.resolve() for path in paths]
        relative = [p.relative_to(r) if p.is_relative_to(r) else p for p, r in zip(paths, roots, strict=True)]
        teacher.bind([path.as_posix() for path in relative], part.digests)


def _write_selection(plan: RepairPlan) -> None:
    """Record what is queried, so that an interrupted repair continues with the same images."""
    plan.out.mkdir(parents=True, exist_ok=True)
    for name, part in ((TRAINED, plan.trained), (CHECKED, plan.checked)):
        with replacing(plan.out / name) as fresh, fresh.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["image"], *([str((part.root / path).absolute())] for path in part.paths)])
    write_json(plan.out / REPAIR, {"first_run": str(plan.first.resolve()), "images": str(plan.images.resolve())})


def _zero_shot(plan: RepairPlan, store: EmbeddingStore) -> Indices:
    """The classes that the teacher predicts for the checked images, [M]."""
    card, classes = plan.teacher.describe(), len(plan.student.classes)
    head = text_heads(store.texts(card, plan.prompts), len(plan.prompts) // classes)
    logits = zero_shot_logits(store.images(card, plan.checked.digests), head, card.logit_scale)
    return np.asarray(logits.argmax(axis=1), np.int64)


def _validation(evaluation: Evaluation) -> list[Row]:
    return [row for row in evaluation.rows if row.role == IN_DOMAIN]


def _compared(plan: RepairPlan, folder: RunFolder, reference: Indices, tolerance: float) -> Repair:
    """Compare the students on the validation images and on the checked images, and record the result."""
    old, new = (Evaluation.from_dict(read_json(RunFolder(f).evaluation_file)) for f in (plan.first, plan.out))
    student, fit = Student.load(plan.out), plan.student.preprocess
    pixels = CachedPixels(plan.storage.cache, fit.size, fit.fit)
    slots = pixels.slots(plan.checked.digests)
    predictions = [student_answers(s, pixels.map(), slots)[0].argmax(axis=1) for s in (plan.student, student)]
    agreement = tuple(int((found == reference).sum()) for found in predictions)
    with closing(EmbeddingStore(plan.storage.store)) as store:
        ledger, name = Ledger(store), ledger_name(folder)
        queries, spent = ledger.queries(name), ledger.spent(name)
    found = Repair(
        plan.out, student, old, new, len(plan.trained), len(plan.checked), (agreement[0], agreement[1]), queries, spent,
        plan.quote.price.currency, tolerance,
    )  # fmt: skip
    write_json(plan.out / REPAIR, read_json(plan.out / REPAIR) | {"result": found.to_dict()})
    return found
