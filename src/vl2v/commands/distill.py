"""A complete run, from images and a teacher to an evaluated student."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from accelerate import Accelerator

from vl2v.analysis.advice import Advice
from vl2v.analysis.teacher_value import advice_for, pilot_of, save_advice, saved_advice, show_advice
from vl2v.cluster.connection import ClusterUse
from vl2v.cluster.pool import cluster_workers, ensure_named
from vl2v.commands.choosing import with_choice, with_recorded_choice
from vl2v.commands.reporting import write_report
from vl2v.config import RunConfig
from vl2v.data.listing import Listing
from vl2v.evaluation import split
from vl2v.evaluation.copies import warn_of_copies
from vl2v.evaluation.embeddings import save_frozen_features
from vl2v.evaluation.evaluation import Evaluation
from vl2v.evaluation.final_size import at_final_size
from vl2v.evaluation.metrics import results_of, summary_of
from vl2v.evaluation.styles import styled_temperature
from vl2v.evaluation.unseen import UnseenClasses, evaluate_unseen
from vl2v.evaluation.zero_shot import warn_of_teacher
from vl2v.json_files import write_json
from vl2v.locations import StoragePaths
from vl2v.notebook import html_of, inline_page
from vl2v.origin import ORIGIN, origin_of
from vl2v.planning.models import ready_teacher
from vl2v.planning.plan import RunPlan, plan_run
from vl2v.planning.prepare import list_folder, with_columns
from vl2v.progress import Progress, Recorder, Silent, warn
from vl2v.purchase import (
    BoughtEmbeddings,
    BudgetAccount,
    Pilot,
    ensure_affordable,
    export_embeddings,
    open_budget,
    purchase,
)
from vl2v.renamed import old_keywords
from vl2v.runs.folder import RunFolder
from vl2v.runs.ownership import TRAINING, owned
from vl2v.runs.start_checks import ensure_new, ensure_same_model, ledger_name, removed_if_refused, resume_run
from vl2v.runs.storage import ensure_storage_writable, storage_of
from vl2v.student.backbones import Backbone
from vl2v.student.model import Student
from vl2v.teacher.base import Teacher
from vl2v.teacher.purchase.ledger import Budget, Ledger
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.threads import using_threads
from vl2v.tracking.base import check_installed
from vl2v.tracking.run_tracking import Tracking
from vl2v.training.balance import resolve_balance
from vl2v.training.data import TrainingData, write_slots
from vl2v.training.duration import resolve_time_limit
from vl2v.training.fresh import FreshViews
from vl2v.training.image_size import with_image_size
from vl2v.training.process import in_turn, make_accelerator, tuned, versions
from vl2v.training.refit import refitted
from vl2v.training.student import build_student, data_of, new_origin, provenance_of
from vl2v.training.train import TrainingResult, saved_state, train
from vl2v.trust import files as trust_file
from vl2v_runtime.names import shown


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        student: the student, loaded from the saved file.
        evaluation: results of this student per domain.
        image_queries: number of image queries that this run bought.
        text_queries: number of text queries that this run bought.
        fresh_queries: number of augmented images sent to a local teacher, with ``teacher.views: fresh``.
        unseen: accuracy on held-out classes; None if there are none.
    """

    folder: Path
    student: Student
    evaluation: Evaluation
    image_queries: int
    text_queries: int
    fresh_queries: int = 0
    unseen: UnseenClasses | None = None

    def _repr_html_(self) -> str:
        """Return the tables and the report as HTML, for a notebook."""
        unseen = [self.unseen.table()] if self.unseen else []
        queries = f"queries sent for this run: {self.image_queries:,} images, {self.text_queries:,} texts"
        student = f"student: {shown(self.folder / 'student')}"
        page = inline_page(RunFolder(self.folder).report_file)
        return html_of(self.evaluation.table(), *unseen, f"{queries}\n{student}") + page


