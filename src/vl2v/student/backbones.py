"""Backbones of students from timm, a local checkpoint, open_clip, or any nn.Module."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vl2v.errors import StudentError
from vl2v.pretrained.open_clip import ClipSpec, builtin_name, create, wants_quick_gelu
from vl2v.pretrained.open_clip import ensure_known as ensure_clip_known
from vl2v.student.architectures import Recipe as Recipe
from vl2v.student.depthwise import pad_depthwise
from vl2v.student.preprocess import Preprocess
from vl2v.tensor_files import read_tensors
from vl2v_runtime.fits import SQUASH, Fit

CHECKPOINT = "use a .safetensors file, or a .pth or .pt file that contains a plain state dict"
EXPECTED = "timm:<name>, timm:<name>@<checkpoint>, offline:, or teacher"
OFFLINE = "tf_efficientnet_lite0"  # its weights come from a pip package


@dataclass(frozen=True)
class Backbone:
    """A pretrained feature extractor f: [B, 3, S, S] -> [B, F].

    Attributes:
        module: f.
        features: F.
        preprocess: preprocessing that the weights expect.
        recipe: description from which it can be rebuilt.
        pretrained_size: side length in pixels of the images that f was pretrained with; None if unknown.
    """

    module: nn.Module
    features: int
    preprocess: Preprocess
    recipe: Recipe
    pretrained_size: int | None = None

    @property
    def parameter_count(self) -> int:
        """Number of parameters of f."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def accepts(self, size: int) -> bool:
        """Return whether f also maps images of another side length in pixels."""
        try:
            _features_of_zeros(self.module, 1, size)
        except Exception:  # a user's module may raise anything
            return False
        return True


def ensure_known(spec: str) -> None:
    """Check the name of a student and its packages without loading weights.

    Raises:
        StudentError: if it is unknown, or a checkpoint is missing.
        MissingExtraError: if it needs a package that is not installed.
    """
    kind, colon, rest = spec.partition(":")
    if kind == "timm" and rest:
        name, _, file = rest.partition("@")
        _timm_config(name)
        if file and not Path(file).is_file():
            raise _no_checkpoint(Path(file))
    elif kind == "offline" and colon and not rest:
        from vl2v.pretrained.packaged import weights_folder

        weights_folder("lite0")
    elif kind == "open_clip" and rest:
        ensure_clip_known(ClipSpec.parse(rest), StudentError)
    else:
        raise StudentError(
            f"Unknown student '{spec}'.", expected=EXPECTED, found=spec, next_step="e.g. timm:resnet50.tv_in1k"
        )


def load_backbone(
    spec: str,
    *,
    size: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    fit: Fit = SQUASH,
) -> Backbone:
    """Build a pretrained backbone from its name.

    Args:
        spec: ``timm:NAME`` (weights from the hub), ``timm:NAME@FILE`` (a local .safetensors, .pth or .pt checkpoint,
            with or without its classifier), ``offline:`` (an EfficientNet-Lite0 whose ImageNet weights come from a pip
            package), or ``open_clip:MODEL/PRETRAINED`` (the image encoder of this model).
        size: side length of the input in pixels. None uses the size of the pretrained weights.
        mean: mean of each channel. None uses that of the pretrained weights.
        std: standard deviation of each channel. None uses that of the pretrained weights.
        fit: how an image becomes a square, see `vl2v_runtime.imaging.square`.

    Raises:
        StudentError: if the backbone cannot be built, or its output is not [B, F].
        MissingExtraError: if the backbone needs a package that is not installed.
    """
    ensure_known(spec)
    kind, _, rest = spec.partition(":")
    if kind == "timm":
        name, _, file = rest.partition("@")
        module, recipe, preprocess = _pretrained(name, size, read_checkpoint(Path(file)) if file else None, file)
    elif kind == "offline":
        from vl2v.pretrained.packaged import lite0_state

        module, recipe, preprocess = _pretrained(OFFLINE, size, lite0_state(), "the package's weights")
    else:
        module, recipe, preprocess = _open_clip(rest)
    pretrained = preprocess
    preprocess = Preprocess(size or pretrained.size, mean or pretrained.mean, std or pretrained.std, fit)
    return replace(from_module(module, preprocess, recipe), pretrained_size=pretrained.size)


