"""Layers of the student that are not trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from timm.models import group_parameters
from torch import nn


@contextmanager
def frozen(module: nn.Module, share: float) -> Iterator[None]:
    """Freeze the first layers in a block, see `freeze`. After it, gradients are switched on as they were before."""
    before = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    freeze(module, share)
    try:
        yield
    finally:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(before.get(name, parameter.requires_grad))


def freeze(module: nn.Module, share: float) -> int:
    """Exclude the first groups of layers of a network from training, in place; return the number of groups.

    The groups are timm's, which learning rates that decay by layer use as well: the stem, then the stages of a
    convolutional network or the blocks of a transformer.

    Args:
        module: the network. Only the gradients of its parameters are switched off. A network without known groups, such
            as most networks that are not from timm, is not changed.
        share: in [0, 1). The first groups are frozen while they have at most this share of the parameters.
    """
    matcher = getattr(module, "group_matcher", None)
    if not share or matcher is None:
        return 0
    try:
        names_by_group = group_parameters(module, matcher(coarse=True))
    except Exception:  # a few networks define no groups of stages
        return 0
    groups = [[module.get_parameter(name) for name in names_by_group[group]] for group in sorted(names_by_group)]
    limit = share * sum(parameter.numel() for parameter in module.parameters())
    groups_frozen, count = 0, 0
    for group in groups:
        count += sum(parameter.numel() for parameter in group)
        if count > limit:
            break
        groups_frozen += 1
        for parameter in group:
            parameter.requires_grad_(False)
    return groups_frozen
