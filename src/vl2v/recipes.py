"""Recipes: named sets of default settings."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, Literal

from vl2v.method.registry import METHODS
from vl2v.nested import merge

RecipeName = Literal["paper", "ood"]
PAPER: RecipeName = "paper"  # the defaults of the settings themselves
DEFAULT: RecipeName = "ood"  # default of `vl2v distill` and `vl2v quote`
LEAST_STEPS = 300  # minimum number of steps to which `distill.passes` limits Distill
VALIDATIONS = 12  # minimum number of validations of a run; SWAD needs several to find its start and end

OOD: dict[str, Any] = {
    "method": "vl2v",
    "student": {"final_size": "auto"},
    "align": {"steps": 1001, "learning_rate": 1e-3},
    "distill": {
        "steps": 2400,
        "passes": 60,
        "minutes": "auto",
        "learning_rate": 3e-4,
        "warmup_steps": 20,
        "freeze": 0.03,
        "refit": True,
        "checkpoint_every": 100,
        "weights": "swad",
        "augment": {"style": 0.5},
    },
    "batch": 24,
    "batch_per_domain": 8,  # for three source domains; `batch` determines it for other numbers
    "unlabelled_per_batch": 12,
}
# Learning rate and frozen layers were chosen for convolutional networks. Transformers, such as the image encoders of
# CLIP, use those of the paper.
TRANSFORMER = re.compile(r"vit|deit|swin|beit|eva|cait|xcit|former|mixer|clip|^teacher$", re.IGNORECASE)
TRANSFORMER_RATE = 5e-5
RECIPES: dict[str, dict[str, Any]] = {PAPER: {}, "ood": OOD}


def validation_interval(steps: int, longest: int) -> int:
    """Return the number of steps between validations: at most `longest`, and less in a short run."""
    return min(longest, max(1, steps // VALIDATIONS))


def recipe_of(settings: object) -> str:
    """Return the name of the recipe in settings, which is not validated."""
    name = settings.get("recipe") if isinstance(settings, Mapping) else None
    return PAPER if name is None else str(name)


def with_recipe(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fill in the defaults of the recipe that settings name.

    Values that depend on the data or the machine do not apply if the user sets the number of steps or the number of
    images per domain. A student whose size is stated is used with this size. A method without a first stage gets no
    steps for it. A method without the dual loss, or without a projection, does not fit it again after training. A
    student whose name is that of a transformer gets the learning rate of the paper, and all its layers are trained.

    Args:
        settings: nested keys of `RunConfig`, not validated; None does not override a default.

    Returns:
        The merged settings; `settings` itself if the recipe is the paper's or unknown, or if they are the file of a
        run. A key that such a file lacks is newer than the run.
    """
    recipe = copy.deepcopy(RECIPES.get(recipe_of(settings)))
    if not recipe or settings.get("made_with"):
        return settings
    distill = settings.get("distill")
    if isinstance(distill, Mapping) and distill.get("steps") is not None:
        del recipe["distill"]["passes"], recipe["distill"]["minutes"]
        if isinstance(steps := distill["steps"], int):
            recipe["distill"]["checkpoint_every"] = validation_interval(steps, recipe["distill"]["checkpoint_every"])
    if any(settings.get(key) is not None for key in ("batch_per_domain", "unlabelled_per_batch")):
        del recipe["batch"]
    student = settings.get("student")
    if isinstance(student, Mapping) and student.get("size") is not None:
        del recipe["student"]
    if isinstance(student, Mapping) and TRANSFORMER.search(str(student.get("spec") or "")):
        recipe["distill"]["learning_rate"] = TRANSFORMER_RATE
        del recipe["distill"]["freeze"]
    method = METHODS.get(str(settings.get("method") or recipe["method"]))
    if method is not None and not method.first_stage:
        del recipe["align"]["steps"]
    own_encoder = isinstance(student, Mapping) and student.get("spec") == "teacher"
    if own_encoder or (method is not None and not method.free_image_weight):
        del recipe["distill"]["refit"]
    return merge(recipe, settings)