@old_keywords
@in_turn
def run(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    storage: StoragePaths | None = None,
    progress: Progress | None = None,
    teacher: Teacher | None = None,
    backbone: Backbone | None = None,
    report: bool = True,
    account: BudgetAccount | None = None,
    teacher_spec: str | None = None,
    cluster: ClusterUse | None = None,
) -> Run | None:
    """Plan, buy, train, evaluate and save; or continue an interrupted run. Return None in all processes but the first.

    Args:
        storage: paths of cache and store; None takes those that the run folder records.
        teacher: an open one, instead of `config.teacher.spec`.
        backbone: a loaded one, instead of `config.student.spec`.
        report: whether to save a sample of embeddings and write `report.html` at the end, which takes seconds.
        account: whose purchases count against the budget; None for this run alone.
        teacher_spec: the teacher of a resumed run that was made elsewhere, as the user names it to allow its use.
        cluster: whose workers query a free teacher on their machine, which has to have a name; None for this process.
    """
    check_installed(config.tracking)
    ensure_named(cluster, teacher)
    paths = storage or storage_of(out, present=False)
    ensure_storage_writable(paths)
    accelerator, folder = make_accelerator(config), RunFolder(out)
    first = accelerator.is_main_process  # it plans and buys before the others, which then find everything stored
    progress = Recorder(progress or Silent()) if first else Silent()
    if first and not resume:
        changes = {"data": with_columns(config.data), "precision": accelerator.mixed_precision}
        config = config.model_copy(update=changes)
        ensure_new(folder, config.data.root)
    with owned(out, TRAINING) if first else nullcontext():
        if not first:
            accelerator.wait_for_everyone()
            config = config.model_copy(update={"student": folder.config().student})  # with its size
        elif resume:
            resume_run(folder, config, paths, teacher_spec=teacher_spec, by_name=teacher is None)
        else:
            folder.create(config.model_copy(update={"made_with": versions(accelerator)}), paths)
        begun = resume or not first
        with removed_if_refused(out, begun) as keep:
            listing = list_folder(config.data, layout_known=begun)
            teacher = ready_teacher(config, teacher)
            with cluster_workers(cluster if first else None, progress):
                if first and backbone is None:
                    config, backbone = _sized(config, listing, folder, accelerator, progress)
                plan = plan_run(
                    config, paths, progress, teacher=teacher, backbone=backbone, layout_known=begun, listing=listing
                )
                if first:
                    progress.note("\n".join(plan.contents.lines()))
                    plan = _buy(plan, account, folder, accelerator, progress, keep)
            if first:
                write_slots(plan, folder.work)
                accelerator.wait_for_everyone()
            else:
                with closing(EmbeddingStore(paths.store)) as store:
                    plan = with_recorded_choice(plan, folder, store)
            with tuned(accelerator.device):
                plan = resolve_time_limit(plan, folder, accelerator, progress)
                with using_threads(plan.config.threads):
                    return _train_and_evaluate(plan, folder, accelerator, progress, report)


def _sized(
    config: RunConfig, listing: Listing, folder: RunFolder, accelerator: Accelerator, progress: Progress
) -> tuple[RunConfig, Backbone | None]:
    """Choose the image size if it is left to the time limit, and write it to `config.yaml` for the other processes."""
    sized, backbone = with_image_size(config, listing, accelerator, progress)
    if sized is not config:
        update = {"student": sized.student, "distill": sized.distill}
        folder.write_config(folder.config().model_copy(update=update))
    return sized, backbone


def _buy(
    plan: RunPlan,
    account: BudgetAccount | None,
    folder: RunFolder,
    accelerator: Accelerator,
    progress: Progress,
    keep: Callable[[], None],
) -> RunPlan:
    """Buy what the plan requires, or the part of it that the budget covers, and write the embeddings to files.

    `keep` is called when the run can no longer be refused.
    """
    ensure_same_model(folder, plan.teacher)
    with closing(EmbeddingStore(plan.paths.store)) as store:
        budget = open_budget(plan, account or BudgetAccount.of_run(ledger_name(folder)), store)
        plan = with_choice(plan, budget, store, folder, accelerator, progress)
        ensure_affordable(plan, budget, folder.path)
        keep()
        folder.work.mkdir(exist_ok=True)
        write_json(folder.data_file, data_of(plan))
        _purchase_with_advice(plan, budget, store, folder, accelerator, progress)
        export_embeddings(plan, store, folder.work)
    return plan


def _purchase_with_advice(
    plan: RunPlan,
    budget: Budget,
    store: EmbeddingStore,
    folder: RunFolder,
    accelerator: Accelerator,
    progress: Progress,
) -> None:
    """Buy everything, and say whether the teacher is worth its price: after the first answers, and after all."""
    history: list[Advice] = []

    def advise() -> Advice | None:
        advice = advice_for(plan, store, progress, accelerator.device, bought=plan.queried is None)
        if advice is not None and advice.action not in [earlier.action for earlier in history]:
            show_advice(advice, progress)
            history.append(advice)
        return advice

    first = pilot_of(plan, store)
    pilot = None if first is None else Pilot(first, advise)
    purchase(plan, budget, store, ledger_name(folder), progress, pilot)
    if saved_advice(folder.work) is None:
        save_advice(advise(), folder.work)


