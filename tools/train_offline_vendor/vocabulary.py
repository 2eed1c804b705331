"""Names and descriptions of drawings, their embeddings, and the names of the classes of ImageNet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tools.train_offline_vendor.listing import Item
from tools.train_offline_vendor.wordnet import WordNet
from vl2v.teacher.offline.sentences import SentenceEncoder
from vl2v.teacher.prompts import render

FEWEST = 2  # drawings that a text must describe to be in the vocabulary
FORMS = ("{}", "a photo of a {}", "a drawing of a {}", "a picture of a {}", "a sketch of a {}", "a painting of a {}",
         "an icon of a {}", "{} cartoon")  # fmt: skip


@dataclass(frozen=True)
class Vocabulary:
    """V texts.

    Attributes:
        texts: the texts.
        mean: [384], the mean of their embeddings over all `FORMS`, which is the origin of the shared space.
        embeddings: [form, V, 384], centred and of length one.
        imagenet: [1000, V], names and hypernyms of each class of ImageNet; rows sum to one.
    """

    texts: tuple[str, ...]
    mean: Tensor
    embeddings: Tensor
    imagenet: Tensor

    def index(self) -> dict[str, int]:
        """Return the index of each text."""
        return {text: number for number, text in enumerate(self.texts)}


def targets(items: Iterable[Item], index: dict[str, int]) -> list[tuple[Tensor, Tensor]]:
    """Return the texts of each item as (indices [k] int64, weights [k] that sum to one)."""
    rows = []
    for item in items:
        known = [(index[text], weight) for text, weight in item.texts.items() if text in index]
        numbers, weights = zip(*known, strict=True) if known else ((), ())
        mass = torch.tensor(weights, dtype=torch.float32)
        rows.append((torch.tensor(numbers, dtype=torch.long), mass / mass.sum().clamp(min=1e-6)))
    return rows


def build(items: list[Item], wordnet: WordNet, cache: Path) -> Vocabulary:
    """Collect the texts of the training items and of ImageNet, and embed them; the result is saved in `cache`."""
    if cache.exists():
        saved = torch.load(cache, weights_only=True)
        return Vocabulary(tuple(saved["texts"]), saved["mean"], saved["vectors"].float(), saved["imagenet"].float())
    classes = imagenet_texts(wordnet)
    counts: dict[str, int] = {}
    for item in items:
        for text in item.texts:
            counts[text] = counts.get(text, 0) + (not item.validation)
    texts = {text for text, count in counts.items() if count >= FEWEST}
    texts |= {text for group in classes for text, weight in group.items() if weight == 1.0 or text in texts}
    ordered = tuple(sorted(texts))
    encoder = SentenceEncoder("Training the offline vendor")
    raw = np.stack([encoder.embed([render(form, text) for text in ordered]) for form in FORMS])
    mean = raw.reshape(-1, raw.shape[-1]).mean(axis=0)
    centred = torch.nn.functional.normalize(torch.from_numpy(raw - mean), dim=-1)
    imagenet = torch.zeros(len(classes), len(ordered))
    index = {text: number for number, text in enumerate(ordered)}
    for row, group in enumerate(classes):
        for text, weight in group.items():
            if text in index:
                imagenet[row, index[text]] = weight
    imagenet /= imagenet.sum(dim=1, keepdim=True)
    result = Vocabulary(ordered, torch.from_numpy(mean), centred, imagenet)
    torch.save({"texts": list(ordered), "mean": result.mean, "vectors": centred.half(), "imagenet": imagenet}, cache)
    return result


def imagenet_texts(wordnet: WordNet) -> list[dict[str, float]]:
    """Return the names of the 1000 classes of ImageNet with weight 1, and common hypernyms."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    classes = []
    for number in range(info.num_classes()):
        names = [name.lower() for name in info.index_to_description(number).split(", ")][:2]
        texts = dict.fromkeys(names, 1.0)
        for name in names[:1]:
            meaning = wordnet.meaning(wordnet.lemma(name) or "")
            for text, weight in meaning.kinds if meaning else ():
                texts.setdefault(text, 2 * weight)  # two names, so twice
        classes.append(texts)
    return classes
