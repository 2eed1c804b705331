"""The paper's augmentation, drawn from a seed per image so that any step can be drawn again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2


@dataclass(frozen=True)
class AugmentSettings:
    """How training images are varied; the defaults are the paper's.

    Attributes:
        scale: least part of the image's area that a crop keeps, in (0, 1].
        flip: probability of a horizontal flip.
        jitter: strength of brightness, contrast, saturation and hue jitter, hue within [0, 0.5].
        grayscale: probability of losing the colour.
    """

    scale: float = 0.7
    flip: float = 0.5
    jitter: float = 0.3
    grayscale: float = 0.1


class Augmentation:
    """RandomResizedCrop, flip, colour jitter, grayscale (DomainBed's recipe as the paper uses it).

    It works on PIL images, as DomainBed does: on one image that takes three quarters of the time that tensors take.

    Args:
        size: side length of what comes out, in pixels.
        settings: the strengths.
    """

    def __init__(self, size: int, settings: AugmentSettings | None = None) -> None:
        s = settings or AugmentSettings()
        steps: list[torch.nn.Module] = [v2.RandomResizedCrop(size, scale=(s.scale, 1.0), antialias=True)]
        if s.flip:
            steps.append(v2.RandomHorizontalFlip(s.flip))
        if s.jitter:
            steps.append(v2.ColorJitter(s.jitter, s.jitter, s.jitter, min(s.jitter, 0.5)))
        if s.grayscale:
            steps.append(v2.RandomGrayscale(s.grayscale))
        self._transform = v2.Compose([*steps, v2.PILToTensor()])

    def __call__(self, pixels: NDArray[np.uint8], seed: int) -> Tensor:
        """Vary one image.

        Args:
            pixels: [H, W, 3] uint8.
            seed: 0 <= seed < 2**63; the same seed gives the same result.

        Returns:
            [3, size, size] uint8.
        """
        generator = torch.default_generator  # v2's transforms draw from it and take no other
        state = generator.get_state()
        try:
            generator.manual_seed(seed)
            varied: Tensor = self._transform(Image.fromarray(pixels))
        finally:
            generator.set_state(state)
        return varied
