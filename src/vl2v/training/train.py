"""Train a student from training data alone: no teacher is queried, no store is opened, nothing is bought."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vl2v.config import RunConfig
from vl2v.data.batches import stage_seed
from vl2v.errors import RunError, StudentError
from vl2v.method.registry import METHODS
from vl2v.progress import Progress
from vl2v.runs.folder import RunFolder, State
from vl2v.student.backbones import Backbone
from vl2v.training.data import TrainingData
from vl2v.training.fresh import FreshViews
from vl2v.training.process import stop_asked
from vl2v.training.trainer import Trainer
from vl2v.training.weights import TrainedWeights


@dataclass(frozen=True)
class TrainingResult:
    """A trained student in parts.

    Attributes:
        backbone: f; its module has the weights of the last step.
        projection: P, likewise.
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
    saved: Callable[[], None] = lambda: None,
) -> TrainingResult:
    """Run Align and Distill from a saved state or from the start.

    Args:
        config: the settings of the run.
        data: images, labels and embeddings.
        backbone: f, pretrained; trained in place.
        folder: receives state and metrics.
        accelerator: device, precision and processes.
        progress: receives every step.
        state: where an interrupted run stands, see `saved_state`.
        fresh: queried for every augmented image of Distill; the one case in which training needs a teacher.
        saved: called when metrics and state are on disk, in the first process.

    Raises:
        Interrupted: if the user stops the run; the state is saved.
        TrainingError: if a loss is not finite.
        StudentError: if the teacher's own encoder has another dimension than its embeddings.
    """
    projection = initial_projection(config, backbone, data.head)
    with stop_asked() as stop:
        trainer = Trainer(
            config, folder, accelerator, backbone, projection, data, progress, stop, fresh, saved
        )  # fmt: skip
        return TrainingResult(backbone, projection, trainer.run(state))


def saved_state(folder: RunFolder, data: TrainingData) -> State | None:
    """The state of an interrupted run; None before the first.

    Raises:
        RunError: if the data have changed since.
    """
    state = folder.load_state()
    if state is not None and state.values["digest"] != data.digest:
        raise RunError(
            "The data has changed since the run was interrupted.",
            expected="the same images, labels and embeddings",
            found="others",
            next_step="restore them, or start a new run with another --out",
        )
    return state


def initial_projection(config: RunConfig, backbone: Backbone, head: Tensor) -> nn.Module:
    """P before training: a seeded linear layer with bias, or the method's own; the identity for the teacher's encoder.

    Args:
        config: the settings of the run.
        backbone: f.
        head: [K, D], the text head.

    Raises:
        StudentError: if the teacher's own encoder has another dimension than its embeddings.
    """
    method, (classes, dimension) = METHODS[config.method], head.shape
    width = classes if method.classifier == "linear" else dimension
    if method.classifier == "linear" or config.student.spec != "teacher":
        torch.manual_seed(stage_seed(config.seed, "projection"))
        return method.layer(backbone.features, head) if method.layer else nn.Linear(backbone.features, width)
    if backbone.features != dimension:
        found = f"{backbone.features} features"
        raise StudentError("The teacher's encoder does not fit.", expected=f"{dimension} features", found=found)
    return nn.Identity()
