"""DomainBed's protocol as a grid of jobs: each domain is the unseen target once, several seeds, equal settings."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from vl2v.config import DEFAULT_METHOD, RunConfig, merge
from vl2v.data.folder import read_mapping
from vl2v.errors import ConfigError
from vl2v.faults import reading
from vl2v.json_files import read_json, write_json
from vl2v.locking import file_lock
from vl2v.method.registry import METHODS
from vl2v.nested import nested
from vl2v.validation import parse
from vl2v.writing import check_folder, write_text

SHARED = (("data", "root"), ("data", "held_out"), ("data", "unlabelled"), ("teacher", "spec"))
WHITE_BOX = "sd"  # VL2V-SD: a variant, not a method, since only the student differs
NOT_OF_THE_RESULT: Any = {  # paths and prices do not change the result
    "data": {"root", "unlabelled", "drop"},
    "teacher": {"spec", "price_per_1000_images", "price_per_1000_texts", "accept", "free", "batch_api"},
    "student": {"spec"},
    "budget": True,
    "device": True,
    "micro_batch": True,
    "compile": True,
    "workers": True,
    "threads": True,
    "tracking": True,
    "made_with": True,
    "origin": True,
}


class Variant(BaseModel):
    """A row of the table: a method, and settings that override those of the grid."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    settings: dict[str, Any] = {}


class Grid(BaseModel):
    """The settings of a benchmark, saved as `benchmark.yaml` next to its jobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: dict[str, Any]
    """Settings of all jobs, as nested keys of `RunConfig`, without those that the grid sets (target and seed)."""
    variants: dict[str, Variant]
    domains: tuple[str, ...]
    """All domains of the data."""
    targets: tuple[str, ...]
    """Domains that are held out for testing, one at a time."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    vary: dict[str, tuple[Any, ...]] = {}
    """Candidate values of settings, by dotted key."""
    tune: Literal["each-seed", "first-seed"] = "each-seed"
    """Run all candidates with every seed, or only with the first seed, whose selection the other seeds use."""
    crossed: bool = False
    """Also run all candidates with each source domain held out, for leave-one-domain-out cross-validation."""

    def candidates(self) -> list[dict[str, Any]]:
        """All combinations of candidate values; a single empty one if there are none."""
        keys = list(self.vary)
        return [dict(zip(keys, values, strict=True)) for values in itertools.product(*self.vary.values())]


def make_variants(methods: tuple[str, ...], more: Mapping[str, Variant]) -> dict[str, Variant]:
    """Return variants by label, from names of methods and the variants of the user.

    Raises:
        ConfigError: if a method is unknown.
    """
    white_box = Variant(title="VL2V-SD", settings={"method": DEFAULT_METHOD, "student": {"spec": "teacher"}})
    variants = {WHITE_BOX: white_box, **more}
    if unknown := [name for name in methods if name not in variants and name not in METHODS]:
        step, names = "correct --methods, or define it with --variants", dict.fromkeys([*METHODS, *variants])
        raise ConfigError("Unknown method.", expected=", ".join(names), found=", ".join(unknown), next_step=step)
    return {name: variants[name] if name in variants else _variant(name) for name in methods} | dict(more)


def _variant(name: str) -> Variant:
    method, settings = METHODS[name], dict[str, Any](method=name)
    if method.forbids_first_stage:  # even if the other methods of the grid have one
        settings["align"] = {"steps": 0}
    return Variant(title=method.title, settings=settings)


@dataclass(frozen=True)
class Origin:
    """Inputs, besides the settings, that the results depend on, identified by content.

    Attributes:
        data: digest of the images and their labels.
        teacher: identity and revision of the teacher.
        student: name of the student, with the digest of its weights if they are a file.
    """

    data: str
    teacher: str
    student: str


@dataclass(frozen=True)
class Job:
    """One run of the grid.

    Attributes:
        method: label of the variant.
        title: name of the variant in tables.
        target: domain that is held out for testing.
        candidate: candidate values of settings, by dotted key.
        crossed: source domain that is also held out, for cross-validation; None otherwise.
        key: 16 hexadecimal digits, a hash of everything that the result depends on.
    """

    method: str
    title: str
    target: str
    seed: int
    candidate: Mapping[str, Any]
    crossed: str | None
    config: RunConfig
    key: str

    @property
    def name(self) -> str:
        """Name of its folder. Two domains that are held out together are one job, whichever of them is the target."""
        out = [self.target] if self.crossed is None else ["without", *sorted((self.target, self.crossed))]
        parts = (re.sub(r"[^A-Za-z0-9_.]+", "_", part) for part in (self.method, *out, str(self.seed)))
        return "-".join([*parts, self.key])

    def describe(self) -> str:
        """Describe the job in one line."""
        parts = [self.title, f"target {self.target}", *([f"without {self.crossed}"] if self.crossed else [])]
        return ", ".join([*parts, f"seed {self.seed}", *(f"{key} {value}" for key, value in self.candidate.items())])

    def with_settings(self, **changes: Any) -> Job:
        """Return the same job with other settings that do not change its result, such as the budget."""
        return replace(self, config=self.config.model_copy(update=changes))


