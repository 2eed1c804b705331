"""Fit the projection again after Distill: Align in closed form on the features of the trained backbone.

Distill trains the backbone under a projection that was fitted to the pretrained features. The trained features allow a
better one, which a ridge regression finds without steps and without queries; see docs/results/recipe.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vl2v.data.batches import stage_seed
from vl2v.data.splits import ExampleRows
from vl2v.errors import DataError
from vl2v.evaluation.features import CHUNK, pass_through
from vl2v.evaluation.final_size import validation_accuracy
from vl2v.evaluation.split import EvaluationDomain
from vl2v.method.distill import trainable
from vl2v.method.ridge import refit
from vl2v.method.swad import Weights
from vl2v.planning.plan import RunPlan
from vl2v.progress import Advance, Progress, warn
from vl2v.purchase import BoughtEmbeddings
from vl2v.schema import DistillConfig
from vl2v.student.model import cosine_logits
from vl2v.threads import cores
from vl2v.training.align_options import dual_blocks
from vl2v.training.data import TrainingData
from vl2v.training.student import build_student
from vl2v.training.train import TrainingResult
from vl2v.training.weights import TrainedWeights, load_weights
from vl2v_runtime.imaging import decode, square

PRIOR = 1000.0  # images that the projection before counts for; chosen on left-out domains, see docs/results/recipe.md
PARAMETERS = "projection/weight", "projection/bias"  # their names in sets of weights
MOST_EXAMPLES = 3000  # training examples of the regression, which limits its time


def refitted(
    plan: RunPlan,
    bought: BoughtEmbeddings,
    domains: Sequence[EvaluationDomain],
    data: TrainingData,
    result: TrainingResult,
    progress: Progress,
) -> TrainingResult:
    """Fit the projection again, and use it if it is more accurate on the validation images of the source domains.

    The regression is `vl2v.method.ridge.refit`. It also uses the pseudo-labels of the method. The projection stays if
    there is no solution, for example because all features are the same.

    Args:
        plan: plan of the run. Its backbone has the final image size, at which the features are computed. Without
            `distill.refit`, the result is returned as it is.
        bought: embeddings of the run, with which the validation images are scored if they have no labels.
        domains: the evaluated images, at the final size.
        result: result of the training. Its backbone and its projection have other weights afterwards.

    Returns:
        The result with a projection in every set of weights: a new one for each of them, or that of Align.
    """
    if not plan.config.distill.refit:
        return result
    assert isinstance(result.projection, nn.Linear)
    present = _parameters(result.projection.weight, result.projection.bias)
    unchanged = _with_each(result, lambda weights: weights | present)
    try:
        fitted = _fitted(plan, data, unchanged, progress)
    except DataError as error:
        warn(progress, f"the projection was not fitted again: {error}")
        return unchanged
    if not any(map(len, plan.split.evaluation_parts[0].values())):
        return fitted
    before, after = (
        validation_accuracy(plan, bought, domains, build_student(plan, data, one, one.weights.selected, {}))
        for one in (unchanged, fitted)
    )
    choice = "is fitted again" if after > before else "stays that of Align"
    accuracies = f"{100 * before:.1f}% before, {100 * after:.1f}% with the new one"
    progress.note(f"the projection {choice}; on the validation images: {accuracies}")
    return fitted if after > before else unchanged


def _with_each(result: TrainingResult, change: Callable[[Weights], Weights]) -> TrainingResult:
    """The result with a change of every set of weights."""
    alternatives = {name: change(weights) for name, weights in result.weights.alternatives.items()}
    return replace(result, weights=TrainedWeights(change(result.weights.selected), alternatives))


def _fitted(plan: RunPlan, data: TrainingData, result: TrainingResult, progress: Progress) -> TrainingResult:
    """The result with a projection for every set of weights, fitted to the features of its backbone."""
    rows, groups = selection(data.groups, data.shares, plan.config.seed)
    embeddings = None if data.embeddings is None else data.embeddings[rows]
    selected = replace(data, slots=data.slots[rows], labels=data.labels[rows], embeddings=embeddings, groups=groups)
    examples, sets = _with_pseudo_labels(plan, selected), 1 + len(result.weights.alternatives)
    with progress.stage("fitting the projection", sets * len(rows)) as advance:

        def fit(weights: Weights) -> Weights:
            load_weights(weights, trainable(result.backbone.module, result.projection))
            features = _features(plan, data, rows, result.backbone.module, advance)
            return weights | _solution(plan, examples, features, weights)

        return _with_each(result, fit)


def example_count(settings: DistillConfig, images: int) -> int:
    """Return the number of training images that the regression uses, 0 without it."""
    return min(images, MOST_EXAMPLES) if settings.refit else 0


def selection(
    groups: Sequence[ExampleRows], shares: Sequence[int], seed: int
) -> tuple[ExampleRows, tuple[ExampleRows, ...]]:
    """Choose at most `MOST_EXAMPLES` examples, at random from each group in proportion to its share of a batch.

    Returns:
        The rows of the examples, [N], and the positions of each group in them.
    """
    rng, parts = np.random.default_rng(stage_seed(seed, "refit")), []
    for rows, share in zip(groups, shares, strict=True):
        most = max(1, MOST_EXAMPLES * share // sum(shares))
        parts.append(rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False)))
    ends = np.cumsum([len(part) for part in parts])
    return np.concatenate(parts), tuple(np.split(np.arange(ends[-1]), ends[:-1]))


def _with_pseudo_labels(plan: RunPlan, data: TrainingData) -> TrainingData:
    """The data with confident predictions of the teacher as labels of the examples without one."""
    confidence = plan.method.pseudo_labels(plan.config.method_settings)
    if confidence >= 1 or data.embeddings is None or (data.labels >= 0).all():
        return data
    logits = cosine_logits(torch.from_numpy(data.embeddings), data.head, data.logit_scale)
    probability, predicted = logits.softmax(dim=-1).max(dim=-1)
    confident = (data.labels < 0) & (probability > confidence).numpy()
    return replace(data, labels=np.where(confident, predicted.numpy(), data.labels))


def _features(
    plan: RunPlan, data: TrainingData, rows: ExampleRows, module: nn.Module, advance: Advance
) -> NDArray[np.float32]:
    """The features [N, F] of N examples without augmentation, at the final image size."""
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    preprocess, parts = plan.student_backbone.preprocess, []
    for pixels in _pixels(plan, data, rows):
        (features,) = pass_through(module, preprocess, pixels, np.arange(len(pixels)), device)
        parts.append(features.cpu().numpy())
        advance(len(pixels))
    return np.concatenate(parts)


def _pixels(plan: RunPlan, data: TrainingData, rows: ExampleRows) -> Iterator[NDArray[np.uint8]]:
    """Yield the pixels of examples, [B, S, S, 3]: those of the cache, or decoded again if the final size is larger."""
    size = plan.student_backbone.preprocess.size
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            if size == data.pixels.shape[1]:
                yield data.pixels[data.slots[part]]
            else:
                yield np.stack(list(pool.map(partial(decoded, plan), part.tolist())))


def decoded(plan: RunPlan, row: int) -> NDArray[np.uint8]:
    """Decode the file of a training example: pixels [S, S, 3] at the image size of the plan's backbone.

    Raises:
        DataError: if the file has changed since it was read.
    """
    return square(decode(plan.examples.read(row)), plan.student_backbone.preprocess.size, plan.pixels.fit)


def _solution(
    plan: RunPlan, examples: TrainingData, features: NDArray[np.float32], present: Weights
) -> dict[str, Tensor]:
    """The parameters of the projection that fits features; none if the regression has no solution."""
    config = plan.config
    image_weight = config.image_weight if config.image_weight_end is None else config.image_weight_end
    blocks = partial(dual_blocks, features.__getitem__, examples, image_weight, config.data.exponent)
    before, shift = (present[name].double().numpy() for name in PARAMETERS)
    try:
        weight, bias = refit(blocks, before, shift, PRIOR)
    except ValueError:
        return {}
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        return {}
    return _parameters(torch.from_numpy(weight), torch.from_numpy(bias))


def _parameters(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    tensors = (tensor.detach().cpu().float().clone() for tensor in (weight, bias))
    return dict(zip(PARAMETERS, tensors, strict=True))
