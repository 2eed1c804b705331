"""What makes a method, so that all of them share loop, data, weight averaging and selection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from vl2v.method.loop import Objective
from vl2v.method.names import TITLES, MethodName

Classifier = Literal["cosine", "linear"]


@dataclass(frozen=True)
class RiseTerms:
    """What RISE's loss is made of.

    Attributes:
        temperature: of the teacher's zero-shot answers, above 0.
        teacher_share: part of the loss on classes that comes from the teacher, in [0, 1]; the rest is cross-entropy.
        distance: weight of the distances to the class's text, at least 0.
    """

    temperature: float = 3.0
    teacher_share: float = 0.9
    distance: float = 1.0


@dataclass(frozen=True)
class Vl2vTerms:
    """What the recipe's loss is made of, beside the dual loss.

    Attributes:
        kl_weight: of the divergence from the teacher's zero-shot answers that the features follow, at least 0.
        temperature: of that divergence, and of the one that the student's logit scale follows; above 0.
    """

    kl_weight: float = 0.0
    temperature: float = 2.0


@dataclass(frozen=True)
class Context:
    """What an objective may need beside its batch.

    Attributes:
        head: [K, D] float32, the text head, rows of length one.
        logit_scale: s, the teacher's.
        image_weight: lambda of the dual loss, in [0, 1].
        temperature: of naive distillation, above 0.
        teacher_share: how much of naive distillation's loss comes from the teacher, in [0, 1].
        rise: RISE's terms.
        anchors: [K, A, D], further texts of every class, for RISE's relative distance; None leaves it out.
        oracle_weight: of MIRO's regularisation, at least 0.
        vl2v: the recipe's terms.
    """

    head: Tensor
    logit_scale: float
    image_weight: float = 0.5
    temperature: float = 2.0
    teacher_share: float = 0.5
    rise: RiseTerms = field(default_factory=RiseTerms)
    anchors: Tensor | None = None
    oracle_weight: float = 0.1
    vl2v: Vl2vTerms = field(default_factory=Vl2vTerms)


@dataclass(frozen=True)
class Method:
    """A way to train a student, in up to two stages with one objective.

    The first stage trains the layer after the backbone on kept features, the backbone standing still; the second one
    trains the backbone.

    What the objective gets is a row per image: the output of that layer, and behind it whatever else the method
    computes of an image in training. Where the classifier is linear, the first K columns are the logits, and they
    alone remain in the saved student.

    Attributes:
        name: as in a run's settings.
        stages: what the two stages are called.
        classifier: ``cosine`` if that layer maps into the teacher's space and the text embeddings are the head,
            ``linear`` if it gives the logits itself.
        objective: gives what both stages minimise.
        first_stage: whether the first stage belongs to the method; without it, it has no steps unless asked for.
        trains_layer: whether the second stage trains that layer too.
        learns: names of those parameters of that layer that have a learning rate of their own in both stages, and that
            the second stage trains even where the rest of the layer stands still.
        gain: what the trained layer multiplies the teacher's logit scale with, above 0.
        asks_teacher: whether training needs the teacher's image vectors.
        needs_labels: whether it learns nothing of images without a label, or not what it is named for.
        forbids_first_stage: whether a first stage would make another method of it.
        trains_backbone: whether the second stage trains the backbone; otherwise it runs on kept features too.
        image_weight: lambda of the dual loss, where the method fixes it.
        takes_encoder: whether it makes sense for a student that is the teacher's own encoder.
        layer: builds that layer from F and the [K, D] text head; None is one linear layer.
        kept: what of the trained layer the student keeps.
        penalty: builds what regularises the second stage, from the pretrained backbone and a [2, 3, S, S] sample: a
            module that takes (backbone, inputs) and gives the backbone's features [B, F] and a penalty [B]. What it
            trains is saved to resume from and is not part of the student.
    """

    name: MethodName
    stages: tuple[str, str]
    classifier: Classifier
    objective: Callable[[Context], Objective]
    first_stage: bool
    trains_layer: bool
    asks_teacher: bool
    needs_labels: bool = True
    forbids_first_stage: bool = False
    trains_backbone: bool = True
    image_weight: float | None = None
    takes_encoder: bool = True
    layer: Callable[[int, Tensor], nn.Module] | None = None
    kept: Callable[[nn.Module], nn.Module] = lambda layer: layer
    penalty: Callable[[nn.Module, Tensor], nn.Module] | None = None
    learns: tuple[str, ...] = ()
    gain: Callable[[nn.Module], float] = lambda layer: 1.0

    @property
    def title(self) -> str:
        """What a table calls it."""
        return TITLES[self.name]
