"""Build the student of a finished training with its provenance."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from vl2v.data.digest_sample import sample_of
from vl2v.evaluation.reference import TEACHER
from vl2v.method.distill import trainable
from vl2v.method.swad import Weights
from vl2v.planning.plan import RunPlan
from vl2v.planning.split import match_domains
from vl2v.runs.folder import RunFolder
from vl2v.runs.signatures import MARK, sign_teacher
from vl2v.student.card import MAX_LOGIT_SCALE
from vl2v.student.model import Student
from vl2v.teacher.prompts import load_templates
from vl2v.tensor_files import add_weights
from vl2v.training.data import TrainingData
from vl2v.training.train import TrainingResult
from vl2v.training.weights import load_weights
from vl2v_runtime.names import printable


def build_student(
    plan: RunPlan, data: TrainingData, result: TrainingResult, weights: Weights, provenance: dict[str, Any]
) -> Student:
    """Build the student with one set of weights. All students of a training share its backbone and projection.

    Args:
        plan: plan of the run. Its backbone has the preprocessing of the student.
        data: training data with text head and logit scale.
        weights: one of the sets of `result.weights`.
    """
    method, projection = plan.method, result.projection
    load_weights(weights, trainable(result.backbone.module, projection))
    head = data.head if method.classifier == "cosine" else None
    layer = method.saved_layer(projection.cpu())
    scale = min(data.logit_scale * method.gain(projection), MAX_LOGIT_SCALE)
    backbone = replace(result.backbone, preprocess=plan.student_backbone.preprocess)
    return Student(backbone, layer, head, plan.dataset.names, scale, provenance)


def new_origin(student: Student) -> str:
    """Return the origin of a trained student: a hash of its weights without the text head, see `vl2v.origin`."""
    digest = hashlib.sha256()
    add_weights(digest, {name: tensor for name, tensor in student.state_dict().items() if name != "head"})
    return digest.hexdigest()[:32]


def provenance_of(plan: RunPlan, folder: RunFolder) -> dict[str, Any]:
    """Return the provenance of a student: versions, teacher, prompts, data and settings."""
    config, card = plan.config, plan.card
    state = folder.load_state()
    swad = state.values.get("swad") if state else None
    return {
        "made_with": folder.config().made_with,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "teacher": {"identity": card.identity, "revision": card.revision, "dimension": card.dimension},
        "prompts": list(plan.requirements.prompts),
        "templates": list(load_templates(config.teacher.prompts)),
        "data": data_of(plan),
        "seed": config.seed,
        "weights": config.distill.weights,
        "swad": swad and {key: swad[key] for key in ("converged_at", "dead_at", "threshold")},
        "config": printable_paths(
            config.model_dump(mode="json", exclude={"made_with", "origin", "budget", "tracking"})
        ),
        MARK: sign_teacher(config),
    }


def data_of(plan: RunPlan) -> dict[str, Any]:
    """Return what a student, or an unfinished run, records of its images."""
    dataset, training_digests = plan.dataset, plan.examples.digests[plan.examples.views == 0]
    return {
        "digest": dataset.digest(),
        "images": len(dataset),
        "domains": list(dataset.domains),
        "held_out": list(match_domains(plan.config.data.held_out, dataset.domains)),
        "training_images": len(training_digests),
        "training_sample": sample_of(training_digests),
        **_unlabelled_of(plan),
        **({} if plan.labelled else {"labels": "none", "measure": TEACHER.measure}),
    }


def _unlabelled_of(plan: RunPlan) -> dict[str, Any]:
    if plan.unlabelled is None:
        return {}
    return {"unlabelled_images": len(plan.unlabelled), "unlabelled_sample": sample_of(plan.unlabelled.digests)}


def printable_paths(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings whose paths are valid text, since others read the file of a student."""
    data = {name: printable(value) if isinstance(value, str) else value for name, value in settings["data"].items()}
    return settings | {"data": data}
