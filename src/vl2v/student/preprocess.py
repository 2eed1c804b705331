"""The preprocessing that a student's weights expect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vl2v_runtime.imaging import ImageLike, decode, square


@dataclass(frozen=True)
class Preprocess:
    """Preprocessing of images: resize the whole image to a square, then normalise.

    Attributes:
        size: side length in pixels.
        mean: per channel, of pixels in [0, 1].
        std: per channel, of pixels in [0, 1].
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def normalise(self, pixels: Tensor) -> Tensor:
        """[B, 3, S, S] uint8 to float32 with this mean and deviation, on the same device and in the same layout."""
        mean = torch.tensor(self.mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(3, 1, 1)
        return (pixels.float() / 255.0 - mean) / std

    def pixels(self, image: ImageLike) -> Tensor:
        """Convert one image to [3, S, S] uint8, as in training.

        Raises:
            UnreadableImageError: if it is not a usable image.
        """
        return torch.from_numpy(np.ascontiguousarray(square(decode(image), self.size).transpose(2, 0, 1)))

    def __call__(self, image: ImageLike) -> Tensor:
        """One image to the backbone's input, [3, S, S] float32."""
        return self.normalise(self.pixels(image)[None])[0]
