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

from vl2v.config import DEFAULT_METHOD, RunConfig, merge, parse
from vl2v.data.folder import read_yaml
from vl2v.errors import ConfigError
from vl2v.faults import reading
from vl2v.json_files import read_json, write_json
from vl2v.locking import file_lock
from vl2v.method.registry import METHODS
from vl2v.nested import nested
from vl2v.writing import check_folder, write_text

SHARED = (("data", "root"), ("data", "held_out"), ("data", "unlabelled"), ("teacher", "spec"))
WHITE_BOX = "sd"  # VL2V-SD: a variant and no method, since only the student differs
NOT_OF_THE_RESULT: Any = {  # where things lie and what they may cost does not change what comes out
    "data": {"root", "unlabelled"},
    "teacher": {"spec", "price_per_1000_images", "price_per_1000_texts", "accept", "free"},
    "student": {"spec"},
    "budget": True,
    "device": True,
    "micro_batch": True,
    "workers": True,
    "threads": True,
    "tracking": True,
    "made_with": True,
}


class Variant(BaseModel):
    """A row of the table: a method with settings of its own laid over the grid's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    settings: dict[str, Any] = {}


class Grid(BaseModel):
    """What a benchmark runs; kept as `benchmark.yaml` beside its jobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: dict[str, Any]
    """Nested keys of `RunConfig`, for every job; what the grid chooses (target, seed) is not among them."""
    variants: dict[str, Variant]
    domains: tuple[str, ...]
    """All domains of the data."""
    targets: tuple[str, ...]
    """Those that are left out to test, one at a time."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    vary: dict[str, tuple[Any, ...]] = {}
    """Dotted keys and the values that candidates of a selection differ in."""
    tune: Literal["each-seed", "first-seed"] = "each-seed"
    """Run every candidate with every seed, or the first seed's choice (by source validation) with the others."""
    crossed: bool = False
    """Also run every candidate with each source domain left out as well, for selection by cross-validation."""

    def candidates(self) -> list[dict[str, Any]]:
        """Every combination of the values that vary; one empty one where nothing does."""
        keys = list(self.vary)
        return [dict(zip(keys, values, strict=True)) for values in itertools.product(*self.vary.values())]


def make_variants(methods: tuple[str, ...], more: Mapping[str, Variant]) -> dict[str, Variant]:
    """Variants by label, from names of methods and of variants that the user defines.

    Raises:
        ConfigError: if a name is neither.
    """
    white_box = Variant(title="VL2V-SD", settings={"method": DEFAULT_METHOD, "student": {"spec": "teacher"}})
    known = {WHITE_BOX: white_box, **more}
    if unknown := [name for name in methods if name not in known and name not in METHODS]:
        step, names = "correct --methods, or define it with --variants", dict.fromkeys([*METHODS, *known])
        raise ConfigError("Unknown method.", expected=", ".join(names), found=", ".join(unknown), next_step=step)
    return {name: known[name] if name in known else _variant(name) for name in methods} | dict(more)


def _variant(name: str) -> Variant:
    """A method with the grid's settings."""
    method, settings = METHODS[name], dict[str, Any](method=name)
    if method.forbids_first_stage:  # though the others of the grid have one
        settings["align"] = {"steps": 0}
    return Variant(title=method.title, settings=settings)


@dataclass(frozen=True)
class Origin:
    """What the results depend on beside the settings, by content.

    Attributes:
        data: digest of the images and their labels.
        teacher: identity and revision.
        student: its name, and the digest of its weights where they are a file.
    """

    data: str
    teacher: str
    student: str


