"""The settings of a run, block by block.

A field with an `Option` has an option on the command line, and the first paragraph of its docstring is the help of the
option (see `vl2v.cli.settings`). Nothing here imports torch, so that the command line starts quickly; `vl2v.config`
adds the blocks of the methods and the checks.
"""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from vl2v.data.augment_settings import AugmentSettings
from vl2v.data.tables.base import is_table
from vl2v.errors import ConfigError
from vl2v.method.registry import BUILT_IN
from vl2v.options import Option, Panel
from vl2v.recipes import PAPER, RecipeName
from vl2v.strict import Fraction, Positive, Rate, Strict
from vl2v_runtime.fits import SQUASH, Fit

Money = Annotated[Decimal, Field(ge=0, le=1_000_000_000_000)]
Channels = tuple[float, float, float]
Metric = Literal["accuracy", "macro"]
WeightsRule = Literal["swad", "best", "last"]
TrackerName = Literal["tensorboard", "wandb", "mlflow"]
DEFAULT_METHOD, RECIPE, *BASELINES = BUILT_IN


def minutes_of(value: Any) -> Any:
    """Convert a time such as 90s, 30m, 1.5h or 30 to minutes, and none to 0 (no limit); only strings are converted.

    ``auto`` remains.

    Raises:
        ConfigError: if the string is not a time.
    """
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)\s*(s|m|min|h|)", text)
    if text == "auto":
        return text
    if text == "none":
        return 0.0
    minutes = float(match[1]) * {"s": 1 / 60, "h": 60.0}.get(match[2], 1.0) if match else 0.0
    if minutes <= 0:
        raise ConfigError(
            f"--time (distill.minutes) {value} is not valid.",
            expected="a number above 0 with s, m or h (m if there is none), auto, or none for no limit",
            found=repr(value),
            next_step="e.g. --time 30m",
        )
    return minutes


