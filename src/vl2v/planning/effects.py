"""Settings that have no effect on a run.

A `Rule` states when a setting, or a block of settings, has an effect. It asks the attributes of the method and not its
name, so it also holds for methods of other packages. The settings of all methods but the chosen one have no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from vl2v.config import RunConfig
from vl2v.method.base import Method
from vl2v.method.registry import METHODS
from vl2v.options import Option, fields_of
from vl2v.recipes import RECIPES


@dataclass(frozen=True)
class Rule:
    """When settings have an effect.

    Attributes:
        keys: dotted keys of settings or of blocks.
        applies: whether they have an effect on a run of a method.
        where: where they have none, after "has no effect"; ``{method}`` is the name of the method.
    """

    keys: tuple[str, ...]
    applies: Callable[[RunConfig, Method[Any]], bool]
    where: str


def _uses_image_weight(config: RunConfig, method: Method[Any]) -> bool:
    return method.free_image_weight or method.image_weight is not None or bool(config.data.classes)


def _has_align_steps(config: RunConfig, _: Method[Any]) -> bool:
    return config.align.solver == "adam" and config.first_stage_steps > 0 and config.student.spec != "teacher"


def _has_unlabelled(config: RunConfig, _: Method[Any]) -> bool:
    return config.data.unlabelled is not None or config.data.rest_unlabelled


def _uses_swad(config: RunConfig, _: Method[Any]) -> bool:
    return "swad" in (config.distill.weights, config.align.average, *config.measure.weights)


ON_METHOD, LABELS = "on the method {method}", "with data.classes (--classes), since no image has a label"
RULES = (
    Rule(("distill.freeze", "distill.augment"), lambda _, method: method.trains_backbone, ON_METHOD),
    Rule(("teacher.views",), lambda _, method: method.queries_teacher, ON_METHOD),
    Rule(("image_weight",), _uses_image_weight, ON_METHOD),
    Rule(("align.learning_rate", "align.weight_decay"), _has_align_steps, "without steps of Adam in the first stage"),
    Rule(("align.steps",), lambda config, _: config.align.solver == "adam", "with align.solver ridge"),
    Rule(("align.steps",), lambda config, _: config.student.spec != "teacher", "on the student teacher"),
    Rule(
        ("align.ridge",),
        lambda config, _: config.align.solver == "ridge" or config.data.balance == "auto",
        "without align.solver ridge",
    ),
    Rule(("align.ema_decay",), lambda config, _: config.align.average == "ema", "without align.average ema"),
    Rule(("distill.swad",), _uses_swad, "without SWAD (distill.weights, --weights)"),
    Rule(("batch_per_domain",), lambda config, _: config.batch is None, "with batch, which replaces it"),
    Rule(("unlabelled_per_batch",), lambda config, _: config.batch is None, "with batch, which replaces it"),
    Rule(("unlabelled_per_batch",), _has_unlabelled, "without unlabelled images in addition to the labelled ones"),
    Rule(("data.balance", "teacher.zero_shot"), lambda config, _: not config.data.classes, LABELS),
    Rule(("when_short",), lambda config, _: config.budget is not None, "without a budget (--budget)"),
)


def without_effect(config: RunConfig) -> list[str]:
    """Return warnings of settings that were changed and have no effect on the run.

    They are no errors: in a grid, they may be for other methods. The settings of a repair are those of an earlier run,
    so there are no warnings of them.
    """
    if config.repair is not None:
        return []
    method, reasons = METHODS[config.method], dict[str, str]()
    rules = [rule for rule in RULES if not rule.applies(config, method)]
    fields = dict(fields_of(RunConfig))
    for key, field in fields.items():
        where = [rule.where for rule in rules if any(f"{key}.".startswith(f"{name}.") for name in rule.keys)]
        block = any(other.startswith(f"{key}.") for other in fields)
        if where and not block and _changed(config, key, field.default):
            reasons[f"{key}{_option(key, field.metadata)}"] = where[0].format(method=method.name)
    reasons |= _of_predicted_labels(config, method)
    for key in _of_other_methods(config):
        reasons[key] = ON_METHOD.format(method=method.name)
    return [f"{key} has no effect {where}" for key, where in reasons.items()]


def _changed(config: RunConfig, key: str, default: Any) -> bool:
    """Whether a setting has another value than its default and that of the recipe."""
    recipe: Any = RECIPES.get(config.recipe) or {}
    value: Any = config
    for part in key.split("."):
        recipe, value = recipe.get(part) if isinstance(recipe, dict) else None, getattr(value, part)
    return value not in (default, recipe)


def _option(key: str, marks: list[Any]) -> str:
    names = [mark.names(key.rpartition(".")[2])[0] for mark in marks if isinstance(mark, Option)]
    return f" ({names[0]})" if names else ""


def _of_predicted_labels(config: RunConfig, method: Method[Any]) -> dict[str, str]:
    """Return the changed settings of labels that the method predicts, and why they have no effect, by key."""
    block = config.method_settings
    if method.pseudo_labels(block) >= 1:
        return {}
    if not config.data.classes and not _has_unlabelled(config, method):
        where = "if all images have labels"
    elif config.image_weight == 1 and config.image_weight_end in (None, 1):
        where = "with image_weight 1, which omits the text term"
    else:
        return {}
    presets = ({key: field.default for key, field in type(block).model_fields.items()}, method.closed_set_defaults)
    changed = (
        key for key in method.closed_set_defaults if all(getattr(block, key) != preset[key] for preset in presets)
    )
    return dict.fromkeys((f"{method.name}.{key}" for key in changed), where)


def _of_other_methods(config: RunConfig) -> Iterator[str]:
    """Iterate over the changed settings of methods other than the chosen one."""
    stated_keys = config.model_fields_set | set(config.model_extra or {})
    for name in sorted(name for name in stated_keys - {config.method} if name in METHODS):
        block, method = config.settings_of(name), METHODS[name]
        defaults = [{}, *(method.defaults(without) for without in (False, True)), method.closed_set_defaults]
        for key, field in type(block).model_fields.items():
            value = getattr(block, key)
            if value != field.default and all(value != preset.get(key, field.default) for preset in defaults):
                yield f"{name}.{key}"
