"""A run's settings. Unknown keys are errors, and all faults are shown at once, before anything is spent."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticKnownError

from vl2v.data.class_names import class_names
from vl2v.data.tables.base import is_table
from vl2v.errors import ConfigError
from vl2v.method.base import Method, NoSettings, Settings
from vl2v.method.registry import BUILT_IN, METHODS
from vl2v.nested import merge as merge
from vl2v.recipes import PAPER, RecipeName, recipe_of, with_recipe
from vl2v.strict import Fraction, Positive, Rate, Strict

Money = Annotated[Decimal, Field(ge=0)]
Channels = tuple[float, float, float]
WeightsRule = Literal["swad", "best", "last"]
DEFAULT_METHOD = "adip"
TrackerName = Literal["tensorboard", "wandb", "mlflow"]


class DataConfig(Strict):
    """What the client has."""

    root: Path
    """The folder of images, or a table that lists them (.csv, .tsv, .jsonl, .parquet)."""
    image: str | None = None
    """Of a table: the column of paths, absolute or relative to the table's folder. None takes one with a common name,
    and the run notes it here."""
    label: str | None = None
    """Of a table: the column of classes; the same."""
    domain: str | None = None
    """Of a table: the column of domains. None takes one with a common name if there is one; ``none`` or empty means one
    domain."""
    classes: tuple[str, ...] = ()
    """Names of the classes of images that have no label; none stands for labels, which are the class folders. Read as
    `vl2v.data.class_names.class_names` says, and stored as names."""
    domain_folders: bool = False
    """With `classes`: the folders of the first level are domains. Otherwise all images are of one domain."""
    held_out: tuple[str, ...] = ()
    """Domains left out to test; nothing of them is trained on or selected by."""
    held_out_classes: tuple[str, ...] = ()
    """Classes left out of training and validation, to measure at the end how well they are known by their texts."""
    unlabelled: Path | None = None
    """A second folder of images without labels; the image term alone applies to them."""
    labels_per_class: Positive | None = None
    """Labels kept for every class of every source domain, and in proportion for validation; None keeps all."""
    rest_unlabelled: bool = False
    """Train on the source images beyond `labels_per_class` as well, without their labels."""
    holdout_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Part of every source domain held out for validation."""
    skip_bad: bool = False
    allow_missing_classes: bool = False
    layout_as_found: bool = False
    """Accept folders that look like splits (train, val), dates or a level too many, and folders without images; with
    `classes`, folders that are called like the classes."""

    @property
    def folder(self) -> Path:
        """The folder that paths of images are relative to."""
        return self.root.parent if is_table(self.root) else self.root

    @field_validator("classes", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """A text is read, and so is a list of texts; an empty list stands for labels."""
        texts = isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value)
        return class_names(value) if isinstance(value, str | Path) or texts else value


class TeacherConfig(Strict):
    """What the client asks."""

    spec: str
    views: Positive | Literal["fresh"] = 1
    """Fixed seeded views bought of every training image; 1 is the image itself. ``fresh`` also asks a teacher on this
    machine about every augmented image of Distill."""
    prompts: str | tuple[str, ...] = "photo"
    zero_shot: bool = True
    """Also ask for the images that only the zero-shot row of the final table needs."""
    price_per_1000_images: Money = Decimal(0)
    price_per_1000_texts: Money = Decimal(0)
    accept: bool = False
    """Go on where answers look useless: one embedding for different images or texts, a wrong order, accuracy at
    chance."""
    free: bool = False
    """The user's word that a vendor whose price is not known charges nothing."""

    @property
    def kept_views(self) -> int:
        """How many views of every training image are asked for once and kept."""
        return 1 if self.views == "fresh" else self.views


class StudentConfig(Strict):
    """The client's own model."""

    spec: str = ""
    size: Annotated[int, Field(ge=16, le=1024)] | None = None
    mean: Channels | None = None
    std: Channels | None = None