class DataConfig(Strict):
    """Settings of the dataset."""

    root: Path
    """A folder of images, a table that lists them (.csv, ...), or a dataset of another tool (hf:user/name, ...)."""
    image: Annotated[str | None, Panel.data] = None
    """Table column with the image paths (default: recognised by name).

    Paths are absolute, or relative to the table's folder. The run records the name here."""
    label: Annotated[str | None, Panel.data] = None
    """Table column with the classes (default: recognised by name)."""
    domain: Annotated[str | None, Option("Data", ("--domain", "--domain-column"))] = None
    """Table column with the domains (default: recognised by name); none for a single domain."""
    split: Annotated[str | None, Panel.data] = None
    """Table column with the split: train, validation or test (default: random split).

    Test images are used for evaluation only."""
    group: Annotated[str | None, Panel.data] = None
    """Table column with groups, such as clips or patients; a group is never split."""
    balance: Annotated[Fraction | Literal["auto"], Panel.data] = 0.0
    """Class-balanced sampling, from 0 (all images equally often; default) to 1 (all classes), or auto.

    In each source domain, the probability of a class is proportional to the number of its images to the power of
    1 - balance. Images without labels are not affected. ``auto`` chooses 0, 0.5 or 1 before training, by the macro
    accuracy of a regression on the features of the pretrained backbone, on the validation images of the source
    domains; `config.yaml` then has the number."""
    classes: Annotated[tuple[str, ...], Option("Data", joined=True)] = ()
    """Class names for images without labels: cat,dog,... or a file with one name per line.

    Empty if the images have labels. See `vl2v.data.class_names.class_names`; the names themselves are stored."""
    domain_folders: Annotated[bool, Panel.data] = False
    """With --classes: treat first-level folders as domains (default: one domain)."""
    held_out: Annotated[tuple[str, ...], Panel.data] = ()
    """Domain to hold out from training and model selection, for testing; repeatable."""
    held_out_classes: Annotated[tuple[str, ...], Option("Data", ("--held-out-class",))] = ()
    """Class to hold out from training and validation; it is evaluated by its name alone. Repeatable."""
    unlabelled: Annotated[Path | None, Panel.data] = None
    """Additional images without labels, for the image term of the loss: a folder, a table or a dataset, like DATA."""
    labels_per_class: Annotated[Positive | None, Panel.data] = None
    """Labels to use per class and source domain; validation in proportion (default: all)."""
    rest_unlabelled: Annotated[bool, Panel.data] = False
    """Use the images beyond --labels-per-class as unlabelled images."""
    holdout_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Fraction of every source domain that is used for validation."""
    skip_bad: Annotated[bool, Panel.data] = False
    """Skip unreadable image files."""
    allow_missing_classes: Annotated[bool, Panel.data] = False
    """Accept classes that are missing from some domains."""
    drop: Annotated[Path | None, Panel.data] = None
    """CSV file of images to leave out, such as suspects.csv of vl2v data suspects.

    Its column ``path`` has paths below the folder of the data. With a column ``drop``, only rows with yes count."""
    layout_as_found: Annotated[bool, Panel.data] = False
    """Accept folders named like splits or dates or, with --classes, like classes.

    Also accept an additional level of folders and folders without images."""

    @property
    def exponent(self) -> float:
        """`balance` as a number; a run has replaced ``auto`` before it trains."""
        return 0.0 if self.balance == "auto" else self.balance

    @property
    def folder(self) -> Path:
        """The folder to which image paths are relative."""
        return self.root.parent if is_table(self.root) else self.root

    @field_validator("classes", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """Parse a string or a list of strings; an empty list means that the images have labels."""
        from vl2v.data.class_names import class_names  # imports numpy

        texts = isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value)
        return class_names(value) if isinstance(value, str | Path) or texts else value


class TeacherConfig(Strict):
    """Settings of the teacher."""

    spec: Annotated[str, Option("Teacher", ("--teacher",))]
    """Teacher: open_clip:<model>/<tag or file>, file:<path>, offline:, conse:, http(s)://.../v1, jina:, ..."""
    views: Annotated[Positive | Literal["fresh"], Panel.teacher] = 1
    """Views to buy per training image (default: 1, the image itself), or fresh (see the docs).

    The views are fixed and seeded. ``fresh`` also queries a teacher on this machine with every augmented image of
    Distill."""
    prompts: Annotated[str | tuple[str, ...], Panel.teacher] = "photo"
    """Prompts: photo (default), name, clip-80, a template with {}, or a file of templates."""
    zero_shot: Annotated[bool, Panel.teacher] = True
    """Also query the evaluation images, to report the teacher's zero-shot accuracy."""
    price_per_1000_images: Annotated[Money, Panel.money] = Decimal(0)
    """Price of 1000 images, if the vendor does not publish it, or for a file: teacher."""
    price_per_1000_texts: Annotated[Money, Panel.money] = Decimal(0)
    """Price of 1000 texts, likewise."""
    accept: Annotated[bool, Option("Teacher", ("--accept-teacher",))] = False
    """Continue even if the teacher's responses look useless.

    They do if different images or texts have the same embedding, if the order is wrong, or if the zero-shot accuracy
    is at chance level."""
    free: Annotated[bool, Panel.money] = False
    """Confirm that a vendor without published prices is free."""

    @property
    def kept_views(self) -> int:
        """Number of views of every training image that are bought and stored."""
        return 1 if self.views == "fresh" else self.views


class StudentConfig(Strict):
    """Settings of the student."""

    spec: Annotated[str, Option("Student", ("--student",))] = ""
    """Student: timm:<name>, timm:<name>@<checkpoint>, offline:, or teacher (VL2V-SD, open_clip only)."""
    size: Annotated[Annotated[int, Field(ge=16, le=1024)] | None, Panel.student] = None
    """Input size of the student in pixels (default: that of its pretrained weights)."""
    final_size: Annotated[Literal["train", "auto"], Panel.student] = "train"
    """Image size that the trained student is used with: train or auto (default: auto; train with --size).

    ``train`` is the size of training. ``auto`` also tries 1.25 and 1.5 times this size, but at most the size of the
    pretrained weights, and takes the larger size if it costs no more than half a point of accuracy on the
    validation images."""
    fit: Annotated[Fit, Panel.student] = SQUASH
    """How an image becomes a square: squash (default), crop or pad.

    ``squash`` resizes the whole image, ``crop`` takes the largest central square, ``pad`` keeps the shape and fills the
    rest."""
    mean: Channels | None = None
    std: Channels | None = None


