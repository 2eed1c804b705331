"""A local teacher: an open_clip model, from a tag on the hub or from a local file."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any

import torch

from vl2v.errors import TeacherError
from vl2v.pretrained.open_clip import ClipSpec, create, ensure_known, import_open_clip
from vl2v.teacher.base import Embeddings, Price, TeacherCard, file_digest, open_image, unit_rows


class OpenClipTeacher:
    """A CLIP-like model on this machine, which is free.

    Args:
        spec: ``<model>/<pretrained tag or file>``, e.g. ``ViT-B-16/openai``.
        device: device of the model; None selects the first GPU, or else the CPU.
        batch_size: maximum number of images per call.

    Raises:
        TeacherError: if the model or its weights are not available.
    """

    def __init__(self, spec: str, device: str | None = None, batch_size: int = 64) -> None:
        self.spec = ClipSpec.parse(spec)
        ensure_known(self.spec, TeacherError)
        self._name = f"open_clip:{spec}"
        self._batch_size = batch_size
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")

    @cached_property
    def _model(self) -> tuple[Any, Any, Any]:
        model, transform = create(self.spec, TeacherError)
        tokenizer = import_open_clip("An open_clip teacher").get_tokenizer(self.spec.model)
        return model.to(self._device), transform, tokenizer

    @cached_property
    def _card(self) -> TeacherCard:
        model, _, _ = self._model
        with torch.no_grad():
            dimension = int(self._embed_tokens([""]).shape[1])
        identity = f"open_clip:{self.spec.model}/{self.spec.file.name}" if self.spec.file else self._name
        scale = float(model.logit_scale.detach().exp())
        return TeacherCard(identity, self._revision(), dimension, scale, batch_size=self._batch_size)

    @property
    def local_device(self) -> str:
        """The device of the model on this machine."""
        return self._device

    def describe(self) -> TeacherCard:
        """See `Teacher.describe`. The revision is the digest of the local file, or of the hub entry of the tag."""
        return self._card

    @torch.no_grad()
    def embed_images(self, images: list[bytes]) -> Embeddings:
        """See `Teacher.embed_images`; rows have length one."""
        model, transform, _ = self._model
        pixels = torch.stack([transform(open_image(data)) for data in images])
        return unit_rows(model.encode_image(pixels.to(self._device)).float().cpu().numpy())

    @torch.no_grad()
    def embed_texts(self, texts: list[str]) -> Embeddings:
        """See `Teacher.embed_texts`; rows have length one."""
        return unit_rows(self._embed_tokens(texts).float().cpu().numpy())

    def _embed_tokens(self, texts: list[str]) -> torch.Tensor:
        model, _, tokenizer = self._model
        embedded: torch.Tensor = model.encode_text(tokenizer(texts).to(self._device))
        return embedded

    def _revision(self) -> str:
        if self.spec.file:
            return file_digest(self.spec.file)[:16]
        open_clip = import_open_clip("An open_clip teacher")
        config = open_clip.get_pretrained_cfg(self.spec.model, self.spec.pretrained) if self.spec.pretrained else {}
        return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:16]


def from_name(rest: str, price: Price | None, device: str | None) -> OpenClipTeacher:
    """Open the teacher; see `vl2v.teacher.registry.Factory`."""
    return OpenClipTeacher(rest, device)
