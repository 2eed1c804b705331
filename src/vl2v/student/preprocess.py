"""Preprocessing of images for a student."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vl2v_runtime.fits import SQUASH, Fit
from vl2v_runtime.imaging import ImageLike, decode, square

MOST_PIXELS = 64 * 512**2  # of a batch: usual batches are not divided, since the last bits of results depend on it


@dataclass(frozen=True)
class Preprocess:
    """Preprocessing of images: resize to a square, then normalise.

    Attributes:
        size: side length in pixels.
        mean: mean of each channel, for pixels in [0, 1].
        std: standard deviation of each channel, for pixels in [0, 1].
        fit: how an image becomes a square, see `vl2v_runtime.imaging.square`.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: Fit = SQUASH

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalise pixels [B, 3, S, S] uint8 to float32, on the same device and in the same memory layout."""
        mean = torch.tensor(self.mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(3, 1, 1)
        return (pixels.float() / 255.0 - mean) / std

    def parts(self, images: Tensor) -> tuple[Tensor, ...]:
        """Divide a batch [B, ...] of large images, whose features might not fit into memory, into smaller batches."""
        return torch.split(images, max(1, MOST_PIXELS // self.size**2))

    def pixels(self, image: ImageLike) -> Tensor:
        """Convert one image to [3, S, S] uint8, as in training.

        Raises:
            UnreadableImageError: if the image cannot be read.
        """
        return torch.from_numpy(np.ascontiguousarray(square(decode(image), self.size, self.fit).transpose(2, 0, 1)))

    def __call__(self, image: ImageLike) -> Tensor:
        """Convert one image to the input of the backbone, [3, S, S] float32."""
        return self.normalise(self.pixels(image)[None])[0]
