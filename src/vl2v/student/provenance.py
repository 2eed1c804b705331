"""Schema of the provenance of a student, which may come from an untrusted source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vl2v.data.digest_sample import DIGITS, LARGEST
from vl2v.errors import StudentError
from vl2v.strict import described

Text = Annotated[str, Field(max_length=100_000)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Head = Annotated[str, Field(pattern=rf"^[0-9a-f]{{{DIGITS}}}$")]


class _Part(BaseModel):
    """Base class. Unknown keys are preserved."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class TeacherPart(_Part):
    """The teacher of the student."""

    identity: Text
    revision: Text
    dimension: Count


class DataPart(_Part):
    """The training data."""

    digest: Text
    images: Count = 0
    domains: list[Text] = []
    held_out: list[Text] = []
    training_images: Count = 0
    training_sample: Annotated[list[Head], Field(max_length=LARGEST)] = []
    unlabelled_images: Count = 0
    unlabelled_sample: Annotated[list[Head], Field(max_length=LARGEST)] = []


class SwadPart(_Part):
    """The steps over which SWAD averaged the weights."""

    converged_at: Count | None = None
    dead_at: Count | None = None
    threshold: float | None = None


class ChangePart(_Part):
    """Classes that were added or removed after training."""

    at: Text
    before: Annotated[list[Text], Field(min_length=1)]
    added: dict[str, list[Text]] = {}
    removed: list[Text] = []


class SpecPart(_Part):
    """A teacher or a student by its name."""

    spec: Text = ""


class ConfigPart(_Part):
    """Settings of the run. Their values are checked when they are used."""

    data: dict[str, Any] = {}
    teacher: SpecPart = SpecPart()
    student: SpecPart = SpecPart()
    method: Text = ""


class Provenance(_Part):
    """The keys that vl2v writes. Each of them is optional."""

    made_with: dict[str, Text] = {}
    made_at: Text = ""
    origin: Annotated[str, Field(max_length=100)] = ""
    teacher: TeacherPart | None = None
    prompts: list[Text] = []
    templates: list[Text] = []
    data: DataPart | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    weights: Text = ""
    swad: SwadPart | None = None
    config: ConfigPart | None = None
    classes_changed: list[ChangePart] = []


def data_settings(provenance: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings `data` in a provenance; empty if there are none."""
    config = provenance.get("config")
    data = config.get("data") if isinstance(config, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def check_provenance(provenance: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Check the types of all known keys of a provenance, and return it unchanged.

    Args:
        provenance: provenance of a student or of an exported file.
        where: the student or the file, for the message.

    Raises:
        StudentError: with the first errors.
    """
    try:
        Provenance.model_validate(dict(provenance))
    except ValidationError as error:
        raise StudentError(
            f"The provenance of {where} cannot be used.",
            expected="what vl2v distill wrote",
            found=described(error),
            next_step="copy the student again from its source; vl2v predict works without a provenance",
        ) from error
    return provenance
