"""The training data of a run, and its batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
from vl2v.method.loop import Batch
from vl2v.method.loss import scheduled_weight
from vl2v.planning.plan import RunPlan
from vl2v.purchase import BoughtEmbeddings
from vl2v.student.preprocess import Preprocess
from vl2v.threads import cores
from vl2v.training.fresh import FreshViews
from vl2v.writing import atomic_write
from vl2v_runtime.trust import probabilities

SLOTS_FILE = "slots.npy"


@dataclass(frozen=True)
class TrainingData:
    """Images, labels and embeddings of the R training examples of a run.

    Attributes:
        pixels: [slots, S, S, 3] uint8 memory map.
        slots: [R] int64, slot of each example in `pixels`.
        labels: [R] int64, -1 without a label.
        embeddings: [R, D] float32 memory map, image embeddings of the teacher; None if the method does not use them.
        head: [K, D] float32, text head.
        groups: examples of each source domain, then those of all images without labels.
        shares: number of examples of each group in a batch.
        validation: slots and targets by source domain.
        digest: SHA-256 of data and embeddings, which must not change until a run is resumed.
        cache: folder of the cached features of the frozen backbone.
        method_texts: [K, A, D] float32, embeddings of further texts of the method; None if it has none.
        queried: [R] bool, false for examples without an embedding, whose row in `embeddings` is zero; None if all
            examples have one.
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
        """Create the training data of a planned run from its purchased embeddings."""
        return cls(
            pixels=plan.pixels.map(),
            slots=np.load(work / SLOTS_FILE, mmap_mode="r"),  # loading processes receive only its name
            labels=plan.examples.labels,
            embeddings=bought.training,
            head=bought.head,
            logit_scale=bought.logit_scale,
            groups=plan.examples.groups,
            shares=plan.shares,
            validation=_validation(plan, bought, domains),
            digest=_digest(plan, bought, domains),
            cache=plan.pixels.features_folder(),
            method_texts=bought.method_texts,
            queried=plan.queried,
        )


def write_slots(plan: RunPlan, work: Path) -> None:
    """Look up the slots of all training examples, and save them for all processes."""
    work.mkdir(parents=True, exist_ok=True)
    with atomic_write(work / SLOTS_FILE) as fresh, fresh.open("wb") as handle:
        np.save(handle, plan.pixels.slots(plan.examples.digests))


def _validation(plan: RunPlan, bought: BoughtEmbeddings, domains: Sequence[EvaluationDomain]) -> Validation:
    """Return slots and targets by source domain: labels or, without labels, probabilities of the teacher."""
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


def _digest(plan: RunPlan, bought: BoughtEmbeddings, domains: Sequence[EvaluationDomain]) -> str:
    """Return the SHA-256 of images, labels and embeddings, also of the images that select the weights."""
    examples, dataset = plan.examples, plan.dataset
    digest = hashlib.sha256(examples.digests.tobytes() + examples.labels.tobytes() + bought.head.numpy().tobytes())
    for part in domains:
        if part.role == IN_DOMAIN:
            digest.update(dataset.digests[part.rows].tobytes() + dataset.labels[part.rows].tobytes())
    if bought.method_texts is not None:
        digest.update(bought.method_texts.numpy().tobytes())
    if bought.training is not None:
        for start in range(0, len(bought.training), 10_000):
            digest.update(bought.training[start : start + 10_000].tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class BatchLoader:
    """The batches of a run. Each process loads its share of every batch.

    Attributes:
        fresh: queries the teacher for every augmented image; None uses the stored embeddings.
    """

    config: RunConfig
    data: TrainingData
    preprocess: Preprocess
    accelerator: Accelerator
    fresh: FreshViews | None = None

    def features(self, cached: NDArray[np.float32], start: int, steps: int) -> Iterator[Batch]:
        """Yield batches of cached features [slots, F], from step `start` on."""
        streams = self._streams("align")
        for step in range(start, steps):
            draw = streams.draw(step, self.accelerator.process_index, self.accelerator.num_processes)
            torch.manual_seed(int(draw.seeds[0]))
            yield self._batch(torch.from_numpy(cached[self.data.slots[draw.rows]]), draw.rows)

    def images(self, start: int, steps: int) -> Iterator[Batch]:
        """Yield batches of augmented images, from step `start` on."""
        streams, a = self._streams("distill"), self.accelerator
        augmentation = Augmentation(self.preprocess.size, self.config.distill.augment)
        data = AugmentedPixels(self.data.pixels, self.data.slots, augmentation)
        draws = (streams.draw(step, a.process_index, a.num_processes) for step in range(start, steps))
        workers = loading_processes(self.config.workers, a.device, a.num_processes)
        for step, (pixels, rows) in zip(range(start, steps), augmented_batches(data, draws, workers), strict=True):
            embeddings = self.fresh.query(pixels, a.num_processes) if self.fresh else None
            torch.manual_seed((streams.seed + step) % 2**63)  # for random layers such as dropout
            pixels = pixels.to(a.device, non_blocking=True, memory_format=torch.channels_last)
            batch = self._batch(self.preprocess.normalise(pixels), rows, embeddings)
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
    """Return the number of processes with which a training process loads and augments images.

    On a CPU it is 0, since training uses all cores and pixels are read from memory. With a GPU, the processes share the
    remaining cores, and there are at most eight.

    Args:
        workers: the setting; None chooses the number.
        processes: number of training processes on this machine.
    """
    if workers is not None:
        return workers
    return 0 if device.type == "cpu" else min(8, max(1, cores() // processes - 1))
