"""Load open_clip models for teachers and students: `<model>/<pretrained tag or file>`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl2v.errors import MissingExtraError, Vl2vError


@dataclass(frozen=True)
class ClipSpec:
    """A model of open_clip.

    Attributes:
        model: the architecture, e.g. ``ViT-B-16`` or ``hf-hub:org/name``.
        pretrained: a tag such as ``openai``, the path of a checkpoint, or empty for a hub model.
    """

    model: str
    pretrained: str

    @classmethod
    def parse(cls, text: str) -> ClipSpec:
        """Parse ``ViT-B-16/openai``, ``ViT-B-16//data/clip.safetensors`` or ``hf-hub:org/name``."""
        if text.startswith("hf-hub:"):
            return cls(text, "")
        model, _, pretrained = text.partition("/")
        return cls(model, pretrained)

    @property
    def file(self) -> Path | None:
        """The local checkpoint, or None if `pretrained` is a tag."""
        path = Path(self.pretrained)
        return path if self.pretrained and (path.is_file() or path.suffix) else None


def import_open_clip(feature: str) -> Any:
    """Import open_clip.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise MissingExtraError(feature, "open-clip", "open_clip_torch") from error
    return open_clip


def wants_quick_gelu(spec: ClipSpec) -> bool:
    """Whether the weights of a tag were trained with QuickGELU, as those of OpenAI. open_clip only warns."""
    if spec.file or not spec.pretrained or spec.model.startswith("hf-hub:"):
        return False
    config = import_open_clip("An open_clip model").get_pretrained_cfg(spec.model, spec.pretrained)
    return bool(config.get("quick_gelu"))


def builtin_name(name: str, error: type[Vl2vError]) -> str:
    """Return the name of the built-in architecture of a model, which can be built without the hub.

    Args:
        name: a built-in architecture, or ``hf-hub:org/name``, whose image encoder is compared with the built-in ones.
        error: exception type if there is none.
    """
    open_clip = import_open_clip("An open_clip model")
    if not name.startswith("hf-hub:"):
        return name
    settings = _tower_settings(open_clip.get_model_config(name))
    for built_in in open_clip.list_models():
        if _tower_settings(open_clip.get_model_config(built_in)) == settings:
            return str(built_in)
    raise error(
        f"open_clip:{name} has a custom image encoder.",
        expected="the architecture of a built-in open_clip model, so that the student loads without the hub",
        found="another one",
        next_step="use it only as teacher, or pass its image encoder as your own module (vl2v.distill)",
    )


def image_tower(name: str, **options: Any) -> Any:
    """Build the image encoder of a built-in model with random weights. No text encoder is built and no file is opened.

    Args:
        name: one of `open_clip.list_models()`.
        options: ``force_quick_gelu``, ``force_image_size`` and ``force_patch_dropout`` of `open_clip.create_model`.
    """
    from open_clip.model import _build_vision_tower

    config = import_open_clip("An open_clip model").get_model_config(name)
    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    for option, key in (("force_image_size", "image_size"), ("force_patch_dropout", "patch_dropout")):
        if option in options:
            vision[key] = options[option]
    quick_gelu = bool(options.get("force_quick_gelu") or config.get("quick_gelu"))
    return _build_vision_tower(config["embed_dim"], vision, quick_gelu)


def _tower_settings(config: Any) -> Any:
    """Return the settings that determine an image encoder, or None without a configuration."""
    if not config:
        return None
    vision = {key: value for key, value in config["vision_cfg"].items() if key != "timm_model_pretrained"}
    return config["embed_dim"], vision, bool(config.get("quick_gelu"))


def ensure_known(spec: ClipSpec, error: type[Vl2vError]) -> None:
    """Check the names of a model and its weights without loading anything.

    Args:
        error: exception type if one of them is unknown, or a checkpoint is missing.

    Raises:
        MissingExtraError: if open_clip is not installed.
    """
    open_clip = import_open_clip("An open_clip model")
    name = spec.model
    if not name.startswith("hf-hub:") and name not in open_clip.list_models():
        tags = ", ".join(open_clip.list_models()[:8])
        step = "the format is open_clip:<model>/<pretrained>, e.g. open_clip:ViT-B-16/openai"
        raise error(f"Unknown open_clip model '{name}'.", expected=f"one of {tags}, ...", found=name, next_step=step)
    if not spec.pretrained and not name.startswith("hf-hub:"):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "a local checkpoint"
        raise error(
            f"open_clip:{name} specifies no weights.",
            expected=f"one of {tags}",
            found="nothing after the model",
            next_step=f"open_clip:{name}/<tag>, or a checkpoint file instead of the tag",
        )
    if spec.file and not spec.file.is_file():
        raise error(f"{spec.file} is missing.", expected="a checkpoint", found="no file", next_step="check the path")
    known = [] if spec.file or not spec.pretrained else open_clip.list_pretrained_tags_by_model(name)
    if spec.pretrained and not spec.file and not open_clip.get_pretrained_cfg(name, spec.pretrained):
        raise error(
            f"Unknown weights '{spec.pretrained}' of open_clip:{name}.",
            expected=f"one of {', '.join(known)}" if known else "a local checkpoint, since none are published",
            found=spec.pretrained,
            next_step=f"open_clip:{name}/<tag>, or the path of a checkpoint instead of the tag",
        )


def create(spec: ClipSpec, error: type[Vl2vError]) -> tuple[Any, Any]:
    """Build a model with its weights in eval mode, and its evaluation transform.

    Args:
        error: exception type if it cannot be built.
    """
    ensure_known(spec, error)
    open_clip, name = import_open_clip("An open_clip model"), spec.model
    try:
        model, _, transform = open_clip.create_model_and_transforms(
            name,
            pretrained=spec.pretrained or None,
            force_quick_gelu=wants_quick_gelu(spec),
            weights_only=True,
        )
    except Exception as problem:  # hubs, sockets and loaders raise many types
        raise error(
            f"open_clip:{name}/{spec.pretrained} could not be opened.",
            expected="weights from the hub, or a local checkpoint of this architecture",
            found=" ".join(f"{type(problem).__name__}: {problem}".split())[:300],
            next_step="check the network and the tag, or use a local file: open_clip:<model>/<file>",
        ) from problem
    return model.eval(), transform
