"""A whole run, from a folder of images and a teacher to an evaluated student."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from vl2v.commands.reporting import report_at_end
from vl2v.config import RunConfig
from vl2v.data.tables.base import is_table
from vl2v.errors import RunError, TeacherError
from vl2v.evaluation.embeddings import keep_frozen_features
from vl2v.evaluation.evaluation import Evaluation, top1
from vl2v.evaluation.judging import Part, evaluation_of, judge, keep_answers, trust_of
from vl2v.evaluation.metrics import summary_of
from vl2v.evaluation.reference import TEACHER
from vl2v.evaluation.unseen import UnseenClasses, evaluate_unseen
from vl2v.locations import StoragePaths
from vl2v.method.distill import trainable
from vl2v.planning.prepare import with_columns
from vl2v.planning.session import BudgetAccount, Session, open_session
from vl2v.planning.split import match_domains
from vl2v.progress import Progress, Recorder, Silent, warn
from vl2v.runs.folder import RunFolder
from vl2v.runs.made_here import MARK, sign_teacher
from vl2v.runs.ownership import TRAINING, owned
from vl2v.runs.places import places_of, remember
from vl2v.student.backbones import Backbone
from vl2v.student.card import MAX_LOGIT_SCALE
from vl2v.student.files import write_json
from vl2v.student.model import Student
from vl2v.teacher.base import Teacher
from vl2v.teacher.http.remote import RemoteTeacher
from vl2v.teacher.prompts import load_templates
from vl2v.teacher.purchase.ledger import Ledger, Quote
from vl2v.threads import computing
from vl2v.tracking.base import check_installed
from vl2v.tracking.following import tracked
from vl2v.training.duration import quoted_time, settle_by_measuring
from vl2v.training.process import make_accelerator, stop_asked, versions
from vl2v.training.trainer import Trainer
from vl2v.training.weights import TrainedWeights, Weights
from vl2v.trust import files as trust_file
from vl2v_runtime.names import printable

ENOUGH = 10  # images per class from which on a class without one is told
SHOWN = 12  # classes named in a warning


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: the run folder.
        student: loaded from the saved file; the one that `evaluation` describes.
        evaluation: results per domain.
        image_queries: image queries that this run bought.
        text_queries: text queries that this run bought.
        fresh_queries: augmented images sent to a local teacher, with ``teacher.views: fresh``.
        unseen: accuracy on held-out classes; None if there are none.
    """

    folder: Path
    student: Student
    evaluation: Evaluation
    image_queries: int
    text_queries: int
    fresh_queries: int = 0
    unseen: UnseenClasses | None = None


def quote_run(
    config: RunConfig,
    places: StoragePaths | None = None,
    progress: Progress | None = None,
    teacher: Teacher | None = None,
) -> Quote:
    """Say what a run would buy. Spends nothing; a student is not needed (`config.student.spec` may be empty)."""
    named = bool(config.student.spec)
    with open_session(
        config, places or StoragePaths(), progress or Silent(), teacher=teacher, with_student=named
    ) as session:
        found = session.quote()
        if session.backbone is not None:
            found = replace(found, training=quoted_time(session))
        return found


def run(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    places: StoragePaths | None = None,
    progress: Progress | None = None,
    teacher: Teacher | None = None,
    backbone: Backbone | None = None,
    report: bool = True,
    account: BudgetAccount | None = None,
) -> Run | None:
    """Scan, quote, buy, train, save and evaluate; or go on with what was stopped.

    Args:
        config: the settings; for a resumed run those of its `config.yaml`.
        out: the run's folder.
        resume: go on in `out`.
        places: where cache and store are; None takes those that the run's folder remembers.
        progress: told of every stage.
        teacher: an open one, instead of `config.teacher.spec`.
        backbone: a loaded one, instead of `config.student.spec`.
        report: whether to keep a sample of embeddings and write `report.html` at the end, which takes seconds.
        account: what the budget is for; None is this run.

    Returns:
        The finished run; None in every process but the first, where several take part.

    Raises:
        Vl2vError: with what was expected, found, and to do next.
    """
    check_installed(config.tracking)
    accelerator = make_accelerator(config)
    folder, first = RunFolder(out), accelerator.is_main_process
    places, progress = places or places_of(out, present=False), Recorder(progress or Silent()) if first else Silent()
    account = account or BudgetAccount.of_run(_name(folder))
    if first and not resume:
        config = config.model_copy(update={"data": with_columns(config.data)})
        if not is_table(config.data.root):
            _check_outside(out, config.data.root)
        folder.check_free()
    with owned(out, TRAINING) if first else nullcontext():
        if first:
            if resume:
                _go_on(folder, config, places)
            else:
                folder.create(config.model_copy(update={"made_with": versions(accelerator)}), places)
        else:
            accelerator.wait_for_everyone()  # the first one scans and buys; the others then find everything known
        begun = resume or not first
        try:
            with open_session(config, places, progress, teacher=teacher, backbone=backbone, begun=begun) as session:
                if first:
                    progress.note("\n".join(session.contents().lines()))
                    _same_teacher(session, folder)
                    budget = session.budget(account)
                    session.check_means(budget, places, out)
                    begun = True
                    session.buy(_name(folder), budget)
                    if session.method.asks_teacher:
                        _compare_with_labels(session) if session.labelled else _classes_named(session)
                    session.material(folder.work)
                    accelerator.wait_for_everyone()
                session = settle_by_measuring(session, folder, accelerator)
                with computing(session.config.threads):
                    return _train(session, folder, accelerator, report)
        except Exception:
            if not begun:  # refused before anything was bought: leave nothing behind
                shutil.rmtree(out.resolve(), ignore_errors=True)
            raise


