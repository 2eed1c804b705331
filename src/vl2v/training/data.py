"""The training data, and the batches made from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from vl2v.config import RunConfig
from vl2v.data.augment import Augmentation
from vl2v.data.batches import AugmentedPixels, Streams, augmented_batches, stage_seed
from vl2v.data.splits import ExampleRows, Slots
from vl2v.evaluation.evaluation import IN_DOMAIN
from vl2v.evaluation.features import Validation
from vl2v.evaluation.split import EvaluationDomain
from vl2v.method.base import Context
from vl2v.method.loop import Batch
from vl2v.method.loss import scheduled_weight
from vl2v.planning.plan import RunPlan
from vl2v.purchase import BoughtEmbeddings
from vl2v.student.preprocess import Preprocess
from vl2v.threads import cores
from vl2v.training.fresh import FreshViews
from vl2v.writing import replacing
from vl2v_runtime.trust import probabilities

SLOTS_FILE = "slots.npy"


@dataclass(frozen=True)
class TrainingData:
    """The images, labels and embeddings of a run, laid out for training.

    Attributes:
        pixels: [slots, S, S, 3] uint8 memory map.
        slots: [R] int64, the position in `pixels` of each training example.
        labels: [R] int64, -1 without a label.
        embeddings: [R, D] float32 memory map, the teacher's image embeddings; None if the method uses none.
        head: [K, D] float32, the text head.
        logit_scale: the teacher's.
        groups: examples of each source domain, then of all images without labels.
        shares: examples of each group in a batch.
        validation: (slots, targets) by source domain.
        digest: SHA-256 of data and embeddings; it must be the same when a run is resumed.
        cache: folder of the cached features of the frozen backbone.
        method_texts: [K, A, D] float32, embeddings of the method's own texts; None if it has none.
        queried: [R] bool, false for examples without an embedding, whose row in `embeddings` is zero; None if all have
            one.
    """

    pixels: NDArray[np.uint8]
    slots: Slots
    labels: NDArray[np.int64]
    embeddings: NDArray[np.float32] | None
    head: Tensor
    logit_scale: float
    groups: tuple[ExampleRows, ...]
    shares: tuple[int, ...]
    validation: Validation
    digest: str
    cache: Path
    method_texts: Tensor | None = None
    queried: NDArray[np.bool_] | None = None

    @classmethod
    def build(
        cls, plan: RunPlan, bought: BoughtEmbeddings, domains: Sequence[EvaluationDomain], work: Path
    ) -> TrainingData:
        """Lay out what a plan and its purchase contain.

        Args:
            plan: the run's.
            bought: its embeddings.
            domains: of its split; the validation images are taken from them.
            work: the folder that `write_slots` wrote to.
        """
        return cls(
            pixels=plan.pixels.map(),
            slots=np.load(work / SLOTS_FILE, mmap_mode="r"),  # mapped: loading processes receive its name alone
            labels=plan.examples.labels,
            embeddings=bought.training,
            head=bought.head,
            logit_scale=bought.logit_scale,
            groups=plan.examples.groups,
            shares=plan.shares,
            validation=_validation(plan, bought, domains),
            digest=_digest(plan, bought),
            cache=plan.pixels.features_folder(),
            method_texts=bought.method_texts,
            queried=plan.queried,
        )


def write_slots(plan: RunPlan, work: Path) -> None:
    """Look up the pixels of all training examples; one process does so for all."""
    work.mkdir(parents=True, exist_ok=True)
    with replacing(work / SLOTS_FILE) as fresh, fresh.open("wb") as handle:
        np.save(handle, plan.pixels.slots(plan.examples.digests))


def _validation(plan: RunPlan, bought: BoughtEmbeddings, domains: Sequence[EvaluationDomain]) -> Validation:
    """(slots, targets) by source domain: labels, or the teacher's probabilities if there are no labels."""
    validation: dict[str, tuple[Slots, NDArray[np.int64] | NDArray[np.float32]]] = {}
    for part in domains:
        if part.role != IN_DOMAIN:
            continue
        if plan.labelled:
            validation[part.domain] = part.slots, plan.dataset.labels[part.rows]
        else:
            assert part.embeddings is not None
            validation[part.domain] = part.slots, probabilities(bought.zero_shot(part.embeddings))
    return validation


