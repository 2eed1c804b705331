"""Build a backbone from its recipe, which may come from an untrusted source.

A recipe contains the name of a model of an installed package and a few plain options. It cannot contain a file, an
address or a class. No weights are loaded here: they come from the safetensors file of the student.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, ValidationError
from torch import Tensor, nn

from vl2v.errors import StudentError
from vl2v.pretrained.open_clip import image_tower, import_open_clip
from vl2v.strict import OneFault, described

CUSTOM_MODULE = "The backbone of this student is a custom module"  # a message that `vl2v export` extends
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}")  # no scheme, no path
MAX_SIDE = 2048  # pixels
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Share = Annotated[float, Field(ge=0, lt=1)]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Recipe:
    """Description from which an architecture can be rebuilt, without weights.

    Attributes:
        kind: ``timm``, ``open_clip`` or ``module`` (a custom module, which only the user can build).
        options: further arguments of the constructor, from `TimmOptions` or `OpenClipOptions`.
    """

    kind: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)


class _Options(OneFault):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TimmOptions(_Options):
    """Arguments of `timm.create_model` that a recipe may set."""

    img_size: Side | Annotated[tuple[Side, Side], Field(strict=False)] | None = None
    dynamic_img_size: bool | None = None
    dynamic_img_pad: bool | None = None
    global_pool: Literal["", "avg", "avgmax", "catavgmax", "max", "map", "token"] | None = None
    drop_rate: Share | None = None
    drop_path_rate: Share | None = None


class OpenClipOptions(_Options):
    """Arguments of `open_clip.create_model` that a recipe may set."""

    force_quick_gelu: bool | None = None
    force_image_size: Side | None = None
    force_patch_dropout: Share | None = None


OPTIONS: dict[str, type[_Options]] = {"timm": TimmOptions, "open_clip": OpenClipOptions}


def _checked_options(recipe: Recipe) -> dict[str, Any]:
    """Check that a recipe describes a model of an installed package, and return its options."""
    if recipe.kind == "module":
        raise StudentError(
            f"{CUSTOM_MODULE} ({recipe.name[:200]}).",
            expected="that module",
            found="only its weights",
            next_step="Student.load(folder, backbone=your_module)",
        )
    if recipe.kind not in OPTIONS:
        raise _refused(recipe, f"a backbone of one of the kinds {', '.join(OPTIONS)}", f"the kind {recipe.kind[:40]!r}")
    try:
        options = OPTIONS[recipe.kind].model_validate(recipe.options).model_dump(exclude_none=True)
    except ValidationError as error:
        expected = f"options among {', '.join(OPTIONS[recipe.kind].model_fields)}"
        raise _refused(recipe, expected, described(error)) from error
    if not NAME.fullmatch(recipe.name) or not _is_known(recipe):
        raise _refused(
            recipe, f"the name of a model of {recipe.kind}, without a scheme or a path", repr(recipe.name[:200])
        )
    return options


def build(recipe: Recipe, weights: Shapes | None = None) -> nn.Module:
    """Build the architecture of a recipe, with random weights.

    Args:
        weights: shape of every tensor that will be loaded into the architecture. The shapes are compared before memory
            for the architecture is allocated. None skips the comparison.

    Raises:
        StudentError: if the backbone is a custom module, the kind is unknown, the name has a scheme or is a path, an
            option is not allowed, the model cannot be built, or the shapes differ.
        MissingExtraError: if the recipe needs a package that is not installed.
    """
    options = _checked_options(recipe)
    if weights is not None and (outline := _outline(recipe, options)) is not None:
        compare_shapes(f"{recipe.kind}:{recipe.name}", outline, weights)
    return _construct(recipe, options)


def compare_shapes(what: str, required: Shapes, actual: Shapes) -> None:
    """Check that the shapes of weights are those of an architecture.

    Args:
        what: the architecture, for the message.
        required: shapes of the architecture, by name.
        actual: shapes of the weights, by name.

    Raises:
        StudentError: for the first difference.
    """
    for name in [*required, *(name for name in actual if name not in required)]:
        if required.get(name) == actual.get(name):
            continue
        expected, found = (
            f"{name[:200]} of shape {list(shapes[name])}" if name in shapes else f"no {name[:200]}"
            for shapes in (required, actual)
        )
        step = "copy the whole folder again from its source"
        problem = f"The weights cannot be used: they are not those of {what}."
        raise StudentError(problem, expected=expected, found=found, next_step=step)


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor, by name."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _is_known(recipe: Recipe) -> bool:
    if recipe.kind == "open_clip":
        return recipe.name in import_open_clip("This student").list_models()
    import timm

    try:
        return bool(timm.is_model(recipe.name.partition(".")[0])) and (
            "." not in recipe.name or timm.get_pretrained_cfg(recipe.name) is not None
        )
    except RuntimeError:  # a tag that this version of timm does not know
        return False


def _outline(recipe: Recipe, options: Mapping[str, Any]) -> Shapes | None:
    """Return the shapes of an architecture without allocating it, or None if its constructor needs real tensors."""
    try:
        with torch.device("meta"):
            return shapes_of(_construct(recipe, options).state_dict())
    except StudentError:
        return None


def _construct(recipe: Recipe, options: Mapping[str, Any]) -> nn.Module:
    try:
        if recipe.kind == "open_clip":
            module: nn.Module = image_tower(recipe.name, **options)
        else:
            import timm

            module = timm.create_model(recipe.name, **options, num_classes=0, pretrained=False)
        return module
    except Exception as error:  # a constructor may raise anything for incompatible options
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise _refused(recipe, "options that this model supports", reason) from error


def _refused(recipe: Recipe, expected: str, found: str) -> StudentError:
    return StudentError(
        f"The backbone {recipe.kind[:40]}:{recipe.name[:200]} cannot be built.",
        expected=expected,
        found=found,
        next_step="copy student.json again from its source, or pass the network: Student.load(..., backbone=...)",
    )
