"""What makes a method, so that all of them share loop, data, weight averaging and selection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from vl2v.method.loop import Objective

Classifier = Literal["cosine", "linear"]


@dataclass(frozen=True)
class Context:
    """What an objective may need beside its batch.

    Attributes:
        head: [K, D] float32, the text head, rows of length one.
        logit_scale: s, the teacher's.
        image_weight: lambda of the dual loss, in [0, 1].
        temperature: of naive distillation, above 0.
        teacher_share: how much of naive distillation's loss comes from the teacher, in [0, 1].
    """

    head: Tensor
    logit_scale: float
    image_weight: float = 0.5
    temperature: float = 2.0
    teacher_share: float = 0.5


@dataclass(frozen=True)
class Method:
    """A way to train a student, in up to two stages with one objective.

    The first stage trains the layer after the backbone on kept features, the backbone standing still; the second one
    trains the backbone.

    Attributes:
        name: as in a run's settings.
        title: as in a table.
        stages: what the two stages are called.
        classifier: ``cosine`` if that layer maps into the teacher's space and the text embeddings are the head,
            ``linear`` if it gives the logits itself.
        objective: gives what both stages minimise.
        first_stage: whether the first stage belongs to the method; without it, it has no steps unless asked for.
        trains_layer: whether the second stage trains that layer too.
        asks_teacher: whether training needs the teacher's image vectors.
    """

    name: str
    title: str
    stages: tuple[str, str]
    classifier: Classifier
    objective: Callable[[Context], Objective]
    first_stage: bool
    trains_layer: bool
    asks_teacher: bool
