"""The offline teacher: a small vision-language model whose weights ship with the package.

An EfficientNet-Lite2 fine-tuned on named drawings embeds images, and a packaged sentence encoder embeds texts in the
same space. ``model_card.md`` in this folder describes the training data, the accuracy and the limits.
``tools/train_offline_vendor`` in the repository trains the weights.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from importlib import resources
from importlib.resources.abc import Traversable

import numpy as np
import torch
from torch import Tensor

from vl2v.errors import TeacherError
from vl2v.teacher.base import Embeddings, Price, TeacherCard, open_image, unit_rows
from vl2v.teacher.offline.sentences import DIMENSION, SentenceEncoder
from vl2v.teacher.offline.tower import DEVIATION, MEAN, ImageTower
from vl2v_runtime.imaging import square

FEATURE = "The offline vendor"
WEIGHTS = "weights.safetensors"
RECIPE = 1  # increase it whenever a change in this file changes the embeddings
CHUNK = 32  # batch size of the network, independent of the number of inputs


def weights_file() -> Traversable:
    """Return the weights file in the package.

    Raises:
        TeacherError: if the file is missing.
    """
    file = resources.files("vl2v.teacher.offline").joinpath(WEIGHTS)
    if not file.is_file():
        raise TeacherError(
            "The offline vendor's weights are missing.",
            expected=f"{WEIGHTS} in the package vl2v",
            found="no such file",
            next_step="reinstall vl2v",
        )
    return file


class OfflineVendor:
    """The teacher ``offline:``, which is free and needs no network.

    The models are loaded at the first query. On one machine, the same input gives the same embedding in every run. The
    number of images per call changes embeddings only by rounding.

    Args:
        device: device of both models, such as ``cpu`` or ``cuda``.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = self.local_device = device
        self._texts = SentenceEncoder(FEATURE, device)

    def describe(self) -> TeacherCard:
        """See `Teacher.describe`. The revision contains the digest of the weights.

        Raises:
            MissingExtraError: if the sentence encoder is not installed.
            TeacherError: if the weights are missing.
        """
        digest = hashlib.sha256(self._bytes).hexdigest()[:16]
        return TeacherCard(
            identity="offline:efficientnet_lite2+all-MiniLM-L6-v2",
            revision=f"{digest}+{self._texts.version()}/recipe{RECIPE}",
            dimension=DIMENSION,
            logit_scale=float(self._notes["logit_scale"]),
            batch_size=CHUNK,
        )

    def embed_images(self, images: list[bytes]) -> Embeddings:
        """Embed image files into [N, 384] float32 of length one.

        Raises:
            TeacherError: if an image is unreadable, or the weights are missing.
        """
        side = int(self._notes["side"])
        pixels = [square(open_image(data), side) for data in images]
        parts = [np.zeros((0, DIMENSION), np.float32)]
        for start in range(0, len(pixels), CHUNK):
            batch = torch.from_numpy(np.stack(pixels[start : start + CHUNK])).to(self.device)
            inputs = (batch.permute(0, 3, 1, 2).float() / 255 - MEAN) / DEVIATION
            with torch.inference_mode():
                embeddings = self._tower(inputs.contiguous(memory_format=torch.channels_last))
            parts.append(unit_rows(embeddings.float().cpu().numpy()))
        return np.concatenate(parts)

    def embed_texts(self, texts: list[str]) -> Embeddings:
        """Embed texts, unchanged, into [N, 384] float32 of length one.

        The mean embedding of the training texts is subtracted, because all sentence embeddings share a component.

        Raises:
            MissingExtraError: if the sentence encoder is not installed.
            TeacherError: if the weights are missing.
        """
        return unit_rows(self._texts.embed(texts) - self._weights["text_mean"].numpy())

    @cached_property
    def _bytes(self) -> bytes:
        return weights_file().read_bytes()

    @cached_property
    def _notes(self) -> dict[str, str]:
        """The metadata of the weights file: ``side`` in pixels and ``logit_scale``."""
        from safetensors import safe_open

        with resources.as_file(weights_file()) as path, safe_open(path, "pt") as file:
            return dict(file.metadata())

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        from safetensors.torch import load

        return {name: tensor.float() for name, tensor in load(self._bytes).items()}

    @cached_property
    def _tower(self) -> ImageTower:
        tower = ImageTower()
        tower.load_state_dict({name: tensor for name, tensor in self._weights.items() if name != "text_mean"})
        return tower.eval().requires_grad_(False).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def from_name(rest: str, price: Price | None, device: str | None) -> OfflineVendor:
    """Open the teacher; see `vl2v.teacher.registry.Factory`."""
    return OfflineVendor(device or "cpu")
