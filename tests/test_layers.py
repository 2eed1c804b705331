"""Packages import downwards only, and without cycles between packages."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import vl2v

SOURCE = Path(vl2v.__file__).parent
FOUNDATION = """
    errors hints strict nested yaml_keys terminal addresses allocator writing locking sqlite arrays tensor_files
    parquet_files tar_files faults progress interrupts threads shards micro_batch plugins options training_time
    locations renamed formatting json_files notebook digests origin
"""
LAYERS = [
    FOUNDATION, "pretrained cluster", "data", "datasets trust sources", "student", "teacher", "method", "recipes",
    "schema validation", "config", "settings redaction", "runs", "planning", "purchase", "evaluation", "training",
    "analysis", "onnx_export", "tracking", "reports", "hub commands", "benchmark",
    "api_report api_quote web", "api", "demo", "serve vendor_server", "cli", "__main__",
]  # fmt: skip
RANK = {package: rank for rank, layer in enumerate(LAYERS) for package in layer.split()}


def modules() -> dict[str, Path]:
    paths = {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in SOURCE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in paths.items() if name != "__init__"}


def imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Names of the modules of vl2v that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vl2v."):
            home = (node.module or "").removeprefix("vl2v.")
            yield from {f"{home}.{item.name}" if f"{home}.{item.name}" in known else home for item in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "vl2v":
            yield from (item.name for item in node.names if item.name in known)
        elif isinstance(node, ast.Import):
            yield from (item.name.removeprefix("vl2v.") for item in node.names if item.name.startswith("vl2v."))


def upward(known: dict[str, Path]) -> list[str]:
    upward = []
    for module, path in sorted(known.items()):
        for other in imported(path, known):
            here, there = module.split(".")[0], other.split(".")[0]
            if here != there and RANK[there] >= RANK[here] and not {here, there} <= set(FOUNDATION.split()):
                upward.append(f"{module} imports {other}")
    return upward


def test_every_package_has_a_layer() -> None:
    assert {module.split(".")[0] for module in modules()} == set(RANK)


def test_no_package_imports_one_of_the_same_or_a_higher_layer() -> None:
    assert upward(modules()) == []


def test_an_upward_import_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("def f():\n    from vl2v.cli import common\n")
    assert upward(modules() | {"data.x": tmp_path / "x.py"}) == ["data.x imports cli.common"]


def test_files_of_tensors_are_opened_by_one_function() -> None:
    """Other functions would block at a named pipe. The weights of `offline:` are part of the package."""
    users = [
        name
        for name, path in modules().items()
        if "safe_open" in (text := path.read_text(encoding="utf-8")) or "load_file" in text
    ]
    assert sorted(users) == ["teacher.offline.teacher", "tensor_files"]
