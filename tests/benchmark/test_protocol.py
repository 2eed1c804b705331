from __future__ import annotations

from typing import Any

import pytest

from vl2v.benchmark.protocol import Grid, Origin, Variant, jobs, make_variants
from vl2v.errors import ConfigError
from vl2v.nested import nested

DOMAINS = ("art", "cartoon", "photo")
ORIGIN = Origin("data", "teacher", "student")
SETTINGS: dict[str, Any] = {
    "data": {"root": "/somewhere/PACS"},
    "teacher": {"spec": "offline:"},
    "student": {"spec": "timm:resnet18"},
}


def grid(**changes: Any) -> Grid:
    values: dict[str, Any] = {
        "settings": SETTINGS,
        "variants": make_variants(("adip", "erm"), {}),
        "domains": DOMAINS,
        "targets": DOMAINS,
        "seeds": (0, 1),
    }
    return Grid(**(values | changes))


def test_every_domain_is_the_target_once_for_every_method_and_seed() -> None:
    grid_jobs = list(jobs(grid(), ORIGIN))
    assert len(grid_jobs) == len({job.name for job in grid_jobs}) == 2 * 3 * 2
    assert all(job.config.data.held_out == (job.target,) and job.config.seed == job.seed for job in grid_jobs)
    assert [job.seed for job in grid_jobs] == [0] * 6 + [1] * 6, (
        "an interrupted grid has complete tables of fewer seeds"
    )


def test_candidates_are_every_combination_of_what_varies() -> None:
    varied = grid(vary={"distill.learning_rate": (1e-4, 1e-3), "image_weight": (0.1, 0.9)}, seeds=(0,))
    rates = {(j.config.distill.learning_rate, j.config.image_weight) for j in jobs(varied, ORIGIN)}
    assert rates == {(1e-4, 0.1), (1e-4, 0.9), (1e-3, 0.1), (1e-3, 0.9)}


def test_two_domains_left_out_together_are_one_job() -> None:
    crossed = [job for job in jobs(grid(crossed=True, seeds=(0,)), ORIGIN) if job.crossed]
    assert len(crossed) == 2 * 3, "three pairs of domains for each of two methods"
    assert all(set(job.config.data.held_out) == {job.target, job.crossed} for job in crossed)


def test_a_source_outside_the_targets_is_also_crossed() -> None:
    crossed = [job for job in jobs(grid(crossed=True, targets=("art",), seeds=(0,)), ORIGIN) if job.crossed]
    assert {job.crossed for job in crossed} == {"cartoon", "photo"}


def keys(settings: dict[str, Any], origin: Origin = ORIGIN) -> list[str]:
    return [job.key for job in jobs(grid(settings=settings), origin)]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("data", {"root": "/elsewhere"}),
        ("student", {"spec": "timm:resnet18@/other/place"}),
        ("workers", 3),
        ("device", "cpu"),
        ("distill", {"steps": 5001}),
    ],
)
def test_paths_and_defaults_do_not_change_a_job(part: str, value: Any) -> None:
    assert keys(SETTINGS | {part: value}) == keys(SETTINGS)


@pytest.mark.parametrize(
    ("part", "value"),
    [("image_weight", 0.4), ("distill", {"steps": 9}), ("data", {"root": "x", "labels_per_class": 3})],
)
def test_settings_change_a_job(part: str, value: Any) -> None:
    assert not set(keys(SETTINGS | {part: value})) & set(keys(SETTINGS))


@pytest.mark.parametrize(
    "other", [Origin("x", "teacher", "student"), Origin("data", "x", "student"), Origin("data", "teacher", "x")]
)
def test_content_changes_a_job(other: Origin) -> None:
    assert not set(keys(SETTINGS, other)) & set(keys(SETTINGS))


def test_a_variant_overrides_the_settings_of_the_grid() -> None:
    variant = Variant(title="image only", settings={"method": "adip", "image_weight": 1.0})
    grid_jobs = list(jobs(grid(variants=make_variants((), {"image-only": variant})), ORIGIN))
    assert {job.config.image_weight for job in grid_jobs} == {1.0}
    assert grid_jobs[0].title == "image only"


def test_the_white_box_is_a_row_with_a_separate_student() -> None:
    settings = SETTINGS | {"teacher": {"spec": "open_clip:ViT-B-32/openai"}}
    grid_jobs = list(jobs(grid(settings=settings, variants=make_variants(("adip", "sd"), {})), ORIGIN))
    assert {job.config.student.spec for job in grid_jobs} == {"timm:resnet18", "teacher"}
    keys = {(job.target, job.seed): set[str]() for job in grid_jobs}
    for job in grid_jobs:
        keys[job.target, job.seed].add(job.key)
    assert all(len(both) == 2 for both in keys.values())


@pytest.mark.parametrize("settings", [{"teacher": {"spec": "offline:"}}, {"data": {"root": "/elsewhere"}}])
def test_a_row_with_a_different_teacher_or_dataset_is_refused(settings: dict[str, Any]) -> None:
    variant = make_variants((), {"mine": Variant(title="mine", settings=settings)})
    with pytest.raises(ConfigError, match=r"mine(.|\n)*same dataset and teacher"):
        list(jobs(grid(variants=variant), ORIGIN))


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Unknown method(.|\n)*adip(.|\n)*magic"):
        make_variants(("magic",), {})


def test_all_faults_of_settings_are_reported() -> None:
    with pytest.raises(ConfigError, match=r"2 faults(.|\n)*steps(.|\n)*image_weight"):
        list(jobs(grid(settings=SETTINGS | {"image_weight": 2, "distill": {"steps": 0}}), ORIGIN))


def test_dotted_keys_are_read() -> None:
    assert nested({"a.b": 1, "a.c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}
