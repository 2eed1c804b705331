"""Train a student from training data. No teacher is queried, no store is opened, and nothing is bought."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vl2v.config import RunConfig
from vl2v.data.batches import stage_seed
from vl2v.errors import RunError, StudentError
from vl2v.interrupts import stop_requests
from vl2v.method.registry import METHODS
from vl2v.progress import Progress
from vl2v.runs.folder import RunFolder, State
from vl2v.student.backbones import Backbone
from vl2v.student.frozen import frozen
from vl2v.training.data import TrainingData
from vl2v.training.fresh import FreshViews
from vl2v.training.trainer import Trainer
from vl2v.training.weights import TrainedWeights


@dataclass(frozen=True)
class TrainingResult:
    """Result of a training.

    Attributes:
        backbone: backbone, with the weights of the last step.
        projection: projection, with the weights of the last step.
        weights: the selected weights and the alternatives.
    """

    backbone: Backbone
    projection: nn.Module
    weights: TrainedWeights


def train(
    config: RunConfig,
    data: TrainingData,
    backbone: Backbone,
    folder: RunFolder,
    accelerator: Accelerator,
    progress: Progress,
    *,
    state: State | None = None,
    fresh: FreshViews | None = None,
    on_save: Callable[[], None] = lambda: None,
) -> TrainingResult:
    """Run Align and Distill, from the start or from a saved state.

    Args:
        backbone: pretrained backbone, trained in place.
        folder: run folder for state and metrics.
        state: state of an interrupted run, see `saved_state`.
        fresh: queries the teacher for every augmented image of Distill. Without it, training needs no teacher.
        on_save: called in the first process when metrics and state have been written.

    Raises:
        Interrupted: if the user stops the run; the state is saved.
        TrainingError: if a loss is not finite.
        StudentError: if the dimension of the teacher's own encoder differs from that of its embeddings.
    """
    projection = initial_projection(config, backbone, data.head)
    with frozen(backbone.module, config.distill.freeze), stop_requests() as stop:
        trainer = Trainer(
            config, folder, accelerator, backbone, projection, data, progress, stop, fresh, on_save
        )  # fmt: skip
        return TrainingResult(backbone, projection, trainer.run(state))


def saved_state(folder: RunFolder, data: TrainingData) -> State | None:
    """Return the state of an interrupted run; None if none has been saved.

    Raises:
        RunError: if the data have changed since.
    """
    state = folder.load_state()
    if state is not None and state.values["digest"] != data.digest:
        raise RunError(
            "The data has changed since the run was interrupted.",
            expected="the same images, labels and embeddings",
            found="different ones",
            next_step="restore them, or start a new run with another --out",
        )
    return state


def initial_projection(config: RunConfig, backbone: Backbone, head: Tensor) -> nn.Module:
    """Return the projection before training: a seeded linear layer, the method's own, or the identity.

    The identity is used if the student is the teacher's own encoder.

    Args:
        head: [K, D], text head.

    Raises:
        StudentError: if the dimension of the teacher's own encoder differs from that of its embeddings.
    """
    method, (classes, dimension) = METHODS[config.method], head.shape
    width = classes if method.classifier == "linear" else dimension
    if method.classifier == "linear" or config.student.spec != "teacher":
        torch.manual_seed(stage_seed(config.seed, "projection"))
        return method.layer(backbone.features, head) if method.layer else nn.Linear(backbone.features, width)
    if backbone.features != dimension:
        expected, found = f"{dimension} features", f"{backbone.features} features"
        step = "choose another student with --student"
        raise StudentError("The teacher's encoder does not fit.", expected=expected, found=found, next_step=step)
    return nn.Identity()