class AlignConfig(Strict):
    """Stage 1; the defaults are the paper's."""

    steps: Annotated[int, Field(ge=0)] | None = None
    """None is 5001, the paper's, for a method that has this stage, and 0 for one that has not."""
    learning_rate: Rate = 5e-5
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    solver: Literal["adam", "ridge"] = "adam"
    """Adam's steps, or one solve in closed form that takes none."""
    ridge: Rate = 0.3
    """Strength of the solve's penalty, relative to the mean variance of a feature. The default had the lowest dual loss
    on the source domains' validation images of PACS, among 0.0001 to 3 (EfficientNet-Lite0, 128 pixels)."""
    average: Literal["none", "ema", "swad"] = "none"
    """Which average of the projection over the steps goes into Distill; `none` takes the last step's."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] = 0.999


class SwadConfig(Strict):
    """Dense weight averaging; the defaults are the published ones."""

    n_converge: Positive = 3
    n_tolerance: Positive = 6
    tolerance_ratio: Annotated[float, Field(ge=0)] = 0.3
    segments: Literal["reset", "accumulate"] = "reset"


class AugmentConfig(Strict):
    """Augmentation of Distill; the defaults are the paper's, which knows neither `style` nor `corrupt`."""

    scale: Annotated[float, Field(gt=0, le=1)] = 0.7
    flip: Fraction = 0.5
    jitter: Fraction = 0.3
    grayscale: Fraction = 0.1
    style: Fraction = 0.0
    """Part of the images whose style is changed: edges on white, posterised, other colours, another's amplitudes."""
    corrupt: Fraction = 0.0
    """Part of the images that are blurred, noisy, dark, rotated, solarised, compressed or of low resolution."""


class DistillConfig(Strict):
    """Stage 2; the defaults are the paper's."""

    steps: Positive = 5001
    passes: Positive | None = None
    """Passes through the training images after which `steps` end, but not before 300; None never ends them."""
    minutes: Annotated[float, Field(ge=0)] = 0.0
    """Wall time of the run after the purchase, at most, from a few steps on this machine; 0 sets no limit. It lowers
    `steps`, and `checkpoint_every` in proportion, before the first step."""
    learning_rate: Rate = 5e-5
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises linearly to its value; for runs of few steps at a higher rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    checkpoint_every: Positive = 200
    """Steps between two validations; the state to resume from is saved at each."""
    weights: WeightsRule = "swad"
    """Which weights are kept: averaged, of best validation accuracy, or the last."""
    wise_ft: Fraction = 1.0
    """Share of the trained weights in what is kept; the rest is the start of this stage (WiSE-FT)."""
    swad: SwadConfig = SwadConfig()
    augment: AugmentConfig = AugmentConfig()


class MeasureConfig(Strict):
    """What is measured at the end beside the weights that are kept; it changes nothing in them."""

    weights: tuple[WeightsRule, ...] = ()
    wise_ft: tuple[Fraction, ...] = ()
    """The kept weights interpolated with the start, at these shares of the trained ones."""


class _Common(Strict):
    recipe: RecipeName = PAPER
    """The set of defaults that lies under the other settings."""
    data: DataConfig
    teacher: TeacherConfig
    student: StudentConfig
    method: str = DEFAULT_METHOD
    """VL2V-ADiP, a baseline, or a method of an installed package; see `vl2v.method.registry`."""
    align: AlignConfig = AlignConfig()
    distill: DistillConfig = DistillConfig()


if TYPE_CHECKING:
    _WithMethods = _Common
else:  # a block for every method that has settings of its own, such as `kd.temperature`
    _WithMethods = create_model(
        "_WithMethods",
        __base__=_Common,
        __module__=__name__,
        **{name: (METHODS[name].settings, METHODS[name].settings()) for name in BUILT_IN if METHODS[name].has_settings},
    )


class _Block:
    """What stands under a key that no field has: settings of a method of another package, or a fault."""

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


