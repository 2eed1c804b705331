"""Settings of the stages of training, and of the weights that are saved and evaluated."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from vl2v.data.augment_settings import AugmentSettings
from vl2v.errors import ConfigError
from vl2v.options import Option, Panel
from vl2v.strict import Fraction, Positive, Rate, Strict

Metric = Literal["accuracy", "macro"]
WeightsRule = Literal["swad", "best", "last"]


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
    largest image size with which 300 steps, or all if they are fewer, end in time, unless `student.size` is set; the
    smallest is 128 pixels. Then `steps` and `checkpoint_every` are reduced in proportion if necessary. ``auto`` is 5
    minutes, or as long as 10 epochs take with the smallest size, but at most 60 minutes. A number is in minutes; 0 sets
    no limit."""
    learning_rate: Annotated[Rate, Panel.training] = 5e-5
    """Learning rate of the Distill stage (default: 3e-4; 5e-5 for transformers)."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Number of steps of linear warmup; for short runs with a high learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    freeze: Annotated[Annotated[float, Field(ge=0, lt=1)], Panel.training] = 0.0
    """Freeze the first layers with up to this fraction of the parameters (default: 0.03; 0 for transformers).

    The first groups of layers that together have at most this share of the parameters are not trained. The groups are
    timm's: the stem, then the stages of a convolutional network or the blocks of a transformer. A network without
    groups is trained as a whole. Steps take less time and memory, as no gradient is computed for these layers."""
    refit: bool = False
    """Fit the projection again after Distill, in closed form, to the features of the trained backbone (default: true).

    At most 3,000 training images are used, and no queries. The fewer there are, the less the projection changes."""
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
