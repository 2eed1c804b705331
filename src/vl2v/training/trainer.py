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
from torch import Tensor, nn

from vl2v.config import AlignConfig, DistillConfig, RunConfig
from vl2v.data.splits import Indices
from vl2v.errors import Interrupted
from vl2v.evaluation.features import pass_through, scores
from vl2v.evaluation.metrics import metrics_line
from vl2v.evaluation.reference import LABELS, TEACHER
from vl2v.hints import resume_command
from vl2v.method.align import align
from vl2v.method.distill import Projected, distill, trainable
from vl2v.method.evaluation import Score, mean_over_domains
from vl2v.method.loop import adam, warmed_up
from vl2v.method.registry import METHODS
from vl2v.method.swad import LossValley
from vl2v.micro_batch import MicroBatch
from vl2v.progress import Advance, Progress
from vl2v.runs.folder import RunFolder, State
from vl2v.shards import Shards, sharding
from vl2v.student.backbones import Backbone
from vl2v.student.model import cosine_logits
from vl2v.training.adam import adam_tensors, load_adam, set_rates
from vl2v.training.aligning import Average, average_of, solve
from vl2v.training.data import BatchLoader, TrainingData, context_of
from vl2v.training.feature_cache import FeatureCache
from vl2v.training.fresh import FreshViews
from vl2v.training.pace import can_shard
from vl2v.training.parts import LossParts
from vl2v.training.weights import TrainedWeights, WeightSelector, under