class RunConfig(_WithMethods):
    """Everything that a run depends on."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, BeforeValidator(_further)]]

    measure: MeasureConfig = MeasureConfig()
    image_weight: Fraction = 0.5
    """Lambda of the dual loss: 1 is the image term alone, 0 the text term alone; some methods fix it."""
    image_weight_end: Fraction | None = None
    """Lambda at the last step of Distill, towards which it goes linearly; None keeps it constant."""
    batch: Positive | None = None
    """Images in a batch, in place of the two numbers that follow: half of them without labels where there are such
    images, the others shared evenly by the source domains. None leaves it to the two numbers."""
    batch_per_domain: Positive = 32
    unlabelled_per_batch: Positive = 32
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """The one seed: of splits, order, augmentation, views and initial weights."""
    budget: Money | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["no", "fp16", "bf16"] = "no"
    workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that load and augment ahead; None chooses by device."""
    threads: Positive | None = None
    """CPU threads that compute. None measures before the first step, and `config.yaml` then has the number."""
    tracking: tuple[TrackerName, ...] = ()
    """Where the run is followed beside `metrics.jsonl`; it changes nothing in what comes out."""
    made_with: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    """Versions and machine, written by the run itself."""

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
        if method.image_weight is not None:
            values = {"image_weight": method.image_weight, **values}
        elif data.get("classes"):  # without labels there is no text term
            values = {"image_weight": 1.0, **values}
        if method.has_settings and isinstance(own := values.get(method.name, {}), Mapping):
            without = bool(data.get("classes") or data.get("unlabelled") is not None or data.get("rest_unlabelled"))
            left = {key: value for key, value in method.defaults(without).items() if own.get(key) is None}
            if left or method.name not in cls.model_fields:
                values = {**values, method.name: {**own, **left}}
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
        unlabelled = self.data.unlabelled is not None or self.data.rest_unlabelled
        if unlabelled and not METHODS[self.method].asks_teacher:
            faults.append(f"the method {self.method} cannot use unlabelled images: it learns from labels alone")
        if self.data.rest_unlabelled and self.data.labels_per_class is None:
            faults.append("data.rest_unlabelled needs data.labels_per_class")
        faults += _without_labels(self) + self._options()
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def _options(self) -> list[str]:
        """What is beyond the paper and asked for where it cannot be had."""
        align, faults = self.align, []
        if self.teacher.views == "fresh" and not METHODS[self.method].asks_teacher:
            faults.append(f"teacher.views fresh does not apply to the method {self.method}: it uses no teacher")
        if not METHODS[self.method].free_image_weight:
            if align.solver == "ridge":
                faults.append(
                    f"align.solver ridge solves the loss of VL2V-ADiP, which the method {self.method} does not use"
                )
            if self.image_weight_end is not None:
                faults.append(f"image_weight_end does not apply to the method {self.method}; drop it")
        augment = self.distill.augment
        if augment.style + augment.corrupt > 1:
            found = f"{augment.style:g} and {augment.corrupt:g}"
            faults.append(f"distill.augment: style and corrupt must add up to at most 1, found {found}")
        if align.average != "none" and align.solver == "ridge":
            faults.append("align.average needs align.solver adam; ridge has no steps")
        elif align.average != "none" and not self.first_stage_steps:
            faults.append("align.average needs steps of the first stage; set align.steps")
        if self.student.spec == "teacher" and (align.solver, align.average) != ("adam", "none"):
            faults.append("student 'teacher' (VL2V-SD) has no Align; drop align.solver and align.average")
        return faults

    @property
    def method_settings(self) -> Any:
        """The settings of the method's own, of its class `Method.settings`."""
        return self.settings_of(self.method)

    def settings_of(self, method: str) -> Any:
        """The block of any method, used or not; `NoSettings` if it has none."""
        if method in type(self).model_fields:
            return getattr(self, method)
        return (self.model_extra or {}).get(method, NoSettings())

    @property
    def first_stage_steps(self) -> int:
        """Steps of Align, or of what another method does on kept features; a solve in closed form counts as one."""
        if self.align.solver == "ridge":
            return 1
        default = 5001 if METHODS[self.method].first_stage else 0
        return default if self.align.steps is None else self.align.steps

    def to_yaml(self) -> str:
        """These settings as YAML that `load` reads again."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _against_method(config: RunConfig) -> list[str]:
    """What contradicts the method that the settings name."""
    method, faults = METHODS[config.method], []
    if method.image_weight not in (None, config.image_weight):
        faults.append(
            f"the method {method.name} fixes image_weight at {method.image_weight:g}, found {config.image_weight:g}; "
            f"leave it out, or take the method {DEFAULT_METHOD}"
        )
    if config.data.held_out_classes and method.classifier == "linear":
        why = f"{method.name} has a linear classifier, which cannot predict classes that it was not trained on"
        faults.append(f"data.held_out_classes cannot be measured: the method {why}; take e.g. {DEFAULT_METHOD}")
    if method.forbids_first_stage and config.align.steps:
        faults.append(f"the method {method.name} has no first stage: align.steps must be 0, found {config.align.steps}")
    if config.student.spec == "teacher" and not method.takes_encoder:
        faults.append(
            f"the method {method.name} does not support the student 'teacher', which is already in the teacher's "
            f"space; use the method {DEFAULT_METHOD} (VL2V-SD)"
        )
    return faults


def _without_labels(config: RunConfig) -> list[str]:
    """What contradicts images that have no label."""
    data, method, faults = config.data, METHODS[config.method], []
    if not data.classes:
        only = "data.domain_folders (--domain-folders) is for images without labels, whose classes are named"
        return [f"{only}: add data.classes (--classes), or drop it"] if data.domain_folders else []
    if data.held_out:
        faults.append(
            "data.held_out (--held-out) tests by labels, and with data.classes (--classes) the images have none; drop "
            "it, and measure the student on a labelled folder with vl2v evaluate"
        )
    needless = ("held_out_classes", "unlabelled", "labels_per_class", "rest_unlabelled", "allow_missing_classes")
    if stated := [key for key in needless if getattr(data, key)]:
        named = ", ".join(f"data.{key} (--{_FLAGS.get(key, key.replace('_', '-'))})" for key in stated)
        faults.append(
            f"{named}: does not apply with data.classes (--classes), since no image has a label; drop it, or drop "
            "data.classes and sort the images into class folders"
        )
    if method.needs_labels:
        able = ", ".join(name for name in BUILT_IN if not METHODS[name].needs_labels)
        faults.append(
            f"the method {method.name} learns from labels, and with data.classes (--classes) the images have none: "
            f"expected {able}; found {method.name}; use --recipe ood"
        )
    elif config.image_weight != 1 or config.image_weight_end is not None:
        faults.append(
            "without labels there is no text term: image_weight must be 1 and image_weight_end must not be set"
        )
    return faults


_FLAGS = {"held_out_classes": "held-out-class"}  # where a flag is not called as its key
Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], values: object, source: str) -> Model:
    """Check settings against a model.

    Args:
        model: what they have to be.
        values: a nested mapping.
        source: where they come from, for the message.

    Raises:
        ConfigError: with every fault, each with its key.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = [fault for e in error.errors() for fault in _faults(e, source)]
        if (recipe := recipe_of(values)) != PAPER:
            source = f"{source}, combined with the recipe {recipe}"
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        problem = "\n".join([f"{count} in {source}:", *(f"  {fault}" for fault in faults)])
        raise ConfigError(problem, next_step="correct them all; docs/configuration.md lists every key") from error


def _faults(error: Mapping[str, Any], source: str) -> list[str]:
    """What one error of pydantic's says: a key and what stands there, or settings that do not go together."""
    if not error["loc"] and error["type"] == "value_error":
        return str(error["ctx"]["error"]).split("\n")
    found = "nothing" if error["type"] == "missing" else reprlib.repr(error["input"])[:60]
    said = error["ctx"]["error"] if error["type"] == "value_error" else error["msg"]
    return [f"{'.'.join(map(str, error['loc'])) or source}: {said} (found {found})"]
