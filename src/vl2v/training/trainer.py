"""Run Align and Distill from any step, saving the state on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn

from vl2v.config import RunConfig
from vl2v.errors import Interrupted
from vl2v.evaluation.metrics import metrics_line
from vl2v.evaluation.reference import LABELS, TEACHER
from vl2v.hints import resume_command
from vl2v.method.align import align
from vl2v.method.base import Context
from vl2v.method.distill import Projected, distill, trainable
from vl2v.method.evaluation import Score, mean_over_domains
from vl2v.method.loop import Batch, warmed_up
from vl2v.method.registry import METHODS
from vl2v.method.swad import LossValley
from vl2v.micro_batch import MicroBatch
from vl2v.progress import Advance, Progress
from vl2v.runs.folder import RunFolder, State
from vl2v.shards import Shards, sharding
from vl2v.student.backbones import Backbone
from vl2v.training.adam import adam_of, adam_tensors, load_adam, set_rates
from vl2v.training.align_options import Average, average_of, solve_projection
from vl2v.training.data import BatchLoader, TrainingData
from vl2v.training.feature_cache import training_features
from vl2v.training.fresh import FreshViews
from vl2v.training.parts import LossParts
from vl2v.training.process import requested_anywhere
from vl2v.training.thread_count import can_shard
from vl2v.training.validation import Validator
from vl2v.training.weights import TrainedWeights, WeightSelector, under


@dataclass
class Trainer:
    """The two stages of one run.

    Args:
        stop: called after every step; returns whether the user wants to stop.
        fresh: queried for every augmented image of the second stage; None if the stored embeddings are used.
        on_save: called when metrics and state are on disk, in the first process.
    """

    config: RunConfig
    folder: RunFolder
    accelerator: Accelerator
    backbone: Backbone
    projection: nn.Module
    data: TrainingData
    progress: Progress
    stop: Callable[[], bool] = lambda: False
    fresh: FreshViews | None = None
    on_save: Callable[[], None] = lambda: None
    _losses: list[float] = field(default_factory=list)
    _scores: dict[str, Score] = field(default_factory=dict)
    _metrics_length: int = 0

    def __post_init__(self) -> None:
        config, data = self.config, self.data
        self.method = METHODS[config.method]
        self._loader = BatchLoader(config, data, self.backbone.preprocess, self.accelerator, self.fresh)
        self._average = average_of(config)
        self._selector = WeightSelector(config.distill, config.measure)
        weight, settings = config.image_weight, config.method_settings
        context = Context(data.head, data.logit_scale, settings, weight, data.method_texts)
        self._parts = LossParts(self.method.objective(context))
        processes, compiled = self.accelerator.num_processes, config.compile
        self._micro = MicroBatch(config.micro_batch, self.progress.note, processes, compiled)
        self._validator = Validator(self.method, data, self.backbone, self.projection, self.accelerator)
        side = self.backbone.preprocess.size  # the penalty needs the pretrained backbone
        build = self.method.penalty
        self._penalty = build(self.backbone.module, torch.zeros(2, 3, side, side)) if build else None

    def run(self, state: State | None) -> TrainedWeights:
        """Train from a saved state, or from the start, to the end.

        Returns:
            The selected weights and the alternatives to evaluate.

        Raises:
            Interrupted: if the user stops the run; the state is saved.
            TrainingError: if a loss is not finite, or memory does not suffice.
        """
        if state is not None:
            with self.folder.state_fits():
                self._restore(state)
        elif self.accelerator.is_main_process:
            self.folder.cut_metrics(0)
        # Convolutions are 1.5 times as fast in this layout, on a CPU and on tensor cores.
        self.backbone.module.to(self.accelerator.device).to(memory_format=torch.channels_last)
        self.projection.to(self.accelerator.device)
        if self._penalty is not None:
            self._penalty.to(self.accelerator.device).to(memory_format=torch.channels_last)
        distilling = state is not None and state.values["stage"] == "distill"
        if not isinstance(self.projection, nn.Identity) and not distilling:
            self._align(state)
            if self._average is not None:
                self.projection.load_state_dict(self._average.average())
        return self._distill(state if distilling else None)

    def _restore(self, state: State) -> None:
        self._losses, self._metrics_length = list(state.values["losses"]), int(state.values["metrics"])
        self._parts.load(state.values.get("parts", {}))
        self._micro.size = state.values.get("micro_batch", self._micro.size)
        self.projection.load_state_dict(state.part("projection"))
        if state.values["stage"] == "distill":
            self.backbone.module.load_state_dict(state.part("backbone"))
            self._selector.load_state(state)
        elif self._average is not None:
            self._average.load_state(state.part("swad"), state.values["swad"])
        if self.fresh is not None:
            self.fresh.queries = int(state.values["fresh_queries"])
        if self._penalty is not None:
            with torch.no_grad():  # only its trained parameters, not its pretrained backbone
                for name, parameter in trainable(self._penalty).items():
                    parameter.copy_(state.part("penalty")[name])
        if self.accelerator.is_main_process:
            self.folder.cut_metrics(self._metrics_length)

    def _align(self, state: State | None) -> None:
        settings, steps = self.config.align, self.config.first_stage_steps
        start = int(state.values["step"]) if state else 0
        if start >= steps or _died(self._average):
            return
        features = self._features()
        optimizer = adam_of(self.config, settings, trainable(nn.Identity(), self.projection))
        with self.folder.state_fits():
            load_adam(optimizer, state)
        weights, average = dict(self.projection.named_parameters()), self._average

        with self.progress.stage(self.method.stages[0], steps, start) as advance:

            def after(step: int, loss: float) -> bool:
                if average is not None:
                    average.update(step, weights)
                if self._due(step, steps):
                    self._scores = self._validator.of_features(features)
                    if isinstance(average, LossValley):
                        average.end_segment(step, mean_over_domains(self._scores.values()).loss)
                return self._after("align", step, loss, steps, optimizer, advance) or _died(average)

            if settings.solver == "ridge":
                after(0, solve_projection(self.projection, features[self.data.slots], self.data, self.config))
                return
            align(
                self.projection,
                self._loader.features(features, start, steps),
                objective=self._parts,
                optimizer=optimizer,
                accelerator=self.accelerator,
                first_step=start,
                after_step=after,
            )

    def _distill(self, state: State | None) -> TrainedWeights:
        settings, selector, method = self.config.distill, self._selector, self.method
        start, steps = int(state.values["step"]) if state else 0, settings.steps
        backbone = self.backbone.module if method.trains_backbone else nn.Identity()
        weights = trainable(backbone, self.projection, None if method.trains_layer else method.extra_parameters)
        optimizer = adam_of(self.config, settings, weights, self._penalty)
        with self.folder.state_fits():
            load_adam(optimizer, state)
        rates = [group["lr"] for group in optimizer.param_groups]
        selector.begin(weights)
        batches, score = self._batches(start, backbone)

        def after(step: int, loss: float) -> bool:
            done = self._after("distill", step, loss, steps, optimizer, advance)
            set_rates(optimizer, rates, warmed_up(step + 1, settings.warmup_steps))
            return done

        set_rates(optimizer, rates, warmed_up(start, settings.warmup_steps))
        if start < steps and (selector.swad is None or selector.swad.dead_at is None):
            with self.progress.stage(method.stages[1], steps, start) as advance, self._shards() as shards:
                distilled = distill(
                    backbone,
                    self.projection,
                    batches,
                    objective=self._parts,
                    train_projection=method.trains_layer or method.extra_parameters,
                    penalty=self._penalty,
                    swad=selector.swad,
                    validate=partial(self._validate, weights, score),
                    optimizer=optimizer,
                    accelerator=self.accelerator,
                    shards=shards,
                    micro=self._micro,
                    first_step=start,
                    after_step=after,
                )
            if distilled.valley_ended:
                self.progress.note(f"the loss valley ended at step {distilled.last_step}; training stopped")
        return selector.trained(weights)

    def _validate(
        self, weights: Mapping[str, nn.Parameter], score: Callable[[], dict[str, Score]], step: int
    ) -> float | None:
        """Validate Distill if it is due after a step, and return the mean loss."""
        if not self._due(step, self.config.distill.steps):
            return None
        self._scores = score()
        mean = mean_over_domains(self._scores.values())
        self._selector.validated(mean, weights)
        return mean.loss

    def _batches(self, start: int, backbone: nn.Module) -> tuple[Iterator[Batch], Callable[[], dict[str, Score]]]:
        """Return the batches of Distill, and a function that scores the validation images.

        If the method does not train the backbone, both use cached features.
        """
        steps = self.config.distill.steps
        if start < steps and not self.method.trains_backbone:
            features = self._features()
            return self._loader.features(features, start, steps), partial(self._validator.of_features, features)
        model = Projected(backbone, self.projection)
        return self._loader.images(start, steps), partial(self._validator.of_images, model)

    def _shards(self) -> AbstractContextManager[Shards]:
        """Return the threads that share the batches of Distill."""
        backbone = self.backbone
        # A local teacher needs all threads itself. A penalty reads features from hooks, which threads would share.
        needs_full_batch = self.fresh is not None or not self.method.trains_backbone or self._penalty is not None
        divided = not (needs_full_batch or self.config.compile) and can_shard(
            backbone.module, backbone.preprocess.size, self.accelerator
        )
        return sharding(sum(self.data.shares), divided)

    def _due(self, step: int, steps: int) -> bool:
        return step % self.config.distill.checkpoint_every == 0 or step == steps - 1

    def _after(
        self, stage: str, step: int, loss: float, steps: int, optimizer: torch.optim.Optimizer, advance: Advance
    ) -> bool:
        """Record the loss, write metrics and state at a checkpoint, and stop if the user wants to."""
        self._losses.append(loss)
        advance(1)
        due, stop = self._due(step, steps), requested_anywhere(self.stop(), self.accelerator)
        parts = self._parts.sums(self.accelerator) if due or stop else {}
        if due and self.accelerator.is_main_process:
            swad = self._average if stage == "align" else self._selector.swad
            solved = stage == "align" and self.config.align.solver == "ridge"
            rate = None if solved else optimizer.param_groups[0]["lr"]
            reference = TEACHER if self.config.data.classes else LABELS
            line = metrics_line(stage, step, self._losses, self._scores, rate, swad, reference, parts)
            self._metrics_length = self.folder.add_metrics(line)
        if due:
            self._losses, parts = [], {}
            self._parts.clear()
        if (due or stop) and self.accelerator.is_main_process:
            self._save(stage, step + 1, optimizer, parts)
        if stop:
            raise Interrupted(
                f"Stopped after step {step} of {self.method.stages[stage == 'distill']}; the state is saved.",
                next_step=f"continue: {resume_command(self.folder.path)}",
            )
        return False

    def _save(self, stage: str, step: int, optimizer: torch.optim.Optimizer, parts: Mapping[str, float]) -> None:
        values: dict[str, Any] = {"stage": stage, "step": step, "digest": self.data.digest}
        values |= {"losses": self._losses, "metrics": self._metrics_length}
        values |= {"parts": dict(parts)} if parts else {}
        values |= {"micro_batch": self._micro.size} if self._micro.size else {}
        if self.fresh is not None:
            values["fresh_queries"] = self.fresh.queries
        tensors = under("projection", self.projection.state_dict())
        if stage == "align" and self._average is not None:
            segments, values["swad"] = self._average.state()
            tensors |= under("swad", segments)
        if stage == "distill":
            sets, more = self._selector.state()
            tensors |= under("backbone", self.backbone.module.state_dict()) | sets
            values |= more
        if self._penalty is not None:
            tensors |= under("penalty", trainable(self._penalty))
        self.folder.save_state(tensors | adam_tensors(optimizer), values)
        self.on_save()

    def _features(self) -> NDArray[np.float32]:
        """f(x) by slot, [slots, F], of the training and the validation images."""
        title = f"features for {self.method.stages[0]}"
        return training_features(self.data, self.backbone, self.accelerator, self.progress, title)


def _died(average: Average | None) -> bool:
    return isinstance(average, LossValley) and average.dead_at is not None