@dataclass(frozen=True)
class Job:
    """One run of the grid.

    Attributes:
        method: the variant's label.
        title: its name in a table.
        target: the domain left out to test.
        seed: the run's.
        candidate: the settings that vary, dotted keys.
        crossed: a source domain left out as well; None in the runs that the table is about.
        config: all of its settings.
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
        """Its folder's name. Two domains left out together are one job, whichever of them is the target."""
        out = [self.target] if self.crossed is None else ["without", *sorted((self.target, self.crossed))]
        parts = (re.sub(r"[^A-Za-z0-9_.]+", "_", part) for part in (self.method, *out, str(self.seed)))
        return "-".join([*parts, self.key])

    def describe(self) -> str:
        """What it is, in a line."""
        parts = [self.title, f"target {self.target}", *([f"without {self.crossed}"] if self.crossed else [])]
        return ", ".join([*parts, f"seed {self.seed}", *(f"{key} {value}" for key, value in self.candidate.items())])

    def with_budget(self, budget: Any) -> Job:
        """The same job, allowed to spend so much."""
        return replace(self, config=self.config.model_copy(update={"budget": budget}))


def jobs(grid: Grid, origin: Origin) -> Iterator[Job]:
    """Every job of a grid: seeds outermost, so that a grid cut short has whole tables of fewer seeds.

    Raises:
        ConfigError: with every fault of a job's settings.
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
    """One job of a grid, its settings checked.

    Raises:
        ConfigError: with every fault.
    """
    variant = grid.variants[label]
    chosen = merge(variant.settings, nested(candidate))
    _check_shared(chosen, label)
    held_out = (target,) if crossed is None else tuple(sorted((target, crossed)))
    # A job's result may not depend on how fast the machine is.
    protocol = {"data": {"held_out": held_out}, "distill": {"minutes": 0.0}, "seed": seed}
    config = parse(RunConfig, merge(merge(grid.settings, chosen), protocol), f"the settings of {label}")
    if config.student.spec != (grid.settings.get("student") or {}).get("spec"):
        origin = replace(origin, student=student_name(config.student.spec))
    return Job(label, variant.title, target, seed, candidate, crossed, config, key_of(config, origin))


def _check_shared(settings: Mapping[str, Any], label: str) -> None:
    """Refuse a row with data or a teacher of its own: all jobs of a grid share them, and what was bought.

    Raises:
        ConfigError: if it has.
    """
    own = [f"{part}.{key}" for part, key in SHARED if key in (settings.get(part) or {})]
    if own:
        raise ConfigError(
            f"The variant {label} does not fit the grid.",
            expected="the same dataset and teacher in every row",
            found=", ".join(own),
            next_step="run it as another benchmark, and join the tables: vl2v benchmark table ONE OTHER",
        )


def key_of(config: RunConfig, origin: Origin) -> str:
    """A hash of everything that a job's result depends on; settings at their defaults do not count."""
    settings = config.model_dump(mode="json", exclude_defaults=True, exclude=NOT_OF_THE_RESULT)
    content = json.dumps([settings, origin.data, origin.teacher, origin.student], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def student_name(spec: str) -> str:
    """A student's name without the place of its checkpoint, whose content stands in instead.

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
    """Leave a grid in its folder: `benchmark.yaml`, and in `origin.json` what its jobs depend on by content."""
    out.mkdir(parents=True, exist_ok=True)
    check_folder(out)
    text = yaml.safe_dump(grid.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    (out / "locks").mkdir(exist_ok=True)
    with file_lock(out / "locks" / "benchmark"):  # several processes may open a benchmark at once
        write_text(out / "benchmark.yaml", text)
        write_json(out / "origin.json", asdict(origin))


def load_grid(out: Path) -> tuple[Grid, Origin]:
    """What `save_grid` left.

    Raises:
        ConfigError: if it left nothing there.
    """
    file = out / "benchmark.yaml"
    if not file.is_file() or not (out / "origin.json").is_file():
        step = "pass the --out of an existing benchmark"
        raise ConfigError(f"{out} contains no benchmark.", expected="benchmark.yaml", found="none", next_step=step)
    with reading(out / "origin.json"):
        origin = Origin(**read_json(out / "origin.json"))
    return parse(Grid, read_yaml(file), str(file)), origin
