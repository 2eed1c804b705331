"""A dataset of the bench in one file: small images, labels, domains, and teacher embeddings of images and texts."""

from __future__ import annotations

import io
import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Array = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Teacher:
    """Embeddings of a teacher, as rows of length one.

    Attributes:
        images: [N, D] float32.
        texts: the queried texts, each once.
        embeddings: [M, D] float32, of those texts.
        scale: the logit scale.
        prompt: the template of the zero-shot head, with one {}.
    """

    images: Tensor
    texts: tuple[str, ...]
    embeddings: Tensor
    scale: float
    prompt: str

    def head(self, names: tuple[str, ...], template: str | None = None) -> Tensor:
        """[K, D] float32, the embeddings of a template filled with class names ("a {}" also matches "an ...")."""
        index = {text: row for row, text in enumerate(self.texts)}
        return self.embeddings[[index[filled(template or self.prompt, name)] for name in names]]


def filled(template: str, name: str) -> str:
    """The template with a name in it, "a" before a vowel made "an"."""
    text = template.replace("{}", name)
    return text.replace(f" a {name}", f" an {name}") if name[0].lower() in "aeiou" else text


@dataclass(frozen=True)
class Dataset:
    """Everything one data set brings.

    Attributes:
        name: of the file.
        pixels: [N, 3, S, S] uint8, on the device.
        labels: [N] int64.
        domains: [N] int64; images are sorted by domain, class and file.
        classes: names, ascending.
        domain_names: ascending.
        teachers: by name.
    """

    name: str
    pixels: Tensor
    labels: Ints
    domains: Ints
    classes: tuple[str, ...]
    domain_names: tuple[str, ...]
    teachers: dict[str, Teacher]


def encoded(image: Image.Image, quality: int) -> bytes:
    """A JPEG without colour subsampling; grey images take one channel."""
    array = np.asarray(image)
    grey = bool((np.ptp(array.astype(np.int16), axis=2) <= 2).all())
    out = io.BytesIO()
    (image.convert("L") if grey else image).save(out, "JPEG", quality=quality, subsampling=0, optimize=True)
    return out.getvalue()


def decoded(data: bytes) -> NDArray[np.uint8]:
    """[S, S, 3] uint8."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def load(file: Path, device: torch.device, workers: int = 8) -> Dataset:
    """Read a data set and put its pixels on the device.

    Args:
        file: as `prepare` wrote it.
        device: where pixels and embeddings go.
        workers: threads that decode.
    """
    arrays = np.load(file)
    bounds, stream = arrays["bounds"], arrays["stream"].tobytes()
    parts = [stream[a:b] for a, b in itertools.pairwise(bounds)]
    with ThreadPoolExecutor(workers) as pool:
        images = np.stack(list(pool.map(decoded, parts)))
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)
    teachers = {}
    for name in (str(n) for n in arrays["teachers"]):
        rows = {part: torch.from_numpy(arrays[f"{name}.{part}"].astype(np.float32)) for part in ("images", "vectors")}
        unit = {part: F.normalize(value, dim=-1).to(device) for part, value in rows.items()}
        texts = tuple(str(text) for text in arrays[f"{name}.texts"])
        scale, prompt = float(arrays[f"{name}.scale"]), str(arrays[f"{name}.prompt"])
        teachers[name] = Teacher(unit["images"], texts, unit["vectors"], scale, prompt)
    return Dataset(
        file.stem,
        pixels,
        arrays["labels"].astype(np.int64),
        arrays["domains"].astype(np.int64),
        tuple(str(name) for name in arrays["classes"]),
        tuple(str(name) for name in arrays["domain_names"]),
        teachers,
    )
