"""The schema of `student.json`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from vl2v.student.architectures import MAX_SIDE
from vl2v_runtime.fits import RESIZES, SQUASH, Fit, check_fit
from vl2v_runtime.metadata import MAX_CLASSES, MAX_NAME
from vl2v_runtime.names import has_control

MAX_DIMENSION = 10_000_000  # of features and embeddings; the weights' shapes are compared before anything is allocated
MAX_LOGIT_SCALE = 1e6


def _printable(name: str) -> str:
    if has_control(name):
        raise ValueError("a control character")
    return name


Text = Annotated[str, Field(max_length=200)]
ClassName = Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(_printable)]
Dimension = Annotated[int, Field(ge=1, le=MAX_DIMENSION)]
Level = Annotated[float, Field(ge=-1e6, le=1e6)]
Spread = Annotated[float, Field(ge=1e-6, le=1e6)]


class _Part(BaseModel):
    """Base class. Unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class RecipeCard(_Part):
    """`vl2v.student.architectures.Recipe`. Name and options are checked when the backbone is built."""

    kind: Text
    name: Text
    options: dict[str, Any] = {}


class PreprocessCard(_Part):
    """`vl2v.student.preprocess.Preprocess`."""

    size: Annotated[int, Field(ge=1, le=MAX_SIDE)]
    mean: Annotated[tuple[Level, Level, Level], Field(strict=False)]
    std: Annotated[tuple[Spread, Spread, Spread], Field(strict=False)]
    fit: Fit = SQUASH
    resize: Text = RESIZES[SQUASH]

    @model_validator(mode="after")
    def _known_resize(self) -> PreprocessCard:
        check_fit(self.fit, self.resize)
        return self


class StudentCard(_Part):
    """The content of `student.json`, format 1."""

    backbone: RecipeCard
    features: Dimension
    dimension: Dimension
    projection: Literal["linear", "identity"]
    classifier: Literal["cosine", "linear"] = "cosine"
    preprocess: PreprocessCard
    classes: Annotated[list[ClassName], Field(min_length=1, max_length=MAX_CLASSES)]
    logit_scale: Annotated[float, Field(gt=0, le=MAX_LOGIT_SCALE)]
    offsets: list[Level] | None = None
    provenance: dict[str, Any] = {}

    @model_validator(mode="after")
    def _consistent(self) -> StudentCard:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a duplicate class name")
        if self.projection == "identity" and self.features != self.dimension:
            raise ValueError("an identity projection between different dimensions")
        if self.classifier == "linear" and self.dimension != len(self.classes):
            raise ValueError("a linear classifier whose dimension differs from the number of classes")
        if self.offsets is not None and (self.classifier == "linear" or len(self.offsets) != len(self.classes)):
            raise ValueError("offsets that are not one for each class of a text head")
        return self

    @property
    def top(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the projection and the head, by name."""
        shapes: dict[str, tuple[int, ...]] = {}
        if self.projection == "linear":
            shapes |= {"projection.weight": (self.dimension, self.features), "projection.bias": (self.dimension,)}
        if self.classifier == "cosine":
            shapes["head"] = (len(self.classes), self.dimension)
        return shapes
