"""Response types of the API, which also define its documentation."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from vl2v.web.faults import ApiError
from vl2v_runtime.drift import Drift

DIGITS = 6


class ErrorDetail(BaseModel):
    """An error."""

    message: str = Field(description="Human-readable message: what was expected, and what to do.")
    type: str = Field(description="Type of the error.")
    param: str | None = Field(description="The part of the request that caused the error.")
    code: str | None = Field(description="Machine-readable error code.")


class ErrorResponse(BaseModel):
    """The body of an error response."""

    error: ErrorDetail


class ClassProbability(BaseModel):
    """A class and its probability."""

    name: str
    probability: float = Field(description="Calibrated by the temperature of the validation images, in [0, 1].")


class Neighbour(BaseModel):
    """A training image that is similar to the queried image."""

    picture: str = Field(description="Path of a small JPEG on this server.")
    similarity: float = Field(description="Cosine of the two embeddings, in [-1, 1].")
    label: str
    domain: str
    path: str = Field(description="The file, relative to the data's root.")


class ImageAnswer(BaseModel):
    """The prediction for one image, or an error."""

    name: str = Field(description="Name of the image in the request.")
    label: str | None = Field(default=None, description="The most probable class.")
    confidence: float | None = Field(default=None, description="Its probability.")
    accepted: bool | None = Field(default=None, description="Whether the score is sufficient for the coverage.")
    classes: list[ClassProbability] = Field(default=[], description="The most probable classes, in descending order.")
    neighbours: list[Neighbour] = Field(default=[], description="The nearest training images, nearest first.")
    error: ErrorDetail | None = Field(
        default=None, description="Why this image could not be classified; the other images are not affected."
    )


class DriftHint(BaseModel):
    """Whether the images, taken together, look similar to the training domains."""

    nearest: str = Field(description="The most similar training domain.")
    distance: float
    expected: float = Field(description="Typical distance of the same number of images of the training domains.")
    unusual: bool
    text: str

    @classmethod
    def of(cls, drift: Drift) -> DriftHint:
        """Create it from the result of the drift detection."""
        distance, expected = round(drift.distance, DIGITS), round(drift.expected, DIGITS)
        return cls(nearest=drift.nearest, distance=distance, expected=expected, unusual=drift.unusual, text=drift.text)


class Prediction(BaseModel):
    """The response of `POST /v1/predict`."""

    answers: list[ImageAnswer] = Field(description="In the order of the images.")
    drift: DriftHint | None
    milliseconds: float = Field(description="Time for decoding the images and for the network.")


class ModelInfo(BaseModel):
    """Description of the served student."""

    name: str
    version: str
    size: int = Field(description="Side length in pixels that images are resized to.")
    fit: str = Field(description="How an image becomes a square: squash, crop or pad.")
    int8: bool
    classes: int
    teacher: str | None
    coverages: list[float] = Field(description="Valid values of `coverage`.")
    scores: list[str] = Field(description="Valid values of `score`, if there are coverages.")
    drift: bool = Field(description="Whether responses contain drift detection.")
    gallery: int = Field(description="Number of training images that neighbours are searched in.")
    no_gallery: str | None = Field(description="Reason if there are none.")
    editable: bool = Field(description="Whether classes can be added and removed.")
    no_edits: str | None = Field(description="Reason if they cannot.")
    image_bytes: int = Field(description="Maximum size of an image in bytes.")
    body_bytes: int = Field(description="Maximum size of a request in bytes.")
    inputs: int = Field(description="Maximum number of images per request.")
    formats: list[str] = Field(description="Image formats that can be read here.")
    suffixes: list[str] = Field(description="Usual suffixes of their files.")


class Classes(BaseModel):
    """The current classes."""

    classes: list[str]


class Price(BaseModel):
    """The cost of the teacher queries for new classes."""

    teacher: str
    prompts: list[str] = Field(description="The texts that are sent to the teacher.")
    known: int = Field(description="Number of texts that are already stored and therefore free.")
    cost: str
    currency: str


class NewClasses(BaseModel):
    """The body of `POST /v1/classes`."""

    model_config = {"extra": "forbid"}

    names: list[str] = Field(min_length=1, max_length=100, description="Classes to add.")
    budget: Decimal | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Maximum amount to spend. Without it, only the price is returned.",
    )


class AddedClasses(BaseModel):
    """The response of `POST /v1/classes`."""

    price: Price
    added: list[str] = Field(description="Empty if only the price was requested.")
    classes: list[str] = Field(description="All current classes.")


def rank(
    chances: NDArray[np.float32], classes: Sequence[str], top_k: int, accepted: bool | None, name: str = ""
) -> ImageAnswer:
    """Return the prediction for one image.

    Args:
        chances: [K] float32, the probabilities of the classes.
        top_k: number of classes to return.
        accepted: whether the prediction is accepted; None if it was not checked.
    """
    order = np.argsort(-chances, kind="stable")[:top_k]
    ranked = [ClassProbability(name=classes[k], probability=round(float(chances[k]), DIGITS)) for k in order]
    best = ranked[0]
    return ImageAnswer(name=name, label=best.name, confidence=best.probability, accepted=accepted, classes=ranked)


def fault(error: ApiError) -> ErrorDetail:
    """Convert the error of one image to the format of error responses."""
    return ErrorDetail.model_validate(error.body["error"])
