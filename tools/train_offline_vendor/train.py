"""Train the image encoder of the offline vendor on the gathered corpus, and write the file that the package ships.

    python -m tools.train_offline_vendor.train --work <folder> --steps <n>

If it is interrupted and started again, it continues from the last checkpoint. Log: ``<folder>/train.log``; result:
``<folder>/vendor.safetensors`` and ``<folder>/vendor.json`` with the results on the validation drawings.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.train_offline_vendor.augment import Marks, varied
from tools.train_offline_vendor.corpus import Corpus
from tools.train_offline_vendor.finish import finish
from tools.train_offline_vendor.frozen import Frozen
from tools.train_offline_vendor.validate import groups, validate
from tools.train_offline_vendor.vocabulary import FORMS, Vocabulary, build, targets
from tools.train_offline_vendor.warm import warm
from tools.train_offline_vendor.wordnet import WordNet
from vl2v.teacher.offline.tower import DEVIATION, MEAN, ImageTower

SCALE = 20.0  # of the cosines, in the softmax over the vocabulary
SMALL, FULL, SMALL_PART = 112, 128, 0.6  # pixels, and the share of the steps at the smaller size
CHECKPOINT, VALIDATION = 200, 600  # intervals in steps
log = logging.getLogger("train")


@dataclass(frozen=True)
class Phase:
    """Settings of one of the two phases of training.

    Attributes:
        named, scenes: images with names and photographs without names in a step.
        reference: weight of the divergence from the frozen network.
        photos: factor of the probability of a photograph.
        rate, ramp: maximum factor of the learning rate, and the number of steps until it is reached.
        averaging: decay of the moving average of the weights.
    """

    named: int
    scenes: int
    reference: float
    photos: float
    rate: float
    ramp: int
    averaging: float


MAIN = Phase(named=56, scenes=8, reference=0.5, photos=1.0, rate=1.0, ramp=200, averaging=0.998)
POLISH = Phase(named=44, scenes=20, reference=2.0, photos=3.0, rate=0.4, ramp=50, averaging=0.995)


class Sampler:
    """A batch as a pure function of the seed and the step.

    Args:
        corpus: the tiles.
        vocabulary: the texts.
    """

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary) -> None:
        self.corpus, self.size = corpus, len(vocabulary.texts)
        self._chances = {phase: corpus.chances(phase.photos).cumsum() for phase in (MAIN, POLISH)}
        self._targets = targets(corpus.items, vocabulary.index())
        self._marks = torch.tensor([(item.mono, item.photo, item.opaque) for item in corpus.items])

    def named(self, count: int, step: int, side: int, phase: Phase = MAIN) -> tuple[Tensor, Tensor, Tensor]:
        """Return images [count, 3, side, side] in 0..1, targets [count, V], whether they are photographs [count]."""
        rng = np.random.default_rng((1, step))
        torch.manual_seed(step)
        chances = self._chances[phase]
        numbers = np.minimum(np.searchsorted(chances, rng.random(count)), len(chances) - 1)
        marks = Marks(*self._marks[numbers].unbind(dim=1))
        scenery = self.corpus.scenery(count, rng, side)
        images, photo = varied(self.corpus.batch(numbers), marks, scenery, side)
        wanted = torch.zeros(count, self.size)
        for row, number in enumerate(numbers):
            texts, weights = self._targets[number]
            wanted[row, texts] = weights
        return images, wanted, photo

    def scenes(self, count: int, step: int, side: int) -> Tensor:
        """Return photographs without names, [count, 3, side, side] in 0..1."""
        return self.corpus.scenery(count, np.random.default_rng((2, step)), side)


def loss_of(
    tower: ImageTower, frozen: Frozen, images: Tensor, wanted: Tensor, photo: Tensor, texts: Tensor, reference: float
) -> Tensor:
    """Return the loss of a step.

    Args:
        tower: the trained network.
        frozen: the network pretrained on ImageNet.
        images: [B, 3, S, S], normalised.
        wanted: [L, V] targets of the first L images, with rows that sum to one; the others have no name.
        photo: [B] bool, the images that are compared with the predictions of the frozen network.
        texts: [V, 384], unit vectors.
        reference: weight of this comparison.
    """
    named = len(wanted)
    states = frozen.early(images)
    features = tower.late(states, frozen.stages)
    surprise = -F.log_softmax(SCALE * tower.embeddings(features) @ texts.T, dim=1)  # [B, V]
    loss = (wanted * surprise[:named]).sum(dim=1).mean()
    rows = photo.nonzero().flatten()
    if len(rows):
        predicted, meant = frozen.predictions(states[rows])  # [R, 1000], [R, V]
        drift = F.kl_div(frozen.scores(features[rows]).log_softmax(dim=1), predicted, reduction="none").sum(dim=1)
        loss = loss + reference * (drift + (meant * surprise[rows]).sum(dim=1)).sum() / len(images)
    return loss


def rate(step: int, steps: int, phase: Phase) -> float:
    """Return the factor of the learning rate: a linear warm-up, then a cosine decay to zero."""
    return phase.rate * min(1.0, (step + 1) / phase.ramp) * 0.5 * (1 + math.cos(math.pi * step / steps))


def optimiser_of(tower: ImageTower, stages: int) -> torch.optim.AdamW:
    """Return AdamW for the pointwise convolutions and biases of the late stages and the projection; freeze the rest."""
    tower.requires_grad_(False)
    late = [*tower.stages[stages:], tower.top]
    for module in late:
        for name, weights in module.named_parameters():
            weights.requires_grad_("conv_dw.weight" not in name)  # half of the backward pass, and few weights
    tower.map.requires_grad_(True)
    pointwise = [w for module in late for w in module.parameters() if w.requires_grad and w.ndim > 1]
    biases = [w for module in late for w in module.parameters() if w.requires_grad and w.ndim == 1]
    return torch.optim.AdamW([
        {"params": pointwise, "lr": 2.5e-4, "weight_decay": 0.02},
        {"params": biases, "lr": 2.5e-4, "weight_decay": 0.0},
        {"params": [*tower.map.parameters()], "lr": 6e-4, "weight_decay": 0.01},
    ])  # fmt: skip


class Training:
    """The loop and its checkpoint.

    Args:
        work: the folder that gather filled.
        steps: of the main phase.
        polish: steps of the second phase, which uses more photographs.
    """

    def __init__(self, work: Path, steps: int, polish: int = 0) -> None:
        self.work, self.steps, self.polish = work, steps, polish
        self.corpus = Corpus(work / "corpus")
        wordnet = WordNet(work / "deb/wordnet-base/usr/share/wordnet")
        self.vocabulary = build(self.corpus.items, wordnet, work / "vocabulary.pt")
        log.info("%d tiles, %d texts", len(self.corpus.items), len(self.vocabulary.texts))
        self.sampler = Sampler(self.corpus, self.vocabulary)
        self.validation = groups(self.corpus, set(self.vocabulary.texts))
        self.frozen = Frozen(self.vocabulary)
        self.start = warm(work / "warm.pt", self.sampler, self.frozen, self.vocabulary)
        self.tower = self.frozen.fresh_tower(self.start)
        self.average = {name: w.detach().clone() for name, w in self.tower.state_dict().items()}
        self.optimiser = optimiser_of(self.tower, self.frozen.stages)
        self.rates = [group["lr"] for group in self.optimiser.param_groups]
        self.step = 0

    def embed(self, tower: ImageTower) -> Any:
        """Return the function that `validate` requires."""
        return lambda images: tower((images - MEAN) / DEVIATION)

    def averaged(self) -> ImageTower:
        """Return the network with the moving average of the weights."""
        tower = self.frozen.fresh_tower(self.start)
        tower.load_state_dict(self.average)
        return tower

    def save(self) -> None:
        """Write the checkpoint atomically."""
        state = {"step": self.step, "tower": self.tower.state_dict(), "average": self.average,
                 "optimiser": self.optimiser.state_dict()}  # fmt: skip
        torch.save(state, self.work / "checkpoint.new")
        (self.work / "checkpoint.new").replace(self.work / "checkpoint.pt")

    def resume(self) -> None:
        """Load the checkpoint, if there is one."""
        path = self.work / "checkpoint.pt"
        if path.exists():
            state = torch.load(path, weights_only=True)
            self.step = state["step"]
            self.tower.load_state_dict(state["tower"])
            self.average = state["average"]
            self.optimiser.load_state_dict(state["optimiser"])
            log.info("resumed at step %d", self.step)

    def one_step(self) -> float:
        """Train on one batch; return its loss."""
        side = SMALL if self.step < SMALL_PART * self.steps else FULL
        phase, first, steps = (MAIN, 0, self.steps) if self.step < self.steps else (POLISH, self.steps, self.polish)
        images, wanted, photo = self.sampler.named(phase.named, self.step, side, phase)
        images = torch.cat([images, self.sampler.scenes(phase.scenes, self.step, side)])
        photo = torch.cat([photo, torch.ones(phase.scenes, dtype=torch.bool)])
        images = ((images - MEAN) / DEVIATION).contiguous(memory_format=torch.channels_last)
        form = self.step // 2 % len(FORMS) if self.step % 2 else 0  # every other step uses plain names
        texts = self.vocabulary.embeddings[form]
        loss = loss_of(self.tower, self.frozen, images, wanted, photo, texts, phase.reference)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([w for w in self.tower.parameters() if w.requires_grad], 5.0)
        for group, full in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = full * rate(self.step - first, steps, phase)
        self.optimiser.step()
        self.step += 1
        pace = min(phase.averaging, self.step / (self.step + 20))
        for name, weights in self.tower.named_parameters():
            if weights.requires_grad:
                self.average[name].lerp_(weights.detach(), 1 - pace)
        return float(loss.detach())

    def run(self) -> None:
        """Train to the end, and log a line every 50 steps."""
        self.resume()
        losses: list[float] = []
        began, first, last = time.monotonic(), self.step, self.steps + self.polish
        while self.step < last:
            losses.append(self.one_step())
            if self.step % 50 == 0:
                speed = (self.step - first) * (MAIN.named + MAIN.scenes) / (time.monotonic() - began)
                log.info("step %d loss %.4f, %.1f images/s", self.step, sum(losses) / len(losses), speed)
                losses.clear()
            if self.step % CHECKPOINT == 0 or self.step in (self.steps, last):
                self.save()
            if self.step % VALIDATION == 0:
                table = validate(self.embed(self.averaged()), self.validation, self.vocabulary)
                log.info("validation %s", json.dumps(table))


def main() -> None:
    """Train and write the file of the package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="the folder that gather filled")
    parser.add_argument("--steps", type=int, default=3000, help="steps of 64 images")
    parser.add_argument("--polish", type=int, default=0, help="further steps with more photographs")
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    handlers: list[logging.Handler] = [logging.StreamHandler(), logging.FileHandler(a.work / "train.log")]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=handlers)
    training = Training(a.work, a.steps, a.polish)
    training.run()
    finish(a.work, training)


if __name__ == "__main__":
    main()
