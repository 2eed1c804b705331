"""The options of `vl2v benchmark run` as a grid: lists, seeds, candidate values, rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl2v.cli.common import pair
from vl2v.errors import ConfigError

if TYPE_CHECKING:
    from vl2v.benchmark.protocol import Grid
    from vl2v.progress import Progress

MOST_SEEDS = 1000


def make_grid(
    settings: dict[str, Any], methods: str, variants: Path | None, targets: str, seeds: str, **selection: Any
) -> Grid:
    """Return the grid of the options.

    Args:
        settings: settings of all jobs; see `grid_settings`.
        selection: further fields of `Grid`: ``vary``, ``tune`` and ``crossed``.

    Raises:
        ConfigError: if a value is not valid.
        DataError: if the folder of the data cannot be used.
    """
    from vl2v.benchmark.protocol import Grid, make_variants
    from vl2v.config import DataConfig
    from vl2v.planning.prepare import list_folder
    from vl2v.validation import parse

    names = tuple(distinct(methods, "--methods"))
    domains = list_folder(parse(DataConfig, settings.get("data"), "the settings")).domains
    values = selection | {
        "settings": settings,
        "variants": {name: v.model_dump() for name, v in make_variants(names, _variants(variants)).items()},
        "domains": domains,
        "targets": domains if targets == "all" else distinct(targets, "--targets"),
        "seeds": _seeds(seeds),
    }
    return parse(Grid, values, "the benchmark's settings")


def _variants(file: Path | None) -> dict[str, Any]:
    from vl2v.benchmark.protocol import Variant
    from vl2v.data.folder import read_mapping
    from vl2v.validation import parse

    content = read_mapping(file) if file else {}
    return {
        label: parse(Variant, {"title": label, **(value or {})}, f"{file}, {label}") for label, value in content.items()
    }


def grid_settings(config: Path | None, settings: dict[str, Any], data: str | None) -> dict[str, Any]:
    """Return the settings of all jobs: those of the file ``--config``, replaced by those of the options."""
    from vl2v.config import merge
    from vl2v.data.folder import read_mapping

    merged = merge(merge(read_mapping(config) if config else {}, settings), {"data": {"root": data}})
    for part, flag in (("data", "--data"), ("teacher", "--teacher"), ("student", "--student")):
        if not {"root", "spec"} & set(merged.get(part) or {}):
            step = "vl2v benchmark run --help"
            raise ConfigError(
                f"{flag} is missing.", expected=f"{flag}, or {part} in --config", found="neither", next_step=step
            )
    return merged


def named_data(data: str, root: Path | None, progress: Progress) -> str:
    """Return ``--data`` as for `vl2v distill`, a benchmark's name as its folder; warnings go to `progress`."""
    import warnings

    from vl2v.data.tables.base import is_table
    from vl2v.datasets.registry import BenchmarkWarning, resolve
    from vl2v.progress import warn
    from vl2v.sources.registry import find_source

    if find_source(data) is not None or is_table(Path(data)):
        return data
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always", BenchmarkWarning)
        folder = resolve(data, root)
    for warning in raised:
        warn(progress, str(warning.message))
    return str(folder)


def candidates(items: Sequence[str]) -> dict[str, Any]:
    """Parse the values of ``--vary``, KEY=V1,V2, as YAML."""
    import yaml

    from vl2v.yaml_keys import Settings

    pairs = (pair(item, "--vary") for item in items)
    try:
        return {key: tuple(yaml.load(f"[{text}]", Settings)) for key, text in pairs}
    except yaml.YAMLError as error:
        expected, found = "KEY=VALUE,VALUE,...", ", ".join(items)[:80]
        step = "e.g. --vary distill.steps=500,1000; quote a value that has special characters"
        raise ConfigError("--vary is not valid.", expected=expected, found=found, next_step=step) from error


def _seeds(text: str) -> tuple[int, ...]:
    try:
        numbers = [int(part) for part in distinct(text, "--seeds")]
    except ValueError:
        numbers = []
    count = numbers[0] if numbers and "," not in text else len(numbers)
    if not 1 <= count <= MOST_SEEDS or not all(0 <= number < 2**31 for number in numbers):
        expected, step = f"a number from 1 to {MOST_SEEDS:,}, or a list such as 0,1,2", "correct --seeds"
        raise ConfigError("--seeds is not valid.", expected=expected, found=text[:80], next_step=step)
    return tuple(numbers) if "," in text else tuple(range(count))


def job_count(text: str) -> int | None:
    """Parse ``--jobs``; None for auto."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        expected = "auto, or a number of at least 1"
        raise ConfigError("--jobs is not valid.", expected=expected, found=text[:40], next_step="correct --jobs")
    return int(text)


def distinct(text: str, flag: str) -> list[str]:
    """Split a list at commas; raise `ConfigError` if it is empty or an item is repeated."""
    found = split_list(text)
    if not found or len(set(found)) != len(found):
        expected = "one or more names or numbers, separated by commas, each once"
        raise ConfigError(f"{flag} is not valid.", expected=expected, found=text[:80], next_step=f"correct {flag}")
    return found


def split_list(text: str) -> list[str]:
    """Split a list at commas; empty items are dropped."""
    return [part.strip() for part in text.split(",") if part.strip()]