def _digest(plan: RunPlan, bought: BoughtEmbeddings) -> str:
    """SHA-256 of images, labels and embeddings."""
    examples = plan.examples
    digest = hashlib.sha256(examples.digests.tobytes() + examples.labels.tobytes() + bought.head.numpy().tobytes())
    if bought.method_texts is not None:
        digest.update(bought.method_texts.numpy().tobytes())
    if bought.training is not None:
        for start in range(0, len(bought.training), 10_000):
            digest.update(bought.training[start : start + 10_000].tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class BatchLoader:
    """The batches of a run, this process's share of each.

    Attributes:
        config: the run's settings.
        data: what the batches are made of.
        preprocess: what the student's weights expect of pixels.
        accelerator: device and processes.
        fresh: queried for every augmented image instead of using stored embeddings; None if not wanted.
    """

    config: RunConfig
    data: TrainingData
    preprocess: Preprocess
    accelerator: Accelerator
    fresh: FreshViews | None = None

    def features(self, cached: NDArray[np.float32], start: int, steps: int) -> Iterator[Batch]:
        """Batches of cached features [slots, F] for the steps from `start` on."""
        streams = self._streams("align")
        for step in range(start, steps):
            draw = streams.draw(step, self.accelerator.process_index, self.accelerator.num_processes)
            torch.manual_seed(int(draw.seeds[0]))
            yield self._batch(torch.from_numpy(cached[self.data.slots[draw.rows]]), draw.rows)

    def images(self, start: int, steps: int) -> Iterator[Batch]:
        """Batches of augmented images for the steps from `start` on."""
        streams, a = self._streams("distill"), self.accelerator
        augmentation = Augmentation(self.preprocess.size, self.config.distill.augment)
        data = AugmentedPixels(self.data.pixels, self.data.slots, augmentation)
        draws = (streams.draw(step, a.process_index, a.num_processes) for step in range(start, steps))
        workers = loading_processes(self.config.workers, a.device, a.num_processes)
        for step, (pixels, rows) in zip(range(start, steps), augmented_batches(data, draws, workers), strict=True):
            vectors = self.fresh.query(pixels, a.num_processes) if self.fresh else None
            torch.manual_seed((streams.seed + step) % 2**63)  # for dropout and the like
            pixels = pixels.to(a.device, non_blocking=True, memory_format=torch.channels_last)
            batch = self._batch(self.preprocess.normalise(pixels), rows, vectors)
            if (end := self.config.image_weight_end) is not None:
                weight = scheduled_weight(self.config.image_weight, end, step, steps)
                batch = replace(batch, image_weight=weight)
            yield batch

    def _streams(self, stage: str) -> Streams:
        data, seed = self.data, stage_seed(self.config.seed, stage)
        return Streams(data.groups, data.shares, seed, data.labels, self.config.data.exponent)

    def _batch(self, inputs: Tensor, rows: ExampleRows, image: Tensor | None = None) -> Batch:
        device, m = self.accelerator.device, self.data
        labels = torch.from_numpy(m.labels[rows])
        labelled = labels >= 0
        text = m.head[labels.clamp(min=0)]
        if image is None:
            image = torch.zeros_like(text) if m.embeddings is None else torch.from_numpy(np.asarray(m.embeddings[rows]))
        mask = None if bool(labelled.all()) else labelled.to(device)
        queried = None if m.queried is None else torch.from_numpy(m.queried[rows]).to(device)
        return Batch(inputs.to(device), image.to(device), text.to(device), mask, labels.to(device), queried=queried)


def loading_processes(workers: int | None, device: torch.device, processes: int = 1) -> int:
    """How many processes of its own a training process loads and augments images with.

    On a CPU there are none: training uses all cores, and the pixel cache is read from memory. Next to a GPU, the
    processes share the cores that the main process leaves; there are at most eight.

    Args:
        workers: the setting; None stands for auto.
        device: the device of training.
        processes: training processes; they are taken to run on this machine.
    """
    if workers is not None:
        return workers
    return 0 if device.type == "cpu" else min(8, max(1, cores() // processes - 1))


def context_of(config: RunConfig, data: TrainingData) -> Context[Any]:
    """The values of a run that a method's objective may use."""
    return Context(
        head=data.head,
        logit_scale=data.logit_scale,
        settings=config.method_settings,
        image_weight=config.image_weight,
        texts=data.method_texts,
    )
