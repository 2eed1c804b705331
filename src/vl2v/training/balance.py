"""Selection of the exponent of class-balanced sampling by a probe on frozen features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray
from torch import Tensor

from vl2v.config import RunConfig
from vl2v.data.splits import Slots
from vl2v.evaluation.features import scores
from vl2v.method.evaluation import mean_over_domains
from vl2v.method.registry import METHODS
from vl2v.method.ridge import Block, ridge
from vl2v.planning.plan import RunPlan
from vl2v.progress import Progress
from vl2v.runs.folder import RunFolder
from vl2v.student.model import cosine_logits
from vl2v.training.align_options import BLOCK, dual_blocks, row_weights
from vl2v.training.data import TrainingData
from vl2v.training.feature_cache import training_features

EXPONENTS = (0.0, 0.5, 1.0)


def resolve_balance(
    plan: RunPlan, data: TrainingData, folder: RunFolder, accelerator: Accelerator, progress: Progress
) -> RunPlan:
    """Replace ``data.balance: auto`` by a number, also in `config.yaml`. All processes call this function.

    A resumed run has the number in its settings.
    """
    if plan.config.data.balance != "auto":
        return plan
    exponent = 0.0
    if plan.labelled:
        backbone = plan.student_backbone
        backbone.module.to(accelerator.device).to(memory_format=torch.channels_last)
        features = training_features(data, backbone, accelerator, progress, "features to choose data.balance")
        macros = {value: macro_accuracy(features, data, plan.config, value) for value in EXPONENTS}
        (exponent,) = broadcast_object_list([max(macros, key=lambda value: macros[value])])  # the smallest of equals
        accuracies = ", ".join(f"{100 * macro:.1f}% at {value:g}" for value, macro in macros.items())
        progress.note(
            f"data.balance is {exponent:g}: macro accuracy of a probe on the validation images is {accuracies}"
        )

    def resolved(config: RunConfig) -> RunConfig:
        return config.model_copy(update={"data": config.data.model_copy(update={"balance": exponent})})

    if accelerator.is_main_process:
        folder.write_config(resolved(folder.config()))
    return replace(plan, config=resolved(plan.config))


def macro_accuracy(features: NDArray[np.float32], data: TrainingData, config: RunConfig, balance: float) -> float:
    """Return the mean macro accuracy in [0, 1] of a ridge regression on the validation images of the source domains.

    The regression is Align in closed form if the method classifies by cosine similarity and uses the teacher's
    embeddings. Otherwise, it predicts the classes. Its penalty is `align.ridge`.

    Args:
        features: [slots, F] float32, features of the frozen backbone.
        balance: exponent of class-balanced sampling.
    """
    head, cosine = data.head, METHODS[config.method].classifier == "cosine" and data.embeddings is not None

    def rows(part: slice) -> NDArray[np.float32]:
        return features[data.slots[part]]

    dual = dual_blocks(rows, data, config.image_weight, balance)
    weight, bias = ridge(dual if cosine else _class_blocks(rows, data, balance), config.align.ridge)

    def logits(slots: Slots) -> Iterator[Tensor]:
        for start in range(0, len(slots), BLOCK):
            projected = torch.from_numpy(features[slots[start : start + BLOCK]] @ weight.T + bias)
            yield cosine_logits(projected.float(), head, data.logit_scale) if cosine else projected

    return mean_over_domains(scores(logits, data.validation, len(head)).values()).macro


def _class_blocks(rows: Callable[[slice], NDArray[np.float32]], data: TrainingData, balance: float) -> Iterator[Block]:
    """Yield features, one-hot classes and weights of the labelled rows, in blocks."""
    weights, classes = row_weights(data, balance)[1], np.eye(len(data.head))
    for start in range(0, len(data.labels), BLOCK):
        part = slice(start, start + BLOCK)
        yield rows(part), classes[data.labels[part].clip(min=0)], weights[part]
