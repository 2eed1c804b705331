"""Metadata of an exported file: class names, preprocessing, provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vl2v_runtime import strict_json
from vl2v_runtime.errors import ModelError
from vl2v_runtime.fits import RESIZES, SQUASH, Fit, check_fit
from vl2v_runtime.names import has_control
from vl2v_runtime.numbers import number, numbers, whole

KEY = "vl2v"  # of the ONNX file's metadata_props
FORMAT = 1
COSINE, LINEAR = "cosine", "linear"

MAX_CLASSES, MAX_NAME, MAX_SIDE, MAX_LOGIT_SCALE = 100_000, 1_000, 2048, 1e6
AGAIN = "export the student again: vl2v export RUN"


@dataclass(frozen=True)
class Metadata:
    """Everything except the weights that is needed to classify images.

    Attributes:
        classes: K class names, in the order of the logits' columns.
        size: side length of the input in pixels.
        mean: per channel, of pixels in [0, 1].
        std: per channel, of pixels in [0, 1].
        logit_scale: s of Predict, Eq. s * cos(P(f(x)), T_k) of arXiv 2310.08255; the logits in the file have it.
        classifier: ``cosine`` (a text head, `head` in the file) or ``linear`` (a baseline's last layer).
        quantised: quantisation settings; None in float32.
        trust: content of the student's trust.json; None if there is none.
        fit: how an image becomes a square, see `vl2v_runtime.imaging.square`.
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
    fit: Fit = SQUASH

    def to_json(self) -> str:
        """Return a JSON object, the value of the metadata key `KEY`."""
        return json.dumps(
            {
                "format": FORMAT,
                "classes": list(self.classes),
                "preprocess": {
                    "size": self.size,
                    "mean": self.mean,
                    "std": self.std,
                    "fit": self.fit,
                    "resize": RESIZES[self.fit],
                },
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
        """Read the result of `to_json`.

        Args:
            text: value of the metadata key `KEY`; None if the file has no such key.
            where: name of the file, for messages.

        Raises:
            ModelError: if the metadata are missing, incomplete or of another format.
        """
        if text is None:
            expected, found = f"metadata under the key '{KEY}'", "none: this is another ONNX file"
            raise ModelError(f"{where} was not exported by vl2v.", expected=expected, found=found, next_step=AGAIN)
        try:
            card = strict_json.parse(text)
            if type(card["format"]) is not int or card["format"] != FORMAT:
                step = "update vl2v-runtime, or export the student again with this version of vl2v"
                found = f"format {str(card['format'])[:40]}"
                raise ModelError(f"{where} has another format.", expected="format 1", found=found, next_step=step)
            return cls._of(card)
        except (TypeError, KeyError, ValueError) as error:
            if isinstance(error, ModelError):
                raise
            found = f"{type(error).__name__}: {error}"[:300]
            raise ModelError(
                f"{where} has broken metadata.", expected="a complete description", found=found, next_step=AGAIN
            ) from error

    @classmethod
    def _of(cls, card: Mapping[str, Any]) -> Metadata:
        preprocess = _mapping(card["preprocess"], "preprocess")
        if card["classifier"] not in (COSINE, LINEAR):
            raise ValueError(f"classifier {str(card['classifier'])[:40]!r}, expected {COSINE} or {LINEAR}")
        return cls(
            classes=_names(card["classes"]),
            size=whole(preprocess["size"], "size", 1, MAX_SIDE),
            mean=_three(preprocess["mean"], "mean", -1e6),
            std=_three(preprocess["std"], "std", 1e-6),
            logit_scale=number(card["logit_scale"], "logit_scale", 1e-9, MAX_LOGIT_SCALE),
            classifier=card["classifier"],
            provenance=_mapping(card["provenance"], "provenance"),
            quantised=None if card["quantised"] is None else _mapping(card["quantised"], "quantised"),
            trust=None if card["trust"] is None else _mapping(card["trust"], "trust"),
            fit=check_fit(preprocess.get("fit", SQUASH), preprocess["resize"]),
        )


def _three(values: Any, what: str, least: float) -> tuple[float, float, float]:
    red, green, blue = numbers(values, what, least, 1e6, count=3)
    return red, green, blue


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} of type {type(value).__name__}, expected an object")
    return value


def fault_of_class(name: Any) -> str:
    """Return why a value cannot be the name of a class; empty if it can."""
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME:
        return f"the class {str(name)[:40]!r}; a name has 1 to {MAX_NAME:,} characters"
    return f"the class {name[:40]!r}, which has a control character" if has_control(name) else ""


def _names(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_CLASSES:
        raise ValueError(f"classes that are not a list of 1 to {MAX_CLASSES:,} names")
    for name in values:
        if fault := fault_of_class(name):
            raise ValueError(fault)
    if len(set(values)) != len(values):
        raise ValueError("a duplicate class name")
    return tuple(values)
