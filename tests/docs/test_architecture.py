"""The architecture page names every module, in the package to which it belongs, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import vl2v

SOURCE = Path(vl2v.__file__).parent
PAGE = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"
TEXT = PAGE.read_text(encoding="utf-8")
BY_COMMAND = SOURCE / "cli"  # the page describes these files together
ENTRY = re.compile(r"      (?:  )?(?! )(\S+(?:, \S+)*) {2,}(\S.*)")


def blocks() -> Iterator[tuple[Path, str]]:
    """Return the folder and the text of every entry of the package map; single modules are in `SOURCE`."""
    package, folder, text = SOURCE, SOURCE, ""
    for line in TEXT[TEXT.index("    src/vl2v/\n") : TEXT.index("## One image")].splitlines()[1:]:
        if entry := ENTRY.fullmatch(line):
            yield folder, text
            name, inner, text = entry[1], line.startswith("        "), entry[2]
            folder = (package if inner else SOURCE) / name if name.endswith("/") else SOURCE
            package = package if inner else folder
            text = text if name.endswith("/") else f"{name} {text}"
        else:
            text += f" {line.strip()}"
    yield folder, text


def test_the_package_map_names_all_modules_of_each_package_and_no_others() -> None:
    covered: set[Path] = set()
    for folder, text in blocks():
        parts = [folder, *(folder / name for name in re.findall(r"\b(\w+)/", text) if (folder / name).is_dir())]
        for name in re.findall(r"\b\w+\.py\b", text):
            files = [file.resolve() for part in parts if (file := part / name).is_file()]
            assert files, f"{folder.name}/{name} does not exist"
            covered.update(files)
        for part in parts[1:]:  # such as one file per vendor
            covered.update(file.resolve() for file in part.glob("*.py"))
    every = {file for top in (SOURCE, SOURCE.parent / "vl2v_runtime") for file in top.rglob("*.py")}
    missing = {file for file in every if file.name != "__init__.py" and file.parent != BY_COMMAND} - covered
    assert sorted(file.relative_to(SOURCE.parent).as_posix() for file in missing) == []


def test_the_page_names_packages_and_functions_that_exist() -> None:
    tree = TEXT[TEXT.index("    src/vl2v/\n") : TEXT.index("## One image")]
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert packages - set(re.findall(r"\b(\w+)/", tree)) == set()
    dotted = set(re.findall(r"`([a-z_]+(?:\.[A-Za-z_]+)+)`", TEXT[TEXT.index("## One image") :]))
    for name in sorted(name for name in dotted if not name.endswith((".py", ".yaml", ".json"))):
        parts = name.split(".")
        if (SOURCE / parts[0]).is_dir() or (SOURCE / f"{parts[0]}.py").is_file():
            path, last = SOURCE.joinpath(*parts[:-1]).with_suffix(".py"), parts[-1]
            defined = path.is_file() and re.search(rf"^(?:def|class) {last}\b", path.read_text(), re.MULTILINE)
            assert defined or SOURCE.joinpath(*parts).with_suffix(".py").is_file(), f"{name} does not exist"
