"""A method is one file and one line of the registry, and the form of its settings does not change."""

from __future__ import annotations

import ast
import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vl2v
from vl2v.benchmark.protocol import Job, Origin, key_of
from vl2v.benchmark.purchase import purchase_key
from vl2v.config import RunConfig
from vl2v.errors import ConfigError
from vl2v.method.registry import BUILT_IN, METHODS
from vl2v.validation import parse

BASE: dict[str, Any] = {"data": {"root": "x"}, "teacher": {"spec": "file:x"}, "student": {"spec": "timm:x"}}
FIRST = ("adip", "vl2v", "no-align", "feature", "text", "erm", "linear-probe", "lp-ft", "kd", "rise", "miro")
"""Methods whose keys of benchmark jobs must not change."""
OWN: list[dict[str, Any]] = [
    {},
    {"recipe": "ood", "distill": {"minutes": 60.0, "freeze": 0.0, "refit": False}},  # its defaults of earlier versions
    {"rise": {"temperature": 2.5, "anchors": ["a {}", "b {}"]}},
    {"kd": {"teacher_share": 0.7}},
    {"miro": {"weight": 1, "learning_rate_factor": 3}},
    {"vl2v": {"temperature": 3}},
    {"vl2v": {"kl_weight": 0.2}},
    {"rise": {"temperature": 3}},
]
SOURCE = Path(vl2v.__file__).parent
# Defaults that users see, the tables of the paper, and the hints of error messages.
USER_FACING = {
    "recipes.py", "demo/comparison.py", "demo/job.py", "benchmark/report/grid.py", "benchmark/published.py",
    "method/registry.py",
}  # fmt: skip
WORDS = {"vl2v", "text", "feature"}  # names of methods that have another meaning too


def config(**more: Any) -> RunConfig:
    return parse(RunConfig, BASE | more, "the settings")


def test_the_keys_of_benchmark_jobs_are_those_of_earlier_versions() -> None:
    origin = Origin("d", "t", "s")
    keys = {
        f"{name}/{i}": key_of(config(method=name, **files_of_methods), origin)
        for name in FIRST
        for i, files_of_methods in enumerate(OWN)
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()
    assert digest == "0c299f2197224e4434a504ad5809d4a50b3d10c0dc07a464750735f59b043d23", keys


def named(file: Path) -> set[str]:
    """Return the methods that the code of a file names, as a string or an attribute."""
    names, unnamed = set(BUILT_IN) - WORDS, set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and node.value in names:
            unnamed.add(str(node.value))
        if isinstance(node, ast.Attribute) and node.attr in names:
            unnamed.add(node.attr)
    return unnamed


def test_no_code_outside_the_file_of_a_method_names_it() -> None:
    files_of_methods = {
        Path(*target.partition(":")[0].split(".")[1:]).with_suffix(".py").as_posix() for target in BUILT_IN.values()
    }
    files = {file.relative_to(SOURCE).as_posix(): file for file in SOURCE.rglob("*.py")}
    assert files_of_methods <= set(files)
    unnamed = {name: named(file) for name, file in files.items() if name not in files_of_methods | USER_FACING}
    assert {name: methods for name, methods in unnamed.items() if methods} == {}


def test_settings_can_be_pickled() -> None:
    settings = config(method="rise", rise={"temperature": 2})
    again = pickle.loads(pickle.dumps(settings))  # noqa: S301 - our own
    assert again == settings
    assert type(again.method_settings) is METHODS["rise"].settings


def test_every_method_has_its_settings() -> None:
    assert config(method="kd", kd={"temperature": 5}).method_settings.temperature == 5
    assert config(method="adip", kd={"temperature": 5}).settings_of("kd").temperature == 5
    assert not config(method="adip").method_settings.model_dump()
    for name in BUILT_IN:
        assert isinstance(config(method=name).method_settings, METHODS[name].settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"method": "best"},
            r"method: Input should be 'adip', 'vl2v', .*'rise'.* or '[a-z-]+', or .* installed \(found 'best'\)",
        ),
        ({"method": 3}, r"method: Input should be a valid string \(found 3\)"),
        ({"kd": {"heat": 3}}, r"kd\.heat: Extra inputs are not permitted \(found 3\)"),
        ({"kd": {"temperature": "hot"}}, r"kd\.temperature: Input should be a valid number.*\(found 'hot'\)"),
        ({"heat": {"a": 1}}, r"heat: Extra inputs are not permitted \(found \{'a': 1\}\)"),
        ({"heat": 1, "seed": -1}, r"(?s)2 faults.*seed: .*heat: Extra inputs are not permitted \(found 1\)"),
        ({"rise": {"anchors": ["a sketch"]}}, r"rise\.anchors: expected at least two templates.*found \['a sketch'\]"),
    ],
)
def test_a_wrong_method_or_setting_is_reported(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**settings)


def key(**settings: Any) -> str:
    return purchase_key(Job("label", "title", "a", 0, {}, None, config(**settings), "key"))


def test_jobs_with_the_same_queries_are_one_purchase() -> None:
    anchors = {"anchors": ["a {}", "b {}"]}
    assert key(method="kd") == key(method="adip", kd={"temperature": 3}) == key(method="rise")
    assert key(method="kd", rise=anchors) == key(method="kd")
    assert key(method="rise", rise=anchors) != key(method="rise")
    assert key(method="erm") != key(method="kd")


def test_the_help_lists_the_methods_without_torch() -> None:
    code = "import sys, vl2v.cli, vl2v.schema as s; print(*s.BASELINES, {'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*list(BUILT_IN)[2:], "set()"]
