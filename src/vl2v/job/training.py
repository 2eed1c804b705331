"""Align and Distill on a run's rows, from any step on, with the state saved on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from vl2v.config import RunConfig
from vl2v.errors import Interrupted
from vl2v.job.features import keep_features, pass_through, scores
from vl2v.job.folder import RunFolder, State
from vl2v.job.material import Material, Server, context_of
from vl2v.method.align import align
from vl2v.method.distill import Projected, distill, trainable
from vl2v.method.evaluation import Score, mean_over_domains
from vl2v.method.loop import adam
from vl2v.method.registry import METHODS
from vl2v.method.swad import LossValley
from vl2v.progress import Advance, Progress
from vl2v.student.backbones import Backbone
from vl2v.student.model import cosine_logits
from vl2v.task.splits import Indices

Weights = dict[str, Tensor]


@dataclass
class Trainer:
    """The two stages of one run.

    Args:
        config: the run's settings.
        folder: where state and metrics go.
        accelerator: device, precision and processes.
        backbone: f, trained in place.
        projection: P.
        material: what to train on.
        progress: told after every step.
        stop: asked after every step whether the user wants to stop.
    """

    config: RunConfig
    folder: RunFolder
    accelerator: Accelerator
    backbone: Backbone
    projection: nn.Module
    material: Material
    progress: Progress
    stop: Callable[[], bool] = lambda: False
    _losses: list[float] = field(default_factory=list)
    _scores: dict[str, Score] = field(default_factory=dict)
    _best: tuple[float, Weights] = (-1.0, {})
    _metrics_length: int = 0

    def __post_init__(self) -> None:
        config, material = self.config, self.material
        self.method = METHODS[config.method]
        self._server = Server(config, material, self.backbone.preprocess, self.accelerator)
        self._objective = self.method.objective(context_of(config, material))
        side = self.backbone.preprocess.size  # built here, where the backbone is still the pretrained one
        build = self.method.penalty
        self._penalty = build(self.backbone.module, torch.zeros(2, 3, side, side)) if build else None

    def run(self, state: State | None) -> Weights:
        """Train from a saved state, or from the start, to the end.

        Returns:
            The backbone's weights to keep, by the names of `trainable`, on the CPU: averaged, best or last.

        Raises:
            Interrupted: if the user asked to stop; the state is saved.
            TrainingError: if a loss is not finite.
        """
        if state is not None:
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
        return self._distill(state if distilling else None)

    def _restore(self, state: State) -> None:
        self._losses, self._metrics_length = list(state.values["losses"]), int(state.values["metrics"])
        self._best = (float(state.values["best"]), state.part("best"))
        self.projection.load_state_dict(state.part("projection"))
        if state.values["stage"] == "distill":
            self.backbone.module.load_state_dict(state.part("backbone"))
        if self._penalty is not None:
            with torch.no_grad():  # what it trains, and not the pretrained backbone beside it
                for name, parameter in trainable(self._penalty).items():
                    parameter.copy_(state.part("penalty")[name])
        if self.accelerator.is_main_process:
            self.folder.cut_metrics(self._metrics_length)

    def _align(self, state: State | None) -> None:
        settings, steps = self.config.align, self.config.first_stage_steps
        start = int(state.values["step"]) if state else 0
        if start >= steps:
            return
        rows, held = self._features("train", self.material.slots), self._held_features()
        optimizer = adam(self.projection.parameters(), settings.learning_rate, settings.weight_decay)
        _load_adam(optimizer, state)

        with self.progress.stage(self.method.stages[0], steps, start) as advance:

            def after(step: int, loss: float) -> bool:
                if self._due(step, steps):
                    self._scores = self._score_features(held)
                return self._after("align", step, loss, steps, optimizer, None, advance)

            align(
                self.projection,
                self._server.features(rows, start, steps),
                objective=self._objective,
                optimizer=optimizer,
                accelerator=self.accelerator,
                first_step=start,
                after_step=after,
            )

    def _distill(self, state: State | None) -> Weights:
        settings = self.config.distill
        start = int(state.values["step"]) if state else 0
        backbone = self.backbone.module if self.method.trains_backbone else nn.Identity()
        weights = trainable(backbone, self.projection if self.method.trains_layer else None)
        optimizer = adam(weights.values(), settings.learning_rate, settings.weight_decay)
        if self._penalty is not None:
            faster = settings.learning_rate * self.config.miro.learning_rate_factor
            optimizer.add_param_group({"params": list(trainable(self._penalty).values()), "lr": faster})
        _load_adam(optimizer, state)
        swad = LossValley(**settings.swad.model_dump()) if settings.weights == "swad" else None
        if swad is not None and state is not None:
            swad.load_state(state.part("swad"), state.values["swad"])
        model, held = Projected(backbone, self.projection), {}
        if start < settings.steps and not self.method.trains_backbone:
            rows, held = self._features("train", self.material.slots), self._held_features()
            batches = self._server.features(rows, start, settings.steps)
        else:
            batches = self._server.images(start, settings.steps)

        def validate(step: int) -> float | None:
            if not self._due(step, settings.steps):
                return None
            if held:
                self._scores = self._score_features(held)
            else:
                self._scores = scores(
                    lambda slots: self._pixel_logits(model, slots), self.material.validation, self.accelerator
                )
            mean = mean_over_domains(self._scores.values())
            if settings.weights == "best" and mean.accuracy >= self._best[0]:
                self._best = (mean.accuracy, _to_cpu(weights))
            return mean.loss

        if start < settings.steps and (swad is None or swad.dead_at is None):
            with self.progress.stage(self.method.stages[1], settings.steps, start) as advance:
                distilled = distill(
                    backbone,
                    self.projection,
                    batches,
                    objective=self._objective,
                    train_projection=self.method.trains_layer,
                    penalty=self._penalty,
                    swad=swad,
                    validate=validate,
                    optimizer=optimizer,
                    accelerator=self.accelerator,
                    first_step=start,
                    after_step=lambda step, loss: self._after(
                        "distill", step, loss, settings.steps, optimizer, swad, advance
                    ),
                )
            if distilled.died:
                self.progress.note(f"the loss valley ended at step {distilled.last_step}; training stopped")
        if swad is not None:
            return swad.average()
        return self._best[1] if settings.weights == "best" else _to_cpu(weights)

    def _due(self, step: int, steps: int) -> bool:
        return step % self.config.distill.checkpoint_every == 0 or step == steps - 1

    def _after(
        self,
        stage: str,
        step: int,
        loss: float,
        steps: int,
        optimizer: torch.optim.Optimizer,
        swad: LossValley | None,
        advance: Advance,
    ) -> bool:
        """Note the loss; at a checkpoint write metrics and state; save and leave if the user wants to stop."""
        self._losses.append(loss)
        advance(1)
        due, stop = self._due(step, steps), self._stop_asked()
        if due and self.accelerator.is_main_process:
            self._metrics_length = self.folder.add_metrics(self._metrics(stage, step, swad))
        if due:
            self._losses = []
        if (due or stop) and self.accelerator.is_main_process:
            self._save(stage, step + 1, optimizer, swad)
        if stop:
            raise Interrupted(
                f"Stopped after step {step} of {self.method.stages[stage == 'distill']}; everything so far is saved.",
                next_step=f"go on: vl2v distill --out {self.folder.path} --resume",
            )
        return False

    def _metrics(self, stage: str, step: int, swad: LossValley | None) -> dict[str, Any]:
        mean = mean_over_domains(self._scores.values())
        line: dict[str, Any] = {"stage": stage, "step": step, "losses": self._losses}
        line |= {"val_loss": mean.loss, "val_accuracy": mean.accuracy}
        line["domains"] = {d: {"loss": s.loss, "accuracy": s.accuracy} for d, s in self._scores.items()}
        if swad is not None:
            line |= {"converged_at": swad.converged_at, "dead_at": swad.dead_at, "threshold": swad.threshold}
        return line

    def _save(self, stage: str, step: int, optimizer: torch.optim.Optimizer, swad: LossValley | None) -> None:
        values: dict[str, Any] = {"stage": stage, "step": step, "digest": self.material.digest}
        values |= {"losses": self._losses, "metrics": self._metrics_length, "best": self._best[0]}
        tensors = _under("projection", self.projection.state_dict()) | _under("best", self._best[1])
        if stage == "distill":
            tensors |= _under("backbone", self.backbone.module.state_dict())
        if self._penalty is not None:
            tensors |= _under("penalty", dict(trainable(self._penalty)))
        for i, entry in optimizer.state_dict()["state"].items():
            tensors |= _under(f"adam/{i}", entry)
        if swad is not None:
            kept, values["swad"] = swad.state()
            tensors |= _under("swad", kept)
        self.folder.save_state(tensors, values)

    def _stop_asked(self) -> bool:
        asked = self.stop()
        if self.accelerator.num_processes > 1:  # all leave at the same step
            flag = torch.tensor(float(asked), device=self.accelerator.device)
            asked = bool(self.accelerator.reduce(flag, "sum") > 0)
        return asked

    def _features(self, name: str, slots: Indices) -> NDArray[np.float32]:
        return keep_features(
            self.backbone.module,
            self.backbone.preprocess,
            self.material.pixels,
            slots,
            self.folder.work / f"features-{name}.npy",
            self.backbone.features,
            self.accelerator,
            self.progress,
            f"features of {name}",
        )

    def _held_features(self) -> dict[str, NDArray[np.float32]]:
        validation = self.material.validation
        return {domain: self._features(f"validation-{domain}", slots) for domain, (slots, _) in validation.items()}

    @torch.no_grad()
    def _score_features(self, held: dict[str, NDArray[np.float32]]) -> dict[str, Score]:
        found: dict[str, Score] = {}
        for domain, features in held.items():
            rows = np.arange(len(features), dtype=np.int64)
            labelled = {domain: (rows, self.material.validation[domain][1])}
            found |= scores(partial(self._head_logits, features), labelled, self.accelerator)
        return found

    def _head_logits(self, features: NDArray[np.float32], places: Indices) -> Iterator[Tensor]:
        for start in range(0, len(places), 4096):
            part = torch.from_numpy(features[places[start : start + 4096]]).to(self.accelerator.device)
            yield self._logits(self.projection(part))

    def _pixel_logits(self, model: nn.Module, slots: Indices) -> Iterator[Tensor]:
        passed = pass_through(model, self.backbone.preprocess, self.material.pixels, slots, self.accelerator.device)
        return (self._logits(projected) for projected in passed)

    def _logits(self, projected: Tensor) -> Tensor:
        if self.method.classifier == "linear":
            return projected[:, : len(self.material.head)].float()
        return cosine_logits(projected.float(), self.material.head.to(projected.device), self.material.logit_scale)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _to_cpu(weights: dict[str, nn.Parameter]) -> Weights:
    return {name: parameter.detach().cpu().clone() for name, parameter in weights.items()}


def _load_adam(optimizer: torch.optim.Optimizer, state: State | None) -> None:
    if state is None:
        return
    content = optimizer.state_dict()
    count = sum(len(group["params"]) for group in content["param_groups"])
    entries = {i: state.part(f"adam/{i}") for i in range(count)}
    content["state"] = {i: entry for i, entry in entries.items() if entry}
    optimizer.load_state_dict(content)
