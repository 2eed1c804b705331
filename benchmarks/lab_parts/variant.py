"""The settings of a variant, and the jobs that train it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

# Settings of the second stage only. Variants that differ only in these share one Align.
SECOND_STAGE = frozenset({
    "name", "lr", "steps", "schedule", "warmup", "average", "average_from", "ema_decay", "scale", "jitter", "style",
    "corrupt", "mixup", "cutmix", "steer", "feature", "l2sp", "train_projection", "wise_ft", "soup", "first_member",
    "corrupted_test", "temperatures", "test_sides", "test_every", "train_side", "later_side", "later_from", "freeze",
    "refit",
})  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """One way to train. The defaults are VL2V-ADiP as docs/results has it.

    Attributes:
        name: in the results.
        method: ``adip`` (cosine head, dual loss), ``kd`` (linear head, naive distillation) or ``erm`` (linear head).
        image_weight: lambda; 1 leaves the class texts out.
        lr: Adam's rate in Distill.
        steps: of Distill.
        schedule: ``constant``, ``cosine`` (to 0) or ``linear`` (to 0), after the warm-up.
        warmup: steps of it.
        batch: images a step, shared evenly by the source domains.
        average: of the weights: ``mean`` from `average_from` on, ``ema``, ``last``, or ``swad`` (the loss valley).
        average_from: part of the steps before the mean begins.
        ema_decay: of ``ema``.
        scale: least area of a crop.
        jitter: of colours.
        style: probability of a change of style.
        corrupt: probability of a corruption.
        mixup: alpha; 0 is off.
        cutmix: alpha; 0 is off.
        kl: weight of KL(teacher || student) over the classes; naive distillation's share, else 0.
        temperature: of that KL.
        learn_scale: train the student's logit scale, which starts as the teacher's.
        ce: weight of the cross-entropy of the cosine logits.
        bank: weight of KL over the bank of texts.
        bank_top: texts of the bank compared per image, the teacher's nearest; 0 is all of them.
        bank_scale: logit scale over the bank; 0 is the teacher's.
        pseudo_labels: the teacher's prediction is the label of an image without one if its probability exceeds this
            number; 1 is off.
        centre: part of the mean image (of the sources) and mean class text taken away from the targets.
        centre_domains: part of the mean image of a source domain, less that of all, taken away from its targets.
        prototypes: part of a labelled image's target that is the mean image of its class, all source domains alike.
        steer: alpha of targets moved by a class's text in a style, for images changed to that style.
        trust_low: lambda of images whose label the teacher's zero-shot answer contradicts; -1 is off.
        adapt: strength that ties an adapted text head to the zero-shot one; 0 is off. The KL's teacher uses it.
        adapt_text: use the adapted text head for the text term and the predictions too.
        feature: weight of the cosine distance to the pretrained features of the unvaried image.
        l2sp: weight of the squared distance to the pretrained weights.
        train_projection: train P in Distill.
        freeze: number of the backbone's first parts that Distill does not train; the stem is the first.
        prompt: template of the text head; empty is the teacher's own.
        few: labels a class and domain; -1 is all, 0 none.
        label_share: part of a batch drawn from labelled images where labels are few; -1 draws all images alike.
        held_classes: classes that training does not see.
        align: ``adam`` or ``ridge``.
        align_steps: of Adam.
        align_ema: decay of Align's average; 0 is off.
        wise_ft: shares of the trained weights, scored in addition.
        soup: runs that share split and Align, their weights averaged.
        first_member: number of the first of them.
        use_validation: train on the validation part too.
        corrupted_test: score blurred, noisy, dark, rotated and compressed images of the target as well.
        temperatures: score further temperatures, of the hardest source domain and of images in other styles.
        test_every: score every so many images of the removed domains, for short experiments.
        train_side: size in pixels of the images of Distill; 0 is the bench's, at which Align and the scores are.
        later_side: size in pixels of the images of the last steps of Distill; 0 keeps the size.
        later_from: part of the steps before the size changes.
        refit: number of images that the projection counts for when it is fitted again to the trained features, at each
            size that is scored; 0 is off. A linear layer is fitted with a fixed strength instead.
        test_sides: further image sizes in pixels at which the trained student is scored.
    """

    name: str
    method: Literal["adip", "kd", "erm"] = "adip"
    image_weight: float = 0.5
    lr: float = 1e-4
    steps: int = 201
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup: int = 20
    batch: int = 24
    average: Literal["mean", "ema", "last", "swad"] = "mean"
    average_from: float = 0.25
    ema_decay: float = 0.99
    scale: float = 0.7
    jitter: float = 0.3
    style: float = 0.0
    corrupt: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    kl: float = 0.0
    temperature: float = 2.0
    learn_scale: bool = False
    ce: float = 0.0
    bank: float = 0.0
    bank_top: int = 0
    bank_scale: float = 0.0
    pseudo_labels: float = 1.0
    centre: float = 0.0
    centre_domains: float = 0.0
    prototypes: float = 0.0
    steer: float = 0.0
    trust_low: float = -1.0
    adapt: float = 0.0
    adapt_text: bool = False
    feature: float = 0.0
    l2sp: float = 0.0
    train_projection: bool = False
    freeze: int = 0
    prompt: str = ""
    few: int = -1
    label_share: float = 0.5
    held_classes: tuple[str, ...] = ()
    align: Literal["adam", "ridge"] = "adam"
    align_steps: int = 1001
    align_ema: float = 0.0
    wise_ft: tuple[float, ...] = ()
    soup: int = 1
    first_member: int = 0
    use_validation: bool = False
    corrupted_test: bool = False
    temperatures: bool = False
    test_every: int = 1
    train_side: int = 0
    later_side: int = 0
    later_from: float = 0.8
    refit: float = 0.0
    test_sides: tuple[int, ...] = ()

    @property
    def linear(self) -> bool:
        """Whether the head is a trained linear one."""
        return self.method != "adip"

    @property
    def align_key(self) -> tuple[Any, ...]:
        """The settings that Align depends on."""
        return tuple(getattr(self, f.name) for f in fields(self) if f.name not in SECOND_STAGE)


@dataclass(frozen=True)
class Job:
    """One training run.

    Attributes:
        variant: its settings.
        dataset: name of the file.
        teacher: name.
        removed: positions of the domains that training does not see: the target, or the target and a left-out source,
            in either order.
        seed: of split, batches and augmentation.
    """

    variant: Variant
    dataset: str
    teacher: str
    removed: tuple[int, ...]
    seed: int

    @property
    def key(self) -> str:
        """The key of its line in the results."""
        removed = "+".join(map(str, self.removed))
        return f"{self.dataset}/{self.teacher}/{self.variant.name}/{removed}/{self.seed}"


def read_variants(file: Path) -> dict[str, Variant]:
    """Read variants from a JSON object of settings by name; ``"base": NAME`` inherits the settings of another."""
    raw: dict[str, dict[str, Any]] = json.loads(file.read_text())

    def full(name: str) -> dict[str, Any]:
        settings_of_variant = dict(raw[name])
        return (full(settings_of_variant.pop("base")) if "base" in settings_of_variant else {}) | settings_of_variant

    return {name: _variant(name, full(name)) for name in raw}


def _variant(name: str, settings: dict[str, Any]) -> Variant:
    lists = {key: tuple(value) for key, value in settings.items() if isinstance(value, list)}
    return Variant(**({"name": name} | settings | lists))


def settings_of(variant: Variant) -> dict[str, Any]:
    """Return only the settings that differ from the defaults."""
    plain = asdict(Variant(name=""))
    return {key: value for key, value in asdict(variant).items() if key != "name" and value != plain[key]}


def read_lines(files: Sequence[Path]) -> list[dict[str, Any]]:
    """The lines of some results, the last of each key; lines cut short are passed over."""
    lines: dict[str, dict[str, Any]] = {}
    for file in files:
        for text in file.read_text().splitlines():
            try:
                line = json.loads(text)
                lines[line["key"]] = line
            except (ValueError, KeyError):
                continue
    return list(lines.values())


def removals(domains: int, mode: str, targets: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """Which domains are removed: each ``target`` alone, or each pair (``leave``), which serves both orders."""
    if mode == "leave":
        return list(itertools.combinations(range(domains), 2))
    return [(target,) for target in targets or range(domains)]
