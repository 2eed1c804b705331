"""Losses of batches in which some images have no teacher embedding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_baselines import CONTEXT, batch
from torch import Tensor

from vl2v.method.loop import Batch, total
from vl2v.method.recipe import Vl2vSettings
from vl2v.method.registry import METHODS
from vl2v.method.ridge import dual_targets

LABELS = [0, 2, 1, 1]
METHOD_NAMES = [name for name, method in METHODS.items() if method.partial_queries]


def partly_queried(*queried: bool) -> Batch:
    full_batch, mask = batch(LABELS), torch.tensor(queried)
    return replace(full_batch, teacher_image=full_batch.teacher_image * mask[:, None], queried=mask)


def loss(name: str, output: Tensor, b: Batch) -> Tensor:
    settings: Any = METHODS[name].settings()
    context = replace(CONTEXT, settings=Vl2vSettings(kl_weight=0.3) if name == "vl2v" else settings)
    return total(METHODS[name].objective(context)(output, b))


def output_of(name: str) -> Tensor:
    classes, dimension = CONTEXT.head.shape
    width = {"kd": classes, "rise": classes + dimension, "vl2v": dimension + 1}.get(name, dimension)
    return torch.randn(len(LABELS), width, generator=torch.Generator().manual_seed(3))


def test_the_methods_that_learn_from_labels_and_embeddings_support_it() -> None:
    assert {"adip", "vl2v", "kd", "rise", "no-align"} <= set(METHOD_NAMES)
    assert not {"feature", "text", "erm"} & set(METHOD_NAMES)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_the_teacher_terms_are_summed_over_the_queried_images(name: str) -> None:
    output, full_batch = output_of(name), batch(LABELS)
    masks = ([True, False, True, False], [False, True, False, True], [False] * 4, [True] * 4)
    some, others, none, every = (float(loss(name, output, partly_queried(*mask))) for mask in masks)
    assert some + others == pytest.approx(every + none, abs=1e-5)
    assert every == pytest.approx(float(loss(name, output, full_batch)), abs=1e-5)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_the_placeholder_of_a_missing_embedding_has_no_effect(name: str) -> None:
    output, b = output_of(name), partly_queried(True, False, True, False)
    elsewhere = b.teacher_image.clone()
    if name in ("kd", "rise"):
        elsewhere[1] = CONTEXT.head[0]
    assert float(loss(name, output, replace(b, teacher_image=elsewhere))) == pytest.approx(float(loss(name, output, b)))


def test_align_in_closed_form_uses_only_the_text_of_an_image_without_an_embedding() -> None:
    text = np.eye(3)
    image, third = np.array([[0, 1.0, 0], [0, 0, 0], [0, 0, 1]]), np.full(3, 1 / 3)
    directions, pulls = dual_targets(image, text, third, third, 0.5)
    np.testing.assert_allclose(directions[1], text[1])
    assert pulls[1] == pytest.approx(1 / 6)