def _train_and_evaluate(
    plan: RunPlan, folder: RunFolder, accelerator: Accelerator, progress: Progress, report: bool
) -> Run | None:
    """Everything after the purchase, in all processes; the first one evaluates."""
    first = accelerator.is_main_process
    bought = BoughtEmbeddings.load(plan, folder.work)
    domains = split.evaluation_domains(plan, bought)
    if first:
        warn_of_teacher(plan, bought, progress)
        warn_of_copies(plan, bought, progress)
        if report:
            save_frozen_features(plan, domains, folder.work, accelerator.device)
    data = TrainingData.build(plan, bought, domains, folder.work)
    plan = resolve_balance(plan, data, folder, accelerator, progress)
    state = saved_state(folder, data)
    fresh = FreshViews(plan.teacher) if plan.config.teacher.views == "fresh" else None
    with closing(Tracking(plan.config.tracking if first else (), folder, partial(warn, progress))) as tracking:
        result = train(
            plan.config, data, plan.student_backbone, folder, accelerator, progress,
            state=state, fresh=fresh, on_save=tracking.send_new_lines,
        )  # fmt: skip
        if not first:
            return None
        build = partial(build_student, data=data, result=result, weights=result.weights.selected, provenance={})
        if (larger := at_final_size(plan, bought, build, progress)) is not plan:
            plan, domains = larger, split.evaluation_domains(larger, bought)
        aligned = copy.deepcopy(result.projection)
        result = refitted(plan, bought, domains, data, result, progress)
        student, evaluation, parts = _save_and_evaluate(plan, bought, domains, data, result, folder)
        unseen = evaluate_unseen(plan, bought, domains, student)
        warnings = progress.warnings if isinstance(progress, Recorder) else []
        usage, queries = plan.teacher_usage(), fresh.queries if fresh else None
        advice, origin = saved_advice(folder.work), origin_of(student.provenance)
        write_json(folder.evaluation_file, results_of(evaluation, unseen, usage, warnings, queries, advice, origin))
        if report:
            write_report(plan, bought, folder, aligned, parts, origin, progress)
        folder.tidy()
        with closing(EmbeddingStore(plan.paths.store)) as store:
            ledger, name = Ledger(store), ledger_name(folder)
            query_counts = {"image_queries": ledger.queries(name), "text_queries": ledger.queries(name, "text")}
        tracking.finish(summary_of(evaluation, usage, query_counts))
    return Run(folder.path, student, evaluation, **query_counts, fresh_queries=queries or 0, unseen=unseen)


def _save_and_evaluate(
    plan: RunPlan,
    bought: BoughtEmbeddings,
    domains: Sequence[split.EvaluationDomain],
    data: TrainingData,
    result: TrainingResult,
    folder: RunFolder,
) -> tuple[Student, Evaluation, Sequence[split.DomainPredictions]]:
    """Save the student, load the saved file, and evaluate what was loaded; fit how far it can be trusted."""
    predict = partial(split.predict_domains, plan, bought, domains)
    build = partial(build_student, plan, data, result, provenance=provenance_of(plan, folder))
    alternatives, metric = {}, plan.config.distill.metric
    for name, weights in result.weights.alternatives.items():
        parts = predict(build(weights))
        alternatives[name] = split.evaluation_of(parts, split.trust_of(parts, drift=False), metric)
    built = build(result.weights.selected)
    built.provenance[ORIGIN] = new_origin(built)
    built.save(folder.student)
    backbone = plan.student_backbone
    student = Student.load(folder.student, backbone=backbone.module if backbone.recipe.kind == "module" else None)
    parts = predict(student)
    styled = styled_temperature(student, plan.pixels.map(), domains, parts)
    split.save_predictions(parts, folder.predictions_file, built.provenance[ORIGIN], styled)
    student.trust = split.trust_of(parts, styled_temperature=styled)
    trust_file.save(student.trust, folder.student, built.provenance[ORIGIN])
    return student, replace(split.evaluation_of(parts, student.trust, metric), alternatives=alternatives), parts