def _same_teacher(session: Session, folder: RunFolder) -> None:
    """Refuse to buy for a run from another model than before; the run's folder remembers which one it was.

    Raises:
        TeacherError: if a vendor has another model or revision now.
    """
    if not isinstance(session.teacher, RemoteTeacher):  # files and local models cost nothing to ask again
        return
    card, known = session.card, folder.teacher()
    now = {"identity": card.identity, "revision": card.revision, "dimension": card.dimension}
    other = [key for key in now if known is not None and known.get(key) != now[key]]
    if known is not None and other:
        raise TeacherError(
            f"{card.identity} is not the model that this run started with.",
            expected=", ".join(f"{key} {known.get(key)}" for key in other),
            found=", ".join(f"{key} {now[key]}" for key in other),
            next_step="begin a new run under another --out. What was bought stays stored, and this run can go on if "
            "the vendor offers that model again",
        )
    write_json(folder.teacher_file, now)


def _check_outside(out: Path, data: Path) -> None:
    """Refuse a run's folder that the next scan would take for a domain or a class.

    Raises:
        RunError: if so.
    """
    if out.resolve().is_relative_to(data.resolve()):
        found, step = f"it is in {data}", "choose another folder: --out FOLDER"
        problem = f"{out} is inside the folder of images."
        raise RunError(problem, expected="a folder outside the folder of images", found=found, next_step=step)


def _go_on(folder: RunFolder, config: RunConfig, places: StoragePaths) -> None:
    """Remember what may change when a run is resumed: cache and store, a raised budget, the trackers."""
    remember(folder.path, places)
    known = folder.config()
    fixed: dict[str, Any] = {"made_with": known.made_with}
    if folder.state_file.exists():
        fixed["threads"] = known.threads
    config = config.model_copy(update=fixed)
    if config != known:
        folder.write_config(config)


def _train(session: Session, folder: RunFolder, accelerator: Accelerator, report: bool) -> Run | None:
    assert session.backbone is not None
    if report and accelerator.is_main_process:
        keep_frozen_features(session, folder.work, accelerator.device)
    material = session.material(folder.work, write=False)
    projection = session.make_projection(session.backbone)
    state = folder.load_state()
    if state is not None and state.values["digest"] != material.digest:
        raise RunError(
            "The data has changed since the run was interrupted.",
            expected="the same images, labels and embeddings",
            found="others",
            next_step="restore them, or start a new run with another --out",
        )
    backbone, progress, first = session.backbone, session.progress, accelerator.is_main_process
    with tracked(session.config.tracking if first else (), folder, partial(warn, progress)) as tracking:
        with stop_asked() as stop:
            trainer = Trainer(
                session.config, folder, accelerator, backbone, projection, material, progress, stop, session.fresh,
                tracking.follow,
            )  # fmt: skip
            trained = trainer.run(state)
        if not first:
            return None
        done = _finish(session, folder, projection, trained, report)
        paid = {"image_queries": done.image_queries, "text_queries": done.text_queries}
        tracking.finish(summary_of(done.evaluation, session.asked(), paid))
        return done


