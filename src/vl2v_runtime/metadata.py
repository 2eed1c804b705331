"""What an exported file says of itself: class names, preprocessing, provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vl2v_runtime.errors import ModelError

KEY = "vl2v"  # of the ONNX file's metadata_props
FORMAT = 1
RESIZE = "square, bilinear, antialiased"
COSINE, LINEAR = "cosine", "linear"

AGAIN = "export the student again: vl2v export RUN"


@dataclass(frozen=True)
class Metadata:
    """Everything beside the weights that classifying needs.

    Attributes:
        classes: K class names, in the order of the logits' columns.
        size: side length of the input in pixels.
        mean: per channel, of pixels in [0, 1].
        std: per channel, of pixels in [0, 1].
        logit_scale: s of Predict, Eq. s * cos(P(f(x)), T_k) of arXiv 2310.08255; the logits in the file have it.
        classifier: ``cosine`` (a text head, `head` in the file) or ``linear`` (a baseline's last layer).
        provenance: what is remembered of the student's making.
        quantised: how the weights became INT8; None in float32.
        trust: the content of the student's trust.json; None where there is none.
    """

    classes: tuple[str, ...]
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    logit_scale: float
    classifier: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    quantised: Mapping[str, Any] | None = None
    trust: Mapping[str, Any] | None = None

    def to_json(self) -> str:
        """One JSON object, the value of the metadata key `KEY`."""
        return json.dumps(
            {
                "format": FORMAT,
                "classes": list(self.classes),
                "preprocess": {"size": self.size, "mean": self.mean, "std": self.std, "resize": RESIZE},
                "logit_scale": self.logit_scale,
                "classifier": self.classifier,
                "provenance": self.provenance,
                "quantised": self.quantised,
                "trust": self.trust,
            },
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str | None, where: str) -> Metadata:
        """Read what `to_json` gave.

        Args:
            text: the value of the metadata key `KEY`; None if the file has no such key.
            where: the file's name, for the message.

        Raises:
            ModelError: if it is missing, of another format or incomplete.
        """
        if text is None:
            expected, found = f"metadata under the key '{KEY}'", "none: some other ONNX file"
            raise ModelError(f"{where} was not exported by vl2v.", expected=expected, found=found, next_step=AGAIN)
        try:
            card = json.loads(text)
            if card["format"] != FORMAT:
                step = "update vl2v-runtime, or export the student with this version of vl2v"
                found = f"format {card['format']}"
                raise ModelError(f"{where} is of another kind.", expected="format 1", found=found, next_step=step)
            return cls._of(card)
        except (TypeError, KeyError, ValueError) as error:
            if isinstance(error, ModelError):
                raise
            found = f"{type(error).__name__}: {error}"
            raise ModelError(
                f"{where} has broken metadata.", expected="a complete description", found=found, next_step=AGAIN
            ) from error

    @classmethod
    def _of(cls, card: Mapping[str, Any]) -> Metadata:
        preprocess = card["preprocess"]
        if preprocess["resize"] != RESIZE or card["classifier"] not in (COSINE, LINEAR):
            raise ValueError(f"resize {preprocess['resize']}, classifier {card['classifier']}")
        return cls(
            classes=tuple(str(name) for name in card["classes"]),
            size=int(preprocess["size"]),
            mean=_three(preprocess["mean"]),
            std=_three(preprocess["std"]),
            logit_scale=float(card["logit_scale"]),
            classifier=card["classifier"],
            provenance=card["provenance"],
            quantised=card["quantised"],
            trust=card["trust"],
        )


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