def from_module(module: nn.Module, preprocess: Preprocess, recipe: Recipe | None = None) -> Backbone:
    """Use any module that maps [B, 3, S, S] to [B, F]. F is determined with a batch of zeros.

    Raises:
        StudentError: if the output is not a floating-point [B, F].
    """
    pad_depthwise(module)
    recipe = recipe or Recipe("module", type(module).__qualname__)
    try:
        output = _features_of_zeros(module, 2, preprocess.size)
    except Exception as error:  # a user's module may raise anything
        raise StudentError(
            f"The student {recipe.name} does not accept a batch of images.",
            expected=f"input {[2, 3, preprocess.size, preprocess.size]}",
            found=" ".join(str(error).split())[:300],
            next_step="set --size to a size that the backbone supports",
        ) from error
    if not isinstance(output, Tensor) or output.ndim != 2 or output.shape[0] != 2 or not output.is_floating_point():
        found = f"shape {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise StudentError(
            f"The student {recipe.name} has no feature dimension.",
            expected="one feature vector per image, [B, F] floating point",
            found=found,
            next_step="choose a backbone with pooled features, or pool and flatten before the output",
        )
    return Backbone(module, int(output.shape[1]), preprocess, recipe)


@torch.no_grad()
def _features_of_zeros(module: nn.Module, count: int, size: int) -> Any:
    training, device = module.training, next((p.device for p in module.parameters()), torch.device("cpu"))
    try:
        return module.eval()(torch.zeros(count, 3, size, size, device=device))
    finally:
        module.train(training)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running code from the file.

    Raises:
        StudentError: if the file is missing or contains anything but named tensors.
    """
    if not path.is_file():
        raise _no_checkpoint(path)
    step = CHECKPOINT
    try:
        if path.suffix == ".safetensors":
            return read_tensors(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise many kinds for broken files
        found = " ".join(str(error).split())[:200]
        raise StudentError(f"{path} cannot be read.", expected="weights", found=found, next_step=step) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise StudentError(
            f"{path} cannot be used.", expected="a state dict", found=type(content).__name__, next_step=step
        )
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _no_checkpoint(path: Path) -> StudentError:
    return StudentError(f"{path} is missing.", expected="a checkpoint", found="no such file", next_step=CHECKPOINT)


def _timm_config(name: str) -> Any:
    """Return the configuration of the pretrained weights of a timm model.

    Raises:
        StudentError: if the model or its weights are unknown.
    """
    import timm

    if not timm.is_model(name.split(".")[0]):
        close = timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:6]
        step = f"timm has {', '.join(close)}" if close else "see timm.list_models()"
        raise StudentError(f"Unknown timm model '{name}'.", expected=EXPECTED, found=name, next_step=step)
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # an unknown tag; for an architecture without tags, the result is None
        config = None
    if config is None:
        tags = ", ".join(timm.list_pretrained(f"{name.split('.')[0]}.*")) or "none"
        raise StudentError(
            f"Unknown timm weights '{name}'.", expected=f"one of {tags}", found=name, next_step="choose one of them"
        )
    return config


def _pretrained(
    name: str, size: int | None, state: dict[str, Tensor] | None, file: str
) -> tuple[nn.Module, Recipe, Preprocess]:
    """Build a timm model with the weights of the hub, or with `state`, which was read from `file`."""
    import timm

    data_config = asdict(_timm_config(name))
    options: dict[str, Any] = {}
    if size and size != data_config["input_size"][-1] and data_config.get("fixed_input_size"):
        options["img_size"] = size
    source = {"pretrained_cfg_overlay": {"state_dict": state}} if state is not None else {}
    try:
        module: nn.Module = timm.create_model(name, num_classes=0, pretrained=True, **options, **source)
    except Exception as error:  # hubs, sockets and loaders raise many kinds
        raise StudentError(
            f"The weights of timm:{name} could not be loaded.",
            expected="a checkpoint of this architecture" if file else "weights from the hub",
            found=" ".join(str(error).split())[:300],
            next_step="check the file" if file else f"check the network, or use a local file: timm:{name}@<file>",
        ) from error
    if state is not None and (missing := [key for key in module.state_dict() if key not in state]):
        raise StudentError(
            f"{file} does not fit {name}.",
            expected=f"every weight of {name}",
            found=f"{len(missing)} of them missing, e.g. {missing[0]}",
            next_step="use the architecture that the checkpoint was trained with",
        )
    return (
        module,
        Recipe("timm", name, options),
        Preprocess(data_config["input_size"][-1], data_config["mean"], data_config["std"]),
    )


def _open_clip(text: str) -> tuple[nn.Module, Recipe, Preprocess]:
    spec = ClipSpec.parse(text)
    model, _ = create(spec, StudentError)
    visual: Any = model.visual
    size = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
    cfg = visual.preprocess_cfg
    options = {"force_quick_gelu": True} if wants_quick_gelu(spec) else {}
    return (
        visual,
        Recipe("open_clip", builtin_name(spec.model, StudentError), options),
        Preprocess(int(size), tuple(cfg["mean"]), tuple(cfg["std"])),
    )
