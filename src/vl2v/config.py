"""The settings of a run, and the contradictions between them, which are reported before anything is spent."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import BeforeValidator, ConfigDict, ValidationError, create_model, field_validator, model_validator
from pydantic_core import PydanticKnownError

from vl2v.errors import ConfigError
from vl2v.method.base import Method, NoSettings, Settings
from vl2v.method.registry import BUILT_IN, METHODS
from vl2v.nested import merge as merge
from vl2v.options import Option
from vl2v.recipes import with_recipe
from vl2v.schema import DEFAULT_METHOD as DEFAULT_METHOD
from vl2v.schema import CoreSettings, RunSettings
from vl2v.schema import DataConfig as DataConfig

if TYPE_CHECKING:
    _WithMethods = CoreSettings
else:  # a block for every method that has settings of its own, such as `kd.temperature`
    _WithMethods = create_model(
        "_WithMethods",
        __base__=CoreSettings,
        __module__=__name__,
        **{name: (METHODS[name].settings, METHODS[name].settings()) for name in BUILT_IN if METHODS[name].has_settings},
    )


class _Block:
    """The value of an unknown key: the settings of a method of another package, or a fault."""

    def __init__(self, key: str, value: object) -> None:
        self.key, self.value = key, value

    def __repr__(self) -> str:
        return reprlib.repr(self.value)


def _further(block: object) -> object:
    """Check what stands under a key that no field has; a method of another package is imported for that."""
    if not isinstance(block, _Block):
        return block
    if block.key in METHODS:
        return METHODS[block.key].settings.model_validate(block.value)
    raise PydanticKnownError("extra_forbidden")


class RunConfig(RunSettings, _WithMethods):
    """All settings of a run."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, BeforeValidator(_further)]]

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        """The recipe's defaults, then those that depend on the method: a lambda that it fixes, the recipe's terms."""
        if not isinstance(values, Mapping):
            return values
        values = with_recipe(values)
        method = METHODS.get(str(values.get("method") or DEFAULT_METHOD))
        if method is not None:
            values = cls._of_method(method, values)
        return {k: v if k in cls.model_fields or isinstance(v, Settings) else _Block(k, v) for k, v in values.items()}

    @classmethod
    def _of_method(cls, method: Method[Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
        data = values.get("data")
        data = data if isinstance(data, Mapping) else {}
        block = values.get(method.name, {})
        if method.has_settings and isinstance(block, Mapping):
            closed = bool(data.get("classes") or data.get("rest_unlabelled"))
            open_set = data.get("unlabelled") is not None or values.get("repair") is not None
            preset = dict(method.defaults(closed or open_set))
            preset |= method.closed_set_defaults if closed and not open_set else {}
            if values.get("made_with"):  # the file of a run; a key that it lacks is newer than the run
                preset = {key: value for key, value in preset.items() if key in block}
            defaults = {key: value for key, value in preset.items() if block.get(key) is None}
            if defaults or method.name not in cls.model_fields:
                block = {**block, **defaults}
                values = {**values, method.name: block}
        if method.image_weight is not None:
            values = {"image_weight": method.image_weight, **values}
        elif data.get("classes") and not _has_text_term(method, block):
            values = {"image_weight": 1.0, **values}
        return values

    @field_validator("method")
    @classmethod
    def _known(cls, name: str) -> str:
        """Refuse a method that is unknown or cannot be used."""
        if name not in METHODS:
            *names, last = map(repr, METHODS)
            expected = f"{', '.join(names)} or {last}, or the method of another package, which has to be installed"
            raise PydanticKnownError("literal_error", {"expected": expected})
        if name not in BUILT_IN and name in cls.model_fields:
            raise ConfigError(
                f"The method {name} cannot be used.",
                expected="a name that is not a key of the settings",
                found=name,
                next_step="rename it in its package",
            )
        return METHODS[name].name

    @model_validator(mode="after")
    def _stages(self) -> RunConfig:
        faults = _against_method(self)
        if self.student.spec == "teacher" and not self.teacher.spec.startswith("open_clip:"):
            faults.append("student 'teacher' (VL2V-SD) needs an open_clip: teacher, whose weights are available")
        unlabelled = self.data.unlabelled is not None or self.data.rest_unlabelled or self.repair is not None
        if unlabelled and not METHODS[self.method].queries_teacher:
            faults.append(f"the method {self.method} cannot use unlabelled images: it learns from labels alone")
        if self.data.rest_unlabelled and self.data.labels_per_class is None:
            faults.append("data.rest_unlabelled needs data.labels_per_class")
        faults += _without_labels(self) + self._options()
        faults += against_choosing(self) if self.when_short == "choose" else []
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def _options(self) -> list[str]:
        """Return the faults of options that the method or the student does not support."""
        name, align, faults = self.method, self.align, []
        free_weight = METHODS[name].free_image_weight
        if self.teacher.views == "fresh" and not METHODS[name].queries_teacher:
            faults.append(f"teacher.views fresh does not apply to the method {name}: it uses no teacher")
        if align.solver == "ridge" and not free_weight:
            faults.append(f"align.solver ridge solves the loss of VL2V-ADiP, which the method {name} does not use")
        if self.distill.refit and not free_weight:
            faults.append(f"distill.refit minimises the loss of VL2V-ADiP, which the method {name} does not use")
        if self.image_weight_end is not None and not free_weight:
            faults.append(f"image_weight_end does not apply to the method {name}; drop it")
        augment = self.distill.augment
        if augment.style + augment.corrupt > 1:
            both = f"{augment.style:g} and {augment.corrupt:g}"
            faults.append(f"distill.augment: style and corrupt must add up to at most 1, found {both}")
        if align.average != "none" and align.solver == "ridge":
            faults.append("align.average needs align.solver adam; ridge has no steps")
        elif align.average != "none" and not self.first_stage_steps:
            faults.append("align.average needs steps of the first stage; set align.steps")
        if self.student.spec == "teacher" and (align.solver, align.average) != ("adam", "none"):
            faults.append("student 'teacher' (VL2V-SD) has no Align; drop align.solver and align.average")
        if self.student.spec == "teacher" and self.distill.refit:
            faults.append("student 'teacher' (VL2V-SD) has no projection; drop distill.refit")
        return faults

    @property
    def method_settings(self) -> Any:
        """The settings of the method, an instance of its `Method.settings`."""
        return self.settings_of(self.method)

    def settings_of(self, method: str) -> Any:
        """Return the settings of a method, which need not be the selected one; `NoSettings` if it has none."""
        if method in type(self).model_fields:
            return getattr(self, method)
        return (self.model_extra or {}).get(method, NoSettings())

    @property
    def first_stage_steps(self) -> int:
        """Number of steps of the first stage on cached features; a solve in closed form counts as one."""
        if self.align.solver == "ridge":
            return 1
        default = 5001 if METHODS[self.method].first_stage else 0
        return default if self.align.steps is None else self.align.steps

    def to_yaml(self) -> str:
        """Return the settings as YAML, for `make_config`."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _has_text_term(method: Method[Any], block: object) -> bool:
    """Whether images without labels have a text term, from settings that are not validated yet."""
    try:
        return method.pseudo_labels(method.settings.model_validate(block)) < 1
    except ValidationError:  # reported with the other faults
        return False


def _against_method(config: RunConfig) -> list[str]:
    """Return the faults of settings that contradict the method."""
    method, faults = METHODS[config.method], []
    if method.image_weight not in (None, config.image_weight):
        faults.append(
            f"the method {method.name} fixes image_weight at {method.image_weight:g}, found {config.image_weight:g}; "
            f"leave it out, or use the method {DEFAULT_METHOD}"
        )
    if config.data.held_out_classes and method.classifier == "linear":
        why = f"{method.name} has a linear classifier, which cannot predict classes that it was not trained on"
        faults.append(f"data.held_out_classes cannot be measured: the method {why}; use e.g. {DEFAULT_METHOD}")
    if method.forbids_first_stage and config.align.steps:
        faults.append(f"the method {method.name} has no first stage: align.steps must be 0, found {config.align.steps}")
    if config.student.spec == "teacher" and not method.supports_encoder:
        faults.append(
            f"the method {method.name} does not support the student 'teacher', which is already in the teacher's "
            f"space; use the method {DEFAULT_METHOD} (VL2V-SD)"
        )
    return faults


NEED_LABELS = (
    "class_first", "held_out_classes", "unlabelled", "labels_per_class", "rest_unlabelled", "allow_missing_classes",
)  # fmt: skip


def _without_labels(config: RunConfig) -> list[str]:
    """Return the faults of settings that require labels, if the images have none."""
    data, method, faults = config.data, METHODS[config.method], []
    if not data.classes:
        only = "data.domain_folders (--domain-folders) is for images without labels, whose classes are named"
        return [f"{only}: add data.classes (--classes), or drop it"] if data.domain_folders else []
    if data.held_out:
        faults.append(
            "data.held_out (--held-out) needs labels, which images do not have with data.classes (--classes); drop "
            "it, and measure the student on a labelled folder with vl2v evaluate"
        )
    if stated := [key for key in NEED_LABELS if getattr(data, key)]:
        flags = ", ".join(f"data.{key} ({_flag(key)})" for key in stated)
        faults.append(
            f"{flags}: does not apply with data.classes (--classes), since no image has a label; drop it, or drop "
            "data.classes and sort the images into class folders"
        )
    if method.needs_labels:
        able = ", ".join(name for name in BUILT_IN if not METHODS[name].needs_labels)
        faults.append(
            f"the method {method.name} learns from labels, and with data.classes (--classes) the images have none: "
            f"expected {able}; found {method.name}; use --recipe ood"
        )
    elif method.pseudo_labels(config.method_settings) >= 1 and (
        config.image_weight != 1 or config.image_weight_end is not None
    ):
        end = "" if config.image_weight_end is None else f" and image_weight_end {config.image_weight_end:g}"
        faults.append(
            "without labels or pseudo-labels there is no text term: image_weight must be 1 and image_weight_end must "
            f"not be set, found image_weight {config.image_weight:g}{end}"
        )
    elif config.align.solver == "ridge" and not config.image_weight:
        faults.append(
            "align.solver ridge uses no pseudo-labels, so without labels image_weight must be above 0, found 0"
        )
    return faults


def against_choosing(config: RunConfig) -> list[str]:
    """Return the faults of settings that require the embedding of every labelled training image."""
    data, method, label = config.data, METHODS[config.method], "when_short choose (--when-short)"
    if not method.queries_teacher:
        return [f"{label}: the method {method.name} queries no training images; use --no-zero-shot"]
    faults, with_labels = [], not data.classes  # without labels, a run trains on the queried images alone
    if with_labels and not method.partial_queries:
        faults.append(f"{label}: the method {method.name} needs the embedding of every training image")
    elif with_labels and config.image_weight == 1 and method.classifier == "cosine":
        faults.append(f"{label}: with image_weight 1, images without an embedding have no effect; lower it")
    if config.teacher.views != 1:
        faults.append(f"{label}: teacher.views must be 1, found {config.teacher.views}")
    return faults


def _flag(key: str) -> str:
    return next(o for o in DataConfig.model_fields[key].metadata if isinstance(o, Option)).names(key)[0]
