"""Definition of a training method. All methods share the loop, the data, weight averaging and selection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from vl2v.strict import Strict

if TYPE_CHECKING:  # a quote needs methods, but not torch, which takes seconds to import
    from torch import Tensor, nn

    from vl2v.method.loop import Objective

Classifier = Literal["cosine", "linear"]


class Settings(Strict):
    """Base class of the settings of a method. A run's settings have a block with its name."""


class NoSettings(Settings):
    """Settings of a method without settings. The settings of a run have no block for it."""


S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Context(Generic[S]):
    """Values that an objective needs in addition to the batch.

    Attributes:
        head: [K, D] float32, the text head, with rows of length one.
        logit_scale: s, the logit scale of the teacher.
        image_weight: lambda of the dual loss, in [0, 1].
        texts: [K, A, D] float32, the text embeddings of every class in the A templates of `Method.texts`. None if there
            are no such templates.
    """

    head: Tensor
    logit_scale: float
    settings: S
    image_weight: float = 0.5
    texts: Tensor | None = None


@dataclass(frozen=True)
class Method(Generic[S]):
    """A way to train a student, in up to two stages with one objective.

    The first stage trains the layer after the backbone on cached features, while the backbone is frozen. The second
    stage trains the backbone.

    The objective receives one row per image: the output of that layer, followed by any other columns that the method
    computes in training. If the classifier is linear, the first K columns are the logits. The saved student has only
    the logits.

    Attributes:
        name: name in the settings of a run, in the registry, and of the entry point.
        title: name in tables and reports.
        settings: class of the method's settings, or `NoSettings`. Every field needs a default.
        classifier: ``cosine`` if the layer maps to the teacher's embedding space and the text embeddings are the head,
            ``linear`` if the layer returns the logits.
        objective: returns the loss function that both stages minimise.
        first_stage: whether the method has a first stage by default. Otherwise that stage has no steps unless the user
            sets them.
        trains_layer: whether the second stage also trains the layer.
        queries_teacher: whether training needs the teacher's image embeddings.
        needs_labels: whether the method cannot be used with images without labels.
        partial_queries: whether labelled images may lack an image embedding. The objective then leaves out the rows for
            which `Batch.queried` is false, or their zero embeddings have no effect on it.
        forbids_first_stage: whether the first stage must not have any steps, because the method would be another one.
        trains_backbone: whether the second stage trains the backbone. Otherwise it also uses cached features.
        image_weight: lambda of the dual loss, if the method fixes it.
        free_image_weight: whether the objective is the dual loss with the lambda of the run. Then `image_weight_end`
            can change lambda from step to step, `align.solver: ridge` can solve the first stage, and `distill.refit`
            can fit the projection again.
        supports_encoder: whether the student can be the teacher's own encoder.
        layer: builds the layer from F and the [K, D] text head. None is one linear layer.
        saved_layer: returns the part of the trained layer that is saved in the student.
        penalty: builds the regularisation of the second stage from the pretrained backbone and a [2, 3, S, S] sample.
            It is a module that takes (backbone, inputs) and returns the backbone's features [B, F] and a penalty [B].
            Its trained parameters are saved for resuming and are not part of the student.
        penalty_rate: learning rate of the penalty's parameters relative to that of the second stage, above 0.
        extra_parameters: names of parameters of the layer with a learning rate of their own in both stages. The second
            stage trains them even if the rest of the layer is frozen.
        extra_rate: learning rate of these parameters, above 0.
        gain: factor by which the trained layer multiplies the teacher's logit scale, above 0.
        texts: templates of further texts, such as ``a sketch of a {}``. They are bought for every class, and
            `Context.texts` contains their embeddings.
        defaults: values of settings that the user left out or set to None. The argument is whether unlabelled images
            are used for training.
        closed_set_defaults: further defaults if all images without labels show one of the classes: with
            `data.rest_unlabelled`, or with `data.classes`, but not with `data.unlabelled`.
        pseudo_labels: probability above which the teacher's prediction is the label of an image without one in the dual
            loss; 1 for never. Without such labels, there is no text term if no image has a label, and lambda is 1.
    """

    name: str
    title: str
    settings: type[S]
    stages: tuple[str, str]
    classifier: Classifier
    objective: Callable[[Context[S]], Objective]
    first_stage: bool
    trains_layer: bool
    queries_teacher: bool
    needs_labels: bool = True
    partial_queries: bool = False
    forbids_first_stage: bool = False
    trains_backbone: bool = True
    image_weight: float | None = None
    free_image_weight: bool = False
    supports_encoder: bool = True
    layer: Callable[[int, Tensor], nn.Module] | None = None
    saved_layer: Callable[[nn.Module], nn.Module] = lambda layer: layer
    penalty: Callable[[nn.Module, Tensor], nn.Module] | None = None
    penalty_rate: Callable[[S], float] = lambda _: 1.0
    extra_parameters: tuple[str, ...] = ()
    extra_rate: Callable[[S], float] = lambda _: 1.0
    gain: Callable[[nn.Module], float] = lambda _: 1.0
    texts: Callable[[S], Sequence[str]] = lambda _: ()
    defaults: Callable[[bool], Mapping[str, Any]] = lambda _: {}
    closed_set_defaults: Mapping[str, Any] = field(default_factory=dict)
    pseudo_labels: Callable[[S], float] = lambda _: 1.0

    @property
    def has_settings(self) -> bool:
        """Whether the settings of a run have a block for this method."""
        return bool(self.settings.model_fields)
