"""A change of style or a corruption of one training image, drawn from the image's own seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vl2v.data.image_changes import CHANGES, PARAMETERS, choose

Other = Callable[[float], NDArray[np.uint8]]
"""Gives another image, [H, W, 3] uint8, for a number in [0, 1)."""
STREAM = 1 << 64  # sets these draws apart from those of crop, flip and colour, which the same seed gives


class OneChange:
    """Applies one of `vl2v.data.image_changes`, or none, to one image.

    What happens depends on the image, its seed and the partner that the seed chooses, and on nothing else: neither on
    the batch nor on the process that computes it, nor on how many threads it has.

    Args:
        style: probability of a change of style.
        corrupt: probability of a corruption; an image gets one or the other.

    Raises:
        ValueError: if the two add up to more than 1.
    """

    def __init__(self, style: float, corrupt: float) -> None:
        if style + corrupt > 1:
            raise ValueError(f"expected style + corrupt <= 1, found {style} + {corrupt}")
        self.style, self.corrupt = style, corrupt

    def __call__(self, image: Tensor, seed: int, other: Other | None = None) -> Tensor:
        """Change one image.

        Args:
            image: [3, S, S] uint8.
            seed: 0 <= seed < 2**63.
            other: gives the partner whose amplitudes are mixed in; without it the image is its own.

        Returns:
            [3, S, S] uint8; the very same tensor if nothing was drawn for it.
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
            changed = change.apply(single, drawn[None, 4:], partner)
        return (changed[0] * 255).round_().clamp_(0, 255).to(torch.uint8)


@contextmanager
def _one_thread() -> Iterator[None]:
    """A convolution may round differently with more threads, and loading processes have one each."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fitted(pixels: NDArray[np.uint8], size: int) -> Tensor:
    """[1, 3, size, size] in [0, 1]."""
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255
    if image.shape[-2:] == (size, size):
        return image
    return F.interpolate(image, size=(size, size), mode="bilinear", antialias=True)
