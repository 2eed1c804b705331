"""The augmentation of the paper, with a seed per image so that any step can be reproduced."""

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
    """RandomResizedCrop, flip, colour jitter, grayscale (DomainBed's recipe as the paper uses it).

    It works on PIL images, as DomainBed does: on one image that takes three quarters of the time that tensors take.
    A change of style or a corruption, if there is one, comes between crop and colour. It has
    draws of its own: an image that gets none is varied as without these settings.

    Args:
        size: side length of what comes out, in pixels.
        settings: the strengths.
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
        """Vary one image.

        Args:
            pixels: [H, W, 3] uint8.
            seed: 0 <= seed < 2**63; the same seed gives the same result.
            other: gives a partner of a change that needs one; see `OneChange`.

        Returns:
            [3, size, size] uint8.
        """
        generator = torch.default_generator  # v2's transforms draw from it and take no other
        state = generator.get_state()
        try:
            generator.manual_seed(seed)
            placed: Image.Image = self._crop(Image.fromarray(pixels))
            if self._change is not None:
                placed = self._changed(placed, seed, other)
            varied: Tensor = self._colour(placed)
        finally:
            generator.set_state(state)
        return varied

    def _changed(self, image: Image.Image, seed: int, other: Other | None) -> Image.Image:
        assert self._change is not None
        before = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        after = self._change(before, seed, other)
        return image if after is before else Image.fromarray(after.permute(1, 2, 0).contiguous().numpy())
