"""The layer after the backbone in closed form, by ridge regression on features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lab_parts.dataset import Ints
from lab_parts.goals import Goals
from lab_parts.variant import Variant
from vl2v.method.ridge import Block, Floats, dual_targets, refit, ridge, term_weights
from vl2v.training.refit import PRIOR, selection

LINEAR_SCALE = 10.0  # of the logits of a linear classifier, whose targets are in [0, 1]
LINEAR_RIDGE = 0.3  # strength for it, relative to the mean variance of a feature
RIDGE = 1e-3  # strength in Align, likewise


def projection_of(features: Tensor, goals: Goals, v: Variant) -> Tensor:
    """Align in closed form, for the dual loss alone, on features [n, F] of the training rows."""
    return _layer(ridge([_dual_block(features, goals, v)], RIDGE), features.device)


def selected(goals: Goals, seed: int) -> Goals:
    """The goals with those training rows alone that vl2v uses to fit the projection again."""
    rows, positions = selection(goals.groups, goals.shares, seed)
    return replace(goals, groups=tuple(rows[part] for part in positions))


def refitted_projection(features: Tensor, weight: Tensor, bias: Tensor, goals: Goals, v: Variant) -> Tensor:
    """The projection, fitted again to features [n, F] of the training rows; see `vl2v.method.ridge.refit`."""
    block, before = _dual_block(features, goals, v), (weight.cpu().numpy(), bias.cpu().numpy())
    return _layer(refit(lambda: [block], *before, v.refit or PRIOR), features.device)


def refitted_classifier(features: Tensor, goals: Goals, v: Variant) -> Tensor:
    """A linear classifier in closed form, towards the labels and, in distillation, the teacher's predictions."""
    rows, image, text = _weighted_rows(goals)
    classes = torch.eye(goals.head.shape[0])[goals.labels.cpu()].numpy()[rows]
    predicted = goals.teacher_logits.softmax(-1).cpu().numpy()[rows]
    share = 0.5 if v.method == "kd" else 0.0
    weights = share * image + (1 - share) * text
    pull = share * image[:, None] * predicted + (1 - share) * text[:, None] * classes
    targets = pull / weights[:, None].clip(1e-12)
    weight, bias = ridge([(features.cpu().numpy(), targets, weights)], LINEAR_RIDGE)
    return _layer((weight * LINEAR_SCALE, bias * LINEAR_SCALE), features.device)


def _dual_block(features: Tensor, goals: Goals, v: Variant) -> Block:
    rows, image, text = _weighted_rows(goals)
    texts = goals.head[goals.labels].cpu().numpy()[rows]
    directions, pulls = dual_targets(goals.targets.cpu().numpy()[rows], texts, image, text, v.image_weight)
    return features.cpu().numpy().astype(np.float64), directions, pulls


def _weighted_rows(goals: Goals) -> tuple[Ints, Floats, Floats]:
    """The training rows, and the weight of each in image term and text term."""
    rows, labelled = np.concatenate(goals.groups), goals.labelled.cpu().numpy().astype(bool)
    image, text = term_weights(goals.groups, goals.shares, labelled)
    return rows, image[rows], text[rows]


def _layer(fitted: tuple[Floats, Floats], device: torch.device) -> Tensor:
    weight, bias = fitted
    return torch.from_numpy(np.concatenate([weight.ravel(), bias, [0.0]]).astype(np.float32)).to(device)
