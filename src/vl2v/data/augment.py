"""The augmentation of the paper, with a seed per image, so that any step can be reproduced."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from vl2v.data.augment_settings import AugmentSettings as AugmentSettings
from vl2v.data.one_change import OneChange, Other


class Augmentation:
    """RandomResizedCrop, flip, colour jitter and grayscale: DomainBed's augmentation, as the paper uses it.

    It works on PIL images, as DomainBed does, which takes three quarters of the time of tensors for a single image. A
    change of style or a corruption, if enabled, is applied between crop and colour. Its random numbers are independent,
    so an image without a change is augmented as without these settings.

    Args:
        size: side length of the output in pixels.
    """

    def __init__(self, size: int, settings: AugmentSettings | None = None) -> None:
        s = settings or AugmentSettings()
        crop: list[torch.nn.Module] = [v2.RandomResizedCrop(size, scale=(s.scale, 1.0), antialias=True)]
        if s.flip:
            crop.append(v2.RandomHorizontalFlip(s.flip))
        colour: list[torch.nn.Module] = []
        if s.jitter:
            colour.append(v2.ColorJitter(s.jitter, s.jitter, s.jitter, min(s.jitter, 0.5)))
        if s.grayscale:
            colour.append(v2.RandomGrayscale(s.grayscale))
        self._crop, self._colour = v2.Compose(crop), v2.Compose([*colour, v2.PILToTensor()])
        self._change = OneChange(s.style, s.corrupt) if s.style or s.corrupt else None

    def __call__(self, pixels: NDArray[np.uint8], seed: int, other: Other | None = None) -> Tensor:
        """Augment one image, to [3, size, size] uint8.

        Args:
            pixels: [H, W, 3] uint8.
            seed: seed in [0, 2**63). The same seed gives the same result.
            other: returns a second image for changes that need one; see `OneChange`.
        """
        generator = torch.default_generator  # the transforms of torchvision only use the global generator
        state = generator.get_state()
        try:
            generator.manual_seed(seed)
            image: Image.Image = self._crop(Image.fromarray(pixels))
            if self._change is not None:
                image = self._changed(image, seed, other)
            varied: Tensor = self._colour(image)
        finally:
            generator.set_state(state)
        return varied

    def _changed(self, image: Image.Image, seed: int, other: Other | None) -> Image.Image:
        assert self._change is not None
        before = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        after = self._change(before, seed, other)
        return image if after is before else Image.fromarray(after.permute(1, 2, 0).contiguous().numpy())