def _finish(session: Session, folder: RunFolder, projection: nn.Module, trained: TrainedWeights, report: bool) -> Run:
    """Save the student, read it back, and report the one that was read, with how far it can be trusted."""
    backbone = session.backbone
    assert backbone is not None
    names, card = session.task.names, session.card
    head = session.head() if session.method.classifier == "cosine" else None
    provenance = _provenance(session, folder)

    def build(weights: Weights) -> Student:
        _put(weights, backbone.module, projection)
        kept = session.method.kept(projection.cpu())
        scale = min(card.logit_scale * session.method.gain(projection), MAX_LOGIT_SCALE)
        return Student(backbone, kept, head, names, scale, provenance)

    alternatives = {
        name: _alternative(judge(session, build(weights))) for name, weights in trained.alternatives.items()
    }
    made = build(trained.selected)
    made.save(folder.student)
    own = backbone.module if backbone.recipe.kind == "module" else None
    student = Student.load(folder.student, backbone=own)
    parts = judge(session, student)
    keep_answers(parts, folder.predictions_file)
    student.trust = trust_of(parts)
    trust_file.save(student.trust, folder.student)
    evaluation = replace(evaluation_of(parts, student.trust), alternatives=alternatives)
    fresh = {"fresh_queries": session.fresh.queries} if session.fresh else {}
    unseen = evaluate_unseen(session, student)
    more = {"unseen_classes": unseen.to_dict()} if unseen else {}
    warned = session.progress.warnings if isinstance(session.progress, Recorder) else []
    content = evaluation.to_dict() | more | {"asked": session.asked(), "warnings": warned}
    write_json(folder.evaluation_file, content | fresh)
    if report:
        report_at_end(session, folder, projection, parts)
    folder.tidy()
    ledger, name = Ledger(session.store), _name(folder)
    images, texts = ledger.queries(name), ledger.queries(name, "text")
    return Run(folder.path, student, evaluation, images, texts, unseen=unseen, **fresh)


def _alternative(parts: Sequence[Part]) -> Evaluation:
    """The table of weights that are not saved, with their own temperature."""
    return evaluation_of(parts, trust_of(parts, drift=False))


def _put(weights: Weights, backbone: nn.Module, projection: nn.Module) -> None:
    parameters = trainable(backbone, projection)
    with torch.no_grad():
        for key, tensor in weights.items():
            parameters[key].copy_(tensor)


def _compare_with_labels(session: Session) -> None:
    """Warn where the teacher's zero-shot answers agree with the sources' labels no better than chance would."""
    places = np.concatenate(list(session.split.kept.values()))
    accuracy = top1(session.zero_shot(places), session.task.labels[places])
    chance = 1 / len(session.task.folders)
    if accuracy < 1.5 * chance:
        warn(
            session.progress,
            f"the teacher agrees with your labels on {accuracy:.1%} of the training images, chance is "
            f"{chance:.1%}; check class names (classes.yaml), prompts, and the order of the teacher's responses",
        )


def _classes_named(session: Session) -> None:
    """Warn of classes that the teacher finds in no image, of which the student then learns nothing."""
    places = np.concatenate([*session.split.kept.values(), *session.split.validation.values()])
    counts = np.bincount(session.zero_shot(places).argmax(axis=1), minlength=len(session.task.names))
    lacking = [name for name, count in zip(session.task.names, counts, strict=True) if not count]
    if lacking and (len(places) >= ENOUGH * len(counts) or len(lacking) == len(counts) - 1):
        more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
        warn(
            session.progress,
            f"the teacher takes none of the {len(places):,} images for {', '.join(lacking[:SHOWN])}{more}; check the "
            "names, or what they are called in the prompts (classes.yaml)",
        )


def _provenance(session: Session, folder: RunFolder) -> dict[str, Any]:
    config, card = session.config, session.card
    state = folder.load_state()
    swad = state.values.get("swad") if state else None
    return {
        "made_with": folder.config().made_with,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "teacher": {"identity": card.identity, "revision": card.revision, "dimension": card.dimension},
        "prompts": list(session.needs.prompts),
        "templates": list(load_templates(config.teacher.prompts)),
        "data": {
            "digest": session.task.digest(),
            "images": len(session.task),
            "domains": list(session.task.domains),
            "held_out": list(match_domains(config.data.held_out, session.task.domains)),
            **({} if session.labelled else {"labels": "none", "measure": TEACHER.measure}),
        },
        "seed": config.seed,
        "weights": config.distill.weights,
        "swad": swad and {key: swad[key] for key in ("converged_at", "dead_at", "threshold")},
        "config": _readable(config.model_dump(mode="json", exclude={"made_with", "budget", "tracking"})),
        MARK: sign_teacher(config),
    }


def _name(folder: RunFolder) -> str:
    """What the ledger calls a run: its folder, wherever it is called from."""
    return printable(folder.path.resolve())


def _readable(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings whose paths are valid text: a student's file is read by others too."""
    data = {name: printable(value) if isinstance(value, str) else value for name, value in settings["data"].items()}
    return settings | {"data": data}
