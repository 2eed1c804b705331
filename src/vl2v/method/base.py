"""What defines a method; all methods share loop, data, weight averaging and selection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from torch import Tensor, nn

from vl2v.method.loop import Objective
from vl2v.strict import Strict

Classifier = Literal["cosine", "linear"]


class Settings(Strict):
    """Base of a method's own settings. In a run's settings they are a block with the name of the method."""


class NoSettings(Settings):
    """Of a method that has none; there is no block."""


S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Context(Generic[S]):
    """What an objective may need beside its batch.

    Attributes:
        head: [K, D] float32, the text head, rows of length one.
        logit_scale: s, the teacher's.
        settings: the method's own.
        image_weight: lambda of the dual loss, in [0, 1].
        texts: [K, A, D] float32, the text embeddings of every class in the A templates of `Method.texts`; None where
            it names no template.
    """

    head: Tensor
    logit_scale: float
    settings: S
    image_weight: float = 0.5
    texts: Tensor | None = None


def _nothing(*_: object) -> tuple[()]:
    return ()


def _no_defaults(_: bool) -> dict[str, Any]:
    return {}


def _one(*_: object) -> float:
    return 1.0


def _same(layer: nn.Module) -> nn.Module:
    return layer


@dataclass(frozen=True)
class Method(Generic[S]):
    """A way to train a student, in up to two stages with one objective.

    The first stage trains the layer after the backbone on kept features, the backbone standing still; the second one
    trains the backbone.

    What the objective gets is a row per image: the output of that layer, and behind it whatever else the method
    computes of an image in training. Where the classifier is linear, the first K columns are the logits, and they
    alone remain in the saved student.

    Attributes:
        name: as in a run's settings; that of its line in the registry, or of its entry point.
        title: what a table calls it.
        settings: the class of its own settings, `NoSettings` if there are none. Its fields need defaults.
        stages: what the two stages are called.
        classifier: ``cosine`` if that layer maps into the teacher's space and the text embeddings are the head,
            ``linear`` if it gives the logits itself.
        objective: gives what both stages minimise.
        first_stage: whether the first stage belongs to the method; without it, it has no steps unless asked for.
        trains_layer: whether the second stage trains that layer too.
        asks_teacher: whether training needs the teacher's image embeddings.
        needs_labels: whether it learns nothing of images without a label, or not what it is named for.
        forbids_first_stage: whether a first stage would make another method of it.
        trains_backbone: whether the second stage trains the backbone; otherwise it runs on kept features too.
        image_weight: lambda of the dual loss, where the method fixes it.
        free_image_weight: whether the objective is the dual loss with the lambda of the run. `image_weight_end` can
            then change it from step to step, and `align.solver: ridge` can solve the first stage.
        takes_encoder: whether it makes sense for a student that is the teacher's own encoder.
        layer: builds that layer from F and the [K, D] text head; None is one linear layer.
        kept: what of the trained layer the student keeps.
        penalty: builds what regularises the second stage, from the pretrained backbone and a [2, 3, S, S] sample: a
            module that takes (backbone, inputs) and gives the backbone's features [B, F] and a penalty [B]. What it
            trains is saved to resume from and is not part of the student.
        penalty_rate: learning rate of what the penalty trains, relative to that of the second stage, above 0.
        learns: names of those parameters of that layer that have a learning rate of their own in both stages, and that
            the second stage trains even where the rest of the layer stands still.
        learns_rate: their learning rate, above 0.
        gain: what the trained layer multiplies the teacher's logit scale with, above 0.
        texts: templates of further texts, such as ``a sketch of a {}``. They are bought for every class, and
            `Context.texts` has their embeddings.
        defaults: values of those settings that the user left out or None, from whether images without labels are
            trained on.
    """

    name: str
    title: str
    settings: type[S]
    stages: tuple[str, str]
    classifier: Classifier
    objective: Callable[[Context[S]], Objective]
    first_stage: bool
    trains_layer: bool
    asks_teacher: bool
    needs_labels: bool = True
    forbids_first_stage: bool = False
    trains_backbone: bool = True
    image_weight: float | None = None
    free_image_weight: bool = False
    takes_encoder: bool = True
    layer: Callable[[int, Tensor], nn.Module] | None = None
    kept: Callable[[nn.Module], nn.Module] = _same
    penalty: Callable[[nn.Module, Tensor], nn.Module] | None = None
    penalty_rate: Callable[[S], float] = _one
    learns: tuple[str, ...] = ()
    learns_rate: Callable[[S], float] = _one
    gain: Callable[[nn.Module], float] = _one
    texts: Callable[[S], Sequence[str]] = _nothing
    defaults: Callable[[bool], Mapping[str, Any]] = _no_defaults

    @property
    def has_settings(self) -> bool:
        """Whether there is a block of settings with its name."""
        return bool(self.settings.model_fields)