@dataclass
class Trainer:
    """The two stages of one run.

    Args:
        config: the run's settings.
        folder: where state and metrics go.
        accelerator: device, precision and processes.
        backbone: f, trained in place.
        projection: P.
        data: what to train on.
        progress: told after every step.
        stop: asked after every step whether the user wants to stop.
        fresh: queried for every augmented image of the second stage; None if the stored embeddings are used.
        saved: called when metrics and state are on disk, in the first process.
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
    saved: Callable[[], None] = lambda: None
    _losses: list[float] = field(default_factory=list)
    _scores: dict[str, Score] = field(default_factory=dict)
    _metrics_length: int = 0

    def __post_init__(self) -> None:
        config, data = self.config, self.data
        self.method = METHODS[config.method]
        self._loader = BatchLoader(config, data, self.backbone.preprocess, self.accelerator, self.fresh)
        self._average = average_of(config)
        self._selector = WeightSelector(config.distill, config.measure)
        self._parts = LossParts(self.method.objective(context_of(config, data)))
        processes, compiled = self.accelerator.num_processes, config.compile
        self._micro = MicroBatch(config.micro_batch, self.progress.note, processes, compiled)
        side = self.backbone.preprocess.size  # built here, where the backbone is still the pretrained one
        build = self.method.penalty
        self._penalty = build(self.backbone.module, torch.zeros(2, 3, side, side)) if build else None

    def run(self, state: State | None) -> TrainedWeights:
        """Train from a saved state, or from the start, to the end.

        Returns:
            The selected weights and the alternatives to evaluate.

        Raises:
            Interrupted: if the user asked to stop; the state is saved.
            TrainingError: if a loss is not finite, or memory does not suffice.
        """
        if state is not None:
            with self.folder.state_fits():
                self._restore(state)
        elif self.accelerator.is_main_process:
            self.folder.cut_metrics(0)
        # Convolutions run half as fast again in this layout on a CPU, and on tensor cores.
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
            with torch.no_grad():  # what it trains, and not the pretrained backbone beside it
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
        optimizer = self._adam(trainable(nn.Identity(), self.projection), settings)
        with self.folder.state_fits():
            load_adam(optimizer, state)
        weights, average = dict(self.projection.named_parameters()), self._average

        with self.progress.stage(self.method.stages[0], steps, start) as advance:

            def after(step: int, loss: float) -> bool:
                if average is not None:
                    average.update(step, weights)
                if self._due(step, steps):
                    self._scores = self._score_features(features)
                    if isinstance(average, LossValley):
                        average.end_segment(step, mean_over_domains(self._scores.values()).loss)
                return self._after("align", step, loss, steps, optimizer, advance) or _died(average)

            if settings.solver == "ridge":
                after(0, solve(self.projection, features[self.data.slots], self.data, self.config))
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
        settings, selector = self.config.distill, self._selector
        start = int(state.values["step"]) if state else 0
        backbone = self.backbone.module if self.method.trains_backbone else nn.Identity()
        learning = None if self.method.trains_layer else self.method.extra_parameters
        weights = trainable(backbone, self.projection, learning)
        optimizer = self._adam(weights, settings)
        if self._penalty is not None:
            rate = settings.learning_rate * self.method.penalty_rate(self.config.method_settings)
            optimizer.add_param_group({"params": list(trainable(self._penalty).values()), "lr": rate})
        with self.folder.state_fits():
            load_adam(optimizer, state)
        rates = [group["lr"] for group in optimizer.param_groups]
        selector.begin(weights)
        model, features = Projected(backbone, self.projection), None
        if start < settings.steps and not self.method.trains_backbone:
            features = self._features()
            batches = self._loader.features(features, start, settings.steps)
        else:
            batches = self._loader.images(start, settings.steps)

        def validate(step: int) -> float | None:
            if not self._due(step, settings.steps):
                return None
            if features is not None:
                self._scores = self._score_features(features)
            else:
                self._scores = self._score(lambda slots: self._pixel_logits(model, slots))
            mean = mean_over_domains(self._scores.values())
            selector.validated(mean, weights)
            return mean.loss

        def after(step: int, loss: float) -> bool:
            done = self._after("distill", step, loss, settings.steps, optimizer, advance)
            set_rates(optimizer, rates, warmed_up(1, step + 1, settings.warmup_steps))
            return done

        set_rates(optimizer, rates, warmed_up(1, start, settings.warmup_steps))
        if start < settings.steps and (selector.swad is None or selector.swad.dead_at is None):
            with self.progress.stage(self.method.stages[1], settings.steps, start) as advance, self._shards() as shards:
                distilled = distill(
                    backbone,
                    self.projection,
                    batches,
                    objective=self._parts,
                    train_projection=self.method.trains_layer or self.method.extra_parameters,
                    penalty=self._penalty,
                    swad=selector.swad,
                    validate=validate,
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

    def _shards(self) -> AbstractContextManager[Shards]:
        """The threads that share the batches of Distill."""
        model = Projected(self.backbone.module, self.projection, self._penalty)
        whole = self.fresh is not None or not self.method.trains_backbone  # a local teacher needs all threads itself
        divided = (
            not whole and not self.config.compile and can_shard(model, self.backbone.preprocess.size, self.accelerator)
        )
        return sharding(sum(self.data.shares), divided)

    def _adam(self, weights: Mapping[str, nn.Parameter], settings: AlignConfig | DistillConfig) -> torch.optim.Adam:
        """Adam as a stage's settings say; what has a rate of its own comes last and is not decayed."""
        own = {f"projection/{name}" for name in self.method.extra_parameters} & weights.keys()
        rest = [parameter for name, parameter in weights.items() if name not in own]
        optimizer = adam(rest, settings.learning_rate, settings.weight_decay)
        if own:
            apart = {"lr": self.method.extra_rate(self.config.method_settings), "weight_decay": 0.0}
            optimizer.add_param_group({"params": [weights[name] for name in sorted(own)], **apart})
        return optimizer

    def _due(self, step: int, steps: int) -> bool:
        return step % self.config.distill.checkpoint_every == 0 or step == steps - 1

    def _after(
        self,
        stage: str,
        step: int,
        loss: float,
        steps: int,
        optimizer: torch.optim.Optimizer,
        advance: Advance,
    ) -> bool:
        """Note the loss; at a checkpoint write metrics and state; save and leave if the user wants to stop."""
        self._losses.append(loss)
        advance(1)
        due, stop = self._due(step, steps), self._stop_asked()
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
        self.saved()

    def _stop_asked(self) -> bool:
        asked = self.stop()
        if self.accelerator.num_processes > 1:  # all leave at the same step
            flag = torch.tensor(float(asked), device=self.accelerator.device)
            asked = bool(self.accelerator.reduce(flag, "sum") > 0)
        return asked

    def _features(self) -> NDArray[np.float32]:
        """f(x) by slot, [slots, F], of the training and the validation images."""
        m, b = self.data, self.backbone
        cache = FeatureCache(m.cache, b.module, b.preprocess, m.pixels, b.features)
        slots = np.concatenate([m.slots, *(slots for slots, _ in m.validation.values())])
        return cache.of(slots, self.accelerator, self.progress, f"features for {self.method.stages[0]}")

    @torch.no_grad()
    def _score_features(self, features: NDArray[np.float32]) -> dict[str, Score]:
        return self._score(partial(self._head_logits, features))

    def _score(self, logits: Callable[[Indices], Iterator[Tensor]]) -> dict[str, Score]:
        return scores(logits, self.data.validation, len(self.data.head), self.accelerator)

    def _head_logits(self, features: NDArray[np.float32], slots: Indices) -> Iterator[Tensor]:
        for start in range(0, len(slots), 4096):
            part = torch.from_numpy(features[slots[start : start + 4096]]).to(self.accelerator.device)
            yield self._logits(self.projection(part))

    def _pixel_logits(self, model: nn.Module, slots: Indices) -> Iterator[Tensor]:
        passed = pass_through(model, self.backbone.preprocess, self.data.pixels, slots, self.accelerator.device)
        return (self._logits(projected) for projected in passed)

    def _logits(self, projected: Tensor) -> Tensor:
        if self.method.classifier == "linear":
            return projected[:, : len(self.data.head)].float()
        head, scale = self.data.head.to(projected.device), self.data.logit_scale
        return cosine_logits(projected[:, : head.shape[1]].float(), head, scale * self.method.gain(self.projection))


def _died(average: Average | None) -> bool:
    return isinstance(average, LossValley) and average.dead_at is not None
