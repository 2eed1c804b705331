"""The settings of a run, from a file and from values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vl2v.config import RunConfig, merge
from vl2v.data.folder import read_mapping
from vl2v.errors import ConfigError
from vl2v.recipes import DEFAULT, recipe_of
from vl2v.validation import parse


def make_config(base: str | Path | RunConfig | None = None, settings: Mapping[str, Any] | None = None) -> RunConfig:
    """Read settings from a YAML file or take those of a run, if one is given, and update them with `settings`.

    If neither names a recipe, the defaults are those of the recipe ``ood``. A file written by a run keeps its own.

    Args:
        base: a file such as a run's `config.yaml`, or the settings of a run.
        settings: nested keys of `RunConfig`; None leaves a key as it is.

    Raises:
        ConfigError: with all errors.
    """
    if isinstance(base, RunConfig):
        values: Any = base.model_dump(mode="json")
        base = "the configuration of the run"
    else:
        values = read_mapping(Path(base)) if base else {}
    recipe = recipe_of(settings)
    if (settings or {}).get("recipe") is not None and "made_with" in values and recipe != recipe_of(values):
        raise ConfigError(
            f"The recipe {recipe} would have no effect: {base} was written by a run and contains all settings.",
            expected=f"the recipe of that run, {recipe_of(values)}",
            found=recipe,
            next_step="drop the recipe, or pass a file that contains only your own settings",
        )
    final = merge(values, settings or {})
    if final.get("recipe") is None and "made_with" not in final:  # a run's own file states every setting
        final = {**final, "recipe": DEFAULT}
    return parse(RunConfig, final, str(base or "the settings"))
