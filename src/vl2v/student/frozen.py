"""Layers of the student that are not trained."""

from __future__ import annotations

from timm.models import group_parameters

from vl2v.errors import StudentError
from vl2v.student.backbones import Backbone


def freeze(backbone: Backbone, groups: int) -> None:
    """Exclude the first groups of layers of a backbone from training, in place.

    The groups are timm's: the stem, then the stages of a convolutional network or the blocks of a transformer, as for
    learning rates that decay by layer.

    Args:
        backbone: f. Only the gradients of its parameters are switched off.
        groups: number of groups from the input on; 0 changes nothing.

    Raises:
        StudentError: if the network has no such groups, or no group is left to train.
    """
    if not groups:
        return
    matcher = getattr(backbone.module, "group_matcher", None)
    step = "set distill.freeze to 0"
    if matcher is None:
        raise StudentError(
            f"The first layers of the student {backbone.recipe.name} cannot be frozen.",
            expected="a network of timm, whose groups of layers are known",
            found=f"distill.freeze {groups} and {type(backbone.module).__name__}",
            next_step=step,
        )
    named = group_parameters(backbone.module, matcher(coarse=True))
    if groups >= len(named):
        raise StudentError(
            f"All layers of the student {backbone.recipe.name} would be frozen.",
            expected=f"distill.freeze from 0 to {len(named) - 1}, since the student has {len(named)} groups of layers",
            found=str(groups),
            next_step=step.replace("0", f"{len(named) - 1} or less"),
        )
    for group in sorted(named)[:groups]:
        for name in named[group]:
            backbone.module.get_parameter(name).requires_grad_(False)
