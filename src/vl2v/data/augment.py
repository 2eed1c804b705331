"""The augmentation of the paper, with a seed per image, so that any step can be reproduced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from vl2v.data.augment_settings import AugmentSettings as AugmentSettings
from vl2v.data.image_changes import CHANGES, PARAMETERS, choose

Other = Callable[[float], NDArray[np.uint8]]
"""Returns another image, [H, W, 3] uint8, for a number in [0, 1)."""
STREAM = 1 << 64  # makes these random numbers independent of those of crop, flip and colour


class OneChange:
    """Applies one of `vl2v.data.image_changes`, or none, to one image.

    The result only depends on the image, its seed, and the second image that the seed chooses. It does not depend on
    the batch, the process or the number of threads.

    Args:
        style: probability of a change of style.
        corrupt: probability of a corruption; an image never gets both.

    Raises:
        ValueError: if the sum of the two exceeds 1.
    """

    def __init__(self, style: float, corrupt: float) -> None:
        if style + corrupt > 1:
            raise ValueError(f"expected style + corrupt <= 1, found {style} + {corrupt}")
        self.style, self.corrupt = style, corrupt

    def __call__(self, image: Tensor, seed: int, other: Other | None = None) -> Tensor:
        """Change one image.

        Args:
            image: [3, S, S] uint8.
            seed: seed in [0, 2**63).
            other: returns the second image, whose amplitudes are mixed in; None uses the image itself.

        Returns:
            [3, S, S] uint8; the same tensor if there is no change.
        """
        generator = np.random.Generator(np.random.Philox(key=STREAM | seed))
        drawn = torch.from_numpy(generator.random(4 + PARAMETERS, dtype=np.float32))
        position = int(choose(drawn[0:1], drawn[1:2], drawn[2:3], self.style, self.corrupt))
        if position < 0:
            return image
        change, single = CHANGES[position], image[None].float() / 255
        partner = None
        if change.partner:
            partner = single if other is None else _fitted(other(float(drawn[3])), image.shape[-1])
        with _one_thread():
            result = change.apply(single, drawn[None, 4:], partner)
        return (result[0] * 255).round_().clamp_(0, 255).to(torch.uint8)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread within the block, as loading processes do, since the number can affect the rounding."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fitted(pixels: NDArray[np.uint8], size: int) -> Tensor:
    """Return [1, 3, size, size] in [0, 1]."""
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255
    if image.shape[-2:] == (size, size):
        return image
    return F.interpolate(image, size=(size, size), mode="bilinear", antialias=True)


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
