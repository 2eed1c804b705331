"""What the service answers, as types: they make the documentation, and their fields the JSON."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from vl2v.serve.gallery import Neighbour
from vl2v.web.faults import ApiError
from vl2v_runtime.drift import Drift

DIGITS = 6


class Fault(BaseModel):
    """Why something was not done."""

    message: str = Field(description="What was expected, and what to do; for people.")
    type: str = Field(description="The kind of fault.")
    param: str | None = Field(description="The part of the request that is meant.")
    code: str | None = Field(description="A short stable name of the fault, for programs.")


class Refusal(BaseModel):
    """The body of every answer that is none."""

    error: Fault


class ClassChance(BaseModel):
    """A class and its probability."""

    name: str
    probability: float = Field(description="Calibrated by the temperature of the validation images, in [0, 1].")


class Near(BaseModel):
    """A training image near the one that was asked about."""

    picture: str = Field(description="Path of a small JPEG on this server.")
    similarity: float = Field(description="Cosine of the two embeddings, in [-1, 1].")
    label: str
    domain: str
    path: str = Field(description="The file, relative to the data's root.")

    @classmethod
    def of(cls, neighbour: Neighbour) -> Near:
        """In the words of the API."""
        n = neighbour
        picture, similarity = f"/v1/gallery/{n.row}", round(n.similarity, DIGITS)
        return cls(picture=picture, similarity=similarity, label=n.label, domain=n.domain, path=n.path)


class ImageAnswer(BaseModel):
    """One image's answer, or its fault."""

    name: str = Field(description="What the client calls the image.")
    label: str | None = Field(default=None, description="The most probable class.")
    confidence: float | None = Field(default=None, description="Its probability.")
    accepted: bool | None = Field(default=None, description="Whether it is sure enough for the coverage.")
    classes: list[ClassChance] = Field(default=[], description="The most probable classes, falling.")
    neighbours: list[Near] = Field(default=[], description="The nearest training images, nearest first.")
    error: Fault | None = Field(default=None, description="Why this image has no answer; the others have theirs.")


class DriftHint(BaseModel):
    """Whether the images, taken together, look like the training domains."""

    nearest: str = Field(description="The training domain that they resemble most.")
    distance: float
    expected: float = Field(description="The usual distance of as many images of the training domains.")
    unusual: bool
    text: str

    @classmethod
    def of(cls, drift: Drift) -> DriftHint:
        """In the words of the API."""
        distance, expected = round(drift.distance, DIGITS), round(drift.expected, DIGITS)
        return cls(nearest=drift.nearest, distance=distance, expected=expected, unusual=drift.unusual, text=drift.text)


class Prediction(BaseModel):
    """The answer of `POST /v1/predict`."""

    answers: list[ImageAnswer] = Field(description="In the order of the images.")
    drift: DriftHint | None
    milliseconds: float = Field(description="Spent on reading the images and in the network.")


class About(BaseModel):
    """What is served."""

    name: str
    version: str
    size: int = Field(description="Side length in pixels that images are resized to.")
    int8: bool
    classes: int
    teacher: str | None
    coverages: list[float] = Field(description="What `coverage` may be.")
    drift: bool = Field(description="Whether answers have a drift hint.")
    gallery: int = Field(description="Training images that neighbours are found among.")
    no_gallery: str | None = Field(description="Why there is none.")
    editable: bool = Field(description="Whether classes can be added and removed.")
    no_edits: str | None = Field(description="Why they cannot.")
    image_bytes: int = Field(description="The most bytes of one image.")
    body_bytes: int = Field(description="The most bytes of one request.")
    inputs: int = Field(description="The most images of one request.")


class Classes(BaseModel):
    """The classes that are known."""

    classes: list[str]


class Price(BaseModel):
    """What asking the teacher about new classes costs."""

    teacher: str
    prompts: list[str] = Field(description="The texts that the teacher is asked about.")
    known: int = Field(description="How many of them were bought before; they cost nothing.")
    cost: str
    currency: str


class NewClasses(BaseModel):
    """The body of `POST /v1/classes`."""

    model_config = {"extra": "forbid"}

    names: list[str] = Field(min_length=1, max_length=100, description="Classes to add.")
    budget: Decimal | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="The most to spend. Without it, only the price is stated."
    )


class Added(BaseModel):
    """The answer of `POST /v1/classes`."""

    price: Price
    added: list[str] = Field(description="Empty if only the price was stated.")
    classes: list[str] = Field(description="All that are known now.")


def rank(
    chances: NDArray[np.float32], classes: Sequence[str], top_k: int, accepted: bool | None, name: str = ""
) -> ImageAnswer:
    """One image's answer from its [K] probabilities, with the `top_k` greatest of them."""
    order = np.argsort(-chances, kind="stable")[:top_k]
    ranked = [ClassChance(name=classes[k], probability=round(float(chances[k]), DIGITS)) for k in order]
    best = ranked[0]
    return ImageAnswer(name=name, label=best.name, confidence=best.probability, accepted=accepted, classes=ranked)


def fault(error: ApiError) -> Fault:
    """An image's fault, in the shape that whole refusals have."""
    return Fault.model_validate(error.body["error"])