class AlignConfig(Strict):
    """Stage 1; the defaults are the paper's."""

    steps: Annotated[Annotated[int, Field(ge=0)] | None, Option("Training", ("--align-steps",))] = None
    """Steps of the Align stage (default: 1001; 0 for most baselines).

    None means the paper's 5001 for a method that has this stage, and 0 for the others."""
    learning_rate: Rate = 5e-5
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    solver: Literal["adam", "ridge"] = "adam"
    """Adam, or a closed-form solution without steps."""
    ridge: Rate = 0.3
    """Regularisation strength of the closed-form solution, relative to the mean variance of a feature. Of the values
    from 0.0001 to 3, the default had the lowest dual loss on the source domains' validation images of PACS
    (EfficientNet-Lite0, 128 pixels)."""
    average: Literal["none", "ema", "swad"] = "none"
    """Average of the projection over the steps that Distill starts from; `none` for the last step."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] = 0.999


class SwadConfig(Strict):
    """Dense weight averaging; the defaults are the published ones."""

    n_converge: Positive = 3
    n_tolerance: Positive = 6
    tolerance_ratio: Annotated[float, Field(ge=0)] = 0.3
    segments: Literal["reset", "accumulate"] = "reset"


class DistillConfig(Strict):
    """Stage 2; the defaults are the paper's."""

    steps: Annotated[Positive, Panel.training] = 5001
    """Steps of the Distill stage (default: 60 epochs, from 300 to 2400 steps)."""
    passes: Positive | None = None
    """Number of epochs that limits `steps`, but not to fewer than 300; None for no limit."""
    minutes: Annotated[
        Annotated[float, Field(ge=0)] | Literal["auto"],
        BeforeValidator(minutes_of),
        Option("Training", ("--time",), kind=str),
    ] = 0.0
    """Maximum training time, e.g. 90s, 30m, 2h, auto or none (default auto; none with --steps).

    The time starts at the end of the purchase. A few steps are timed on this machine. On a CPU, the student gets the
    largest image size with which all steps end in time, unless `student.size` is set; the smallest is 128 pixels.
    Then `steps` and `checkpoint_every` are reduced in proportion if necessary. ``auto`` is 5 minutes, or as long as 10
    epochs take, but at most 60 minutes; the image size is chosen for 5. A number is in minutes; 0 sets no limit."""
    learning_rate: Annotated[Rate, Panel.training] = 5e-5
    """Learning rate of the Distill stage (default: 3e-4; 5e-5 for transformers)."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Number of steps of linear warmup; for short runs with a high learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    checkpoint_every: Annotated[Positive, Panel.training] = 200
    """Steps between validations, each of which saves a checkpoint (default: 100)."""
    weights: Annotated[WeightsRule, Panel.training] = "swad"
    """Weights to save: swad (default), best (by --metric on the validation images) or last."""
    metric: Annotated[Metric, Panel.training] = "accuracy"
    """accuracy (default), or macro: the mean of the classes' recall, in which rare classes count as much as others.

    It selects the weights of `weights: best`, and the printed table shows it. It does not affect SWAD, which selects by
    the validation loss, the last weights, or `data.balance: auto`, which is always chosen by macro accuracy. Reports,
    `metrics.jsonl` and `evaluation.json` have both."""
    wise_ft: Fraction = 1.0
    """Share of the trained weights in the saved weights; the rest is the initial weights of this stage (WiSE-FT)."""
    swad: SwadConfig = SwadConfig()
    augment: AugmentSettings = AugmentSettings()


class MeasureConfig(Strict):
    """Alternative weights that are evaluated at the end; the saved weights do not change."""

    weights: tuple[WeightsRule, ...] = ()
    wise_ft: tuple[Fraction, ...] = ()
    """Shares of the trained weights at which the saved weights are interpolated with the initial weights."""


class RepairConfig(Strict):
    """Training that starts from the student of an earlier run; see `vl2v.commands.repair`."""

    run: Path
    """Folder of the earlier run."""
    images: Path
    """Table of new images without labels, with a column ``image``."""
    per_batch: Positive = 8
    """Number of new images in a batch."""


class CoreSettings(Strict):
    """Settings of a run before those of the methods."""

    recipe: Annotated[RecipeName, Panel.method] = PAPER
    """Default settings: ood (default) or paper (see the docs)."""
    data: DataConfig
    teacher: TeacherConfig
    student: StudentConfig
    method: Annotated[str, Panel.method] = Field(
        DEFAULT_METHOD,
        description=f"{RECIPE} (default), {DEFAULT_METHOD} (the paper's) or a baseline: {', '.join(BASELINES)}.",
    )
    """A method of `vl2v.method.registry`, or of an installed package."""
    align: AlignConfig = AlignConfig()
    distill: DistillConfig = DistillConfig()


class RunSettings(Strict):
    """Settings of a run after those of the methods."""

    measure: MeasureConfig = MeasureConfig()
    repair: RepairConfig | None = None
    """Set by `vl2v repair`: the run whose student training starts from, and new images without labels."""
    image_weight: Annotated[Fraction, Panel.training] = 0.5
    """Weight of the image term in the dual loss, from 0 to 1 (lambda; default: 0.5).

    Some methods fix it."""
    image_weight_end: Fraction | None = None
    """Lambda at the last step of Distill; it changes linearly. None keeps it constant."""
    batch: Positive | None = None
    """Batch size, which replaces the two numbers that follow. Half of the batch is unlabelled images, if there are any;
    the rest is divided evenly among the source domains. None uses the two numbers."""
    batch_per_domain: Annotated[Positive, Panel.training] = 32
    """Images per source domain and step (default: 24 divided evenly among the domains)."""
    unlabelled_per_batch: Positive = 32
    seed: Annotated[int, Field(ge=0, lt=2**31), Panel.method] = 0
    """Random seed of splits, order, augmentation, views and initial weights (default: 0)."""
    budget: Money | None = None
    when_short: Annotated[Literal["refuse", "choose"], Panel.money] = "refuse"
    """What to do if --budget does not cover all images: refuse (default), or choose the images to query.

    ``choose`` does not query the evaluation images if there are labels. The training images to query are a diverse set
    on the features of the frozen student, shared evenly by the source domains. The others are trained on by their
    labels alone, or left out if they have none."""
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Panel.machine] = "auto"
    """Device: auto (default), cpu, cuda or mps."""
    precision: Annotated[Literal["auto", "no", "fp16", "bf16"], Panel.machine] = "auto"
    """Mixed precision: auto (default: bf16 on a CUDA GPU that supports it, otherwise no), no, bf16 or fp16.

    `config.yaml` then has what auto stands for, so that a resumed run continues with it."""
    compile: Annotated[bool, Panel.machine] = False
    """Compile the student for training with torch.compile."""
    micro_batch: Annotated[Positive | None, Panel.machine] = None
    """Images that a step computes at once (default: all, and fewer if memory runs out).

    Loss and gradient are those of the whole batch up to rounding. A step takes about a third longer."""
    workers: Annotated[
        Annotated[int, Field(ge=0, le=1024)] | None,
        BeforeValidator(lambda value: None if value == "auto" else value),
        Option("Machine", kind=str),
    ] = None
    """Number of data-loading processes, or auto (default), which depends on the device."""
    threads: Annotated[Positive | None, Panel.machine] = None
    """Number of CPU threads (default: measured before the first step).

    The measured number is written to `config.yaml`."""
    tracking: Annotated[tuple[TrackerName, ...], Option("Machine", ("--track",))] = ()
    """Tracker in addition to metrics.jsonl: tensorboard, wandb or mlflow; repeatable."""
    made_with: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    """Versions and machine; written by the run."""
