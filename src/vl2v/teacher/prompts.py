"""Prompt templates, and the text head that is computed from prompt embeddings."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from vl2v.errors import ConfigError
from vl2v.pretrained.open_clip import import_open_clip
from vl2v_runtime.regular import read_text

if TYPE_CHECKING:
    from torch import Tensor

NAMED = {"photo": ("a photo of a {}",), "name": ("{}",)}
CLIP_80 = "clip-80"
SHAPE = "one placeholder, {} or {class}, for the class name"


def is_file(choice: object) -> TypeGuard[str]:
    """Whether prompts are given as the path of a file, and not as templates or the name of a set."""
    return isinstance(choice, str) and choice not in (*NAMED, CLIP_80) and "{" not in choice


def load_templates(choice: str | Sequence[str]) -> tuple[str, ...]:
    """Load prompt templates from a name, a template or a file.

    Args:
        choice: ``photo`` ("a photo of a {}", as in the paper), ``name`` ("{}"), ``clip-80`` (the eighty ImageNet
            templates published with CLIP), a template, several templates, or the path of a text file with one template
            per line (empty lines and lines that begin with # are ignored).

    Returns:
        One or more templates, each with one placeholder.

    Raises:
        ConfigError: if a template does not have exactly one valid placeholder; for a file, it states the line.
        MissingExtraError: if ``clip-80`` is requested without open_clip.
    """
    if not isinstance(choice, str):
        if not choice:
            step = "pass a template such as 'a photo of a {}'"
            raise ConfigError("No prompt template.", expected="at least one", found="an empty list", next_step=step)
        return tuple(_checked(template, f"template {i}") for i, template in enumerate(choice, 1))
    if choice in NAMED:
        return NAMED[choice]
    if choice == CLIP_80:
        return tuple(
            template("{}") for template in import_open_clip("The prompt set clip-80").OPENAI_IMAGENET_TEMPLATES
        )
    if "{" in choice or "}" in choice:
        return (_checked(choice, "the template"),)
    return _from_file(Path(choice))


def _from_file(path: Path) -> tuple[str, ...]:
    names = ", ".join([*NAMED, CLIP_80])
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"Unknown prompts '{path}'.",
            expected=f"one of {names}, a template with {{}}, or a text file of templates",
            found=getattr(error, "strerror", None) or str(error),
            next_step='e.g. --prompts "a sketch of a {}"',
        ) from error
    numbered = [(i, line.strip()) for i, line in enumerate(lines, 1)]
    templates = [_checked(line, f"{path}, line {i}") for i, line in numbered if line and not line.startswith("#")]
    if not templates:
        step = "write lines such as a photo of a {}"
        raise ConfigError(f"{path} contains no template.", expected="one per line", found="none", next_step=step)
    return tuple(templates)


def _checked(template: str, where: str) -> str:
    try:
        fields = [(name, spec, how) for _, name, spec, how in string.Formatter().parse(template) if name is not None]
        broken = "" if len(fields) == 1 and fields[0] in (("", "", None), ("class", "", None)) else template
    except ValueError as error:
        broken = f"{template} ({error})"
    if broken:
        raise ConfigError(f"{where} is not valid.", expected=SHAPE, found=broken, next_step="e.g. a photo of a {}")
    return template


def render(template: str, phrase: str) -> str:
    """Insert the name of a class into a template, with "an" instead of "a" where English requires it.

    Args:
        template: a template with one placeholder.
        phrase: name of the class, e.g. ``elephant``.
    """
    parts = list(string.Formatter().parse(template))
    placeholder = next(i for i, (_, field, _, _) in enumerate(parts) if field is not None)
    before, after = ("".join(part[0] for part in some) for some in (parts[: placeholder + 1], parts[placeholder + 1 :]))
    if re.search(r"(^|\W)a $", before, flags=re.IGNORECASE) and _engine().a(phrase).split(" ")[0] == "an":
        before = f"{before[:-1]}n "
    return f"{before}{phrase}{after}"


@cache
def _engine() -> Any:
    with _without_type_checks():
        import inflect

    return inflect.engine()


@contextmanager
def _without_type_checks() -> Iterator[None]:
    """Disable typeguard, which would instrument inflect for seconds at the import, until the block ends."""
    try:
        import typeguard
    except ImportError:  # versions of inflect that do not use it
        yield
        return
    real = typeguard.typechecked
    typeguard.typechecked = lambda target: target  # type: ignore[assignment]
    try:
        yield
    finally:
        typeguard.typechecked = real


def text_head(prompt_embeddings: Tensor) -> Tensor:
    """Average the prompt embeddings of each class to a unit vector, which gives the zero-shot head [K, D].

    Embeddings are normalised, averaged over templates and normalised again, as in CLIP.

    Args:
        prompt_embeddings: [K, T, D] floating, embeddings of K classes with T templates.

    Raises:
        ValueError: if the shape is wrong.
    """
    import torch
    import torch.nn.functional as F

    prompt_embeddings = torch.as_tensor(prompt_embeddings)
    if prompt_embeddings.ndim != 3:
        raise ValueError(f"expected [K, T, D], found {list(prompt_embeddings.shape)}")
    return F.normalize(F.normalize(prompt_embeddings, dim=-1).mean(dim=1), dim=-1)
