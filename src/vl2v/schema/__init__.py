"""The settings of a run, block by block.

A field with an `Option` has an option on the command line, and the first paragraph of its docstring is the help of the
option (see `vl2v.cli.settings`). Nothing here imports torch, so that the command line starts quickly; `vl2v.config`
adds the blocks of the methods and the checks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from vl2v.method.registry import BUILT_IN
from vl2v.options import Option, Panel
from vl2v.recipes import PAPER, RecipeName
from vl2v.schema.inputs import DataConfig as DataConfig
from vl2v.schema.inputs import Money, StudentConfig, TeacherConfig
from vl2v.schema.stages import AlignConfig as AlignConfig
from vl2v.schema.stages import DistillConfig as DistillConfig
from vl2v.schema.stages import MeasureConfig as MeasureConfig
from vl2v.schema.stages import Metric as Metric
from vl2v.schema.stages import minutes_of as minutes_of
from vl2v.strict import Fraction, Positive, Strict

TrackerName = Literal["tensorboard", "wandb", "mlflow"]
DEFAULT_METHOD, RECIPE, *BASELINES = BUILT_IN


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
    threads: Annotated[Annotated[int, Field(ge=1, le=1024)] | None, Panel.machine] = None
    """Number of CPU threads (default: measured before the first step).

    The measured number is written to `config.yaml`."""
    tracking: Annotated[tuple[TrackerName, ...], Option("Machine", ("--track",))] = ()
    """Tracker in addition to metrics.jsonl: tensorboard, wandb or mlflow; repeatable."""
    made_with: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    """Versions and machine; written by the run."""
    origin: str = ""
    """Identifier of the run, which its metrics and training state contain as well; written by the run."""