def jobs(grid: Grid, origin: Origin) -> Iterator[Job]:
    """Iterate over the jobs of a grid, seed by seed, so that an interrupted grid has complete tables of fewer seeds.

    Raises:
        ConfigError: lists all errors in the settings of a job.
    """
    names = set()
    for seed, target, label in itertools.product(grid.seeds, grid.targets, grid.variants):
        for candidate in grid.candidates():
            yield make_job(grid, origin, label, target, seed, candidate)
            for source in grid.domains if grid.crossed else ():
                if source != target:
                    job = make_job(grid, origin, label, target, seed, candidate, source)
                    if job.name not in names:
                        names.add(job.name)
                        yield job


def make_job(
    grid: Grid,
    origin: Origin,
    label: str,
    target: str,
    seed: int,
    candidate: Mapping[str, Any],
    crossed: str | None = None,
) -> Job:
    """Create a job of a grid and validate its settings.

    Raises:
        ConfigError: lists all errors.
    """
    variant = grid.variants[label]
    job_settings = merge(variant.settings, nested(candidate))
    _check_shared(job_settings, label)
    held_out = (target,) if crossed is None else tuple(sorted((target, crossed)))
    # The result of a job must not depend on the speed of the machine.
    protocol = {"data": {"held_out": held_out}, "distill": {"minutes": 0.0}, "seed": seed}
    config = parse(RunConfig, merge(merge(grid.settings, job_settings), protocol), f"the settings of {label}")
    if config.when_short == "choose":
        raise ConfigError(
            "A benchmark cannot choose the images to query.",
            expected="when_short refuse, since the embeddings of all jobs are bought before the first one",
            found=f"when_short choose, in the settings of {label}",
            next_step="drop it, and raise the budget or set data.labels_per_class",
        )
    if config.student.spec != (grid.settings.get("student") or {}).get("spec"):
        origin = replace(origin, student=student_name(config.student.spec))
    return Job(label, variant.title, target, seed, candidate, crossed, config, key_of(config, origin))


def _check_shared(settings: Mapping[str, Any], label: str) -> None:
    """Check that a variant has the data and the teacher of the grid, since all jobs share the purchased embeddings."""
    keys = [f"{part}.{key}" for part, key in SHARED if key in (settings.get(part) or {})]
    if keys:
        raise ConfigError(
            f"The variant {label} does not fit the grid.",
            expected="the same dataset and teacher in every row",
            found=", ".join(keys),
            next_step="run it as another benchmark, and join the tables: vl2v benchmark table ONE OTHER",
        )


def key_of(config: RunConfig, origin: Origin) -> str:
    """Hash everything that the result of a job depends on; settings with default values are omitted."""
    settings = config.model_dump(mode="json", exclude_defaults=True, exclude=NOT_OF_THE_RESULT)
    if settings.get("precision") == "no":  # the default of earlier versions
        del settings["precision"]
    if config.student.size is None:  # no larger size than that of the pretrained weights is tried
        settings.get("student", {}).pop("final_size", None)
    content = json.dumps([settings, origin.data, origin.teacher, origin.student], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def student_name(spec: str) -> str:
    """Return the name of a student with the digest of its checkpoint instead of its path.

    Raises:
        ConfigError: if the checkpoint is missing.
    """
    name, _, checkpoint = spec.partition("@")
    if not checkpoint:
        return name
    path = Path(checkpoint)
    if not path.is_file():
        step = "correct --student"
        raise ConfigError(f"{path} is missing.", expected="a checkpoint", found="nothing", next_step=step)
    return f"{name}@{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def save_grid(out: Path, grid: Grid, origin: Origin) -> None:
    """Save a grid: its settings in `benchmark.yaml`, and its origin in `origin.json`."""
    out.mkdir(parents=True, exist_ok=True)
    check_folder(out)
    text = yaml.safe_dump(grid.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    (out / "locks").mkdir(exist_ok=True)
    with file_lock(out / "locks" / "benchmark"):  # several processes may open a benchmark at the same time
        write_text(out / "benchmark.yaml", text)
        write_json(out / "origin.json", asdict(origin))


def load_grid(out: Path) -> tuple[Grid, Origin]:
    """Load a grid that `save_grid` has saved.

    Raises:
        ConfigError: if there is none.
    """
    file = out / "benchmark.yaml"
    if not file.is_file() or not (out / "origin.json").is_file():
        step = "pass the folder of an existing benchmark, which vl2v benchmark run --out named"
        raise ConfigError(f"{out} contains no benchmark.", expected="benchmark.yaml", found="none", next_step=step)
    with reading(out / "origin.json"):
        origin = Origin(**read_json(out / "origin.json"))
    return parse(Grid, read_mapping(file), str(file)), origin
