"""Every module that the architecture page names exists, and every package is on the page."""

from __future__ import annotations

import re
from pathlib import Path

import vl2v

SOURCE = Path(vl2v.__file__).parent
PAGE = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"


def test_the_page_names_modules_and_packages_that_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    files = {path.name for path in SOURCE.rglob("*.py")} | {path.name for path in SOURCE.parent.rglob("*.py")}
    tree = text[text.index("    src/vl2v/") : text.index("## One image")]
    assert set(re.findall(r"\b\w+\.py\b", tree)) - files == set()
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert packages - set(re.findall(r"\b(\w+)/", tree)) == set()
    dotted = set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", text[text.index("## One image") :]))
    for name in sorted(dotted):
        parent = SOURCE.joinpath(*name.split(".")[:-1])
        known = SOURCE.joinpath(*name.split(".")).with_suffix(".py").exists() or parent.with_suffix(".py").exists()
        assert known or not (SOURCE / name.split(".")[0]).exists(), f"{name} does not exist"
