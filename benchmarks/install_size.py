"""What `pip install vl2v` installs without extras: megabytes of each package, and what brings it along.

    python benchmarks/install_size.py                    # sizes, from the environment that runs the script
    python benchmarks/install_size.py --scratch NEW      # the same of a fresh environment, and the seconds of pip

A size is the sum of the files that a package lists as its own. Compiled bytecode, which pip writes, is not included.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
USES = {  # requirements by the feature that needs them
    "training, prediction": ("torch", "torchvision", "timm", "accelerate"),
    "figures of reports": ("matplotlib",),
    "models of the hub": ("huggingface-hub", "timm", "accelerate"),
    "vendors over HTTP": ("httpx",),
}
LARGEST = 12  # packages that are named


def main() -> None:
    """Measure, print, and write `benchmarks/results/install_size.json`."""
    parser = argparse.ArgumentParser(description="Sizes of the packages that vl2v needs without extras.")
    parser.add_argument("--scratch", type=Path, help="new folder for a fresh environment, which is deleted at the end")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    figures = measure() if a.inner or a.scratch is None else fresh(a.scratch)
    if a.inner:
        print(json.dumps(figures))
        return
    from common import keep  # whose packages a fresh environment may lack

    keep("install_size", figures)


def fresh(folder: Path) -> dict[str, Any]:
    """Install the checkout into a new environment and measure there."""
    folder.mkdir(parents=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        python = str(folder / "venv" / "bin" / "python")
        start = time.perf_counter()
        subprocess.run([python, "-m", "pip", "install", "--quiet", str(ROOT)], check=True)
        seconds = time.perf_counter() - start
        subprocess.run([python, "-m", "pip", "install", "--quiet", "packaging"], check=True)
        command = [python, __file__, "--inner"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures | {"pip_s": seconds}
    finally:
        shutil.rmtree(folder)


def measure() -> dict[str, Any]:
    """Megabytes of all packages, of the largest, and of those that only one use needs."""
    needed = closure("vl2v")
    sizes = {name: size_of(name) for name in needed}
    only = {use: needed - closure("vl2v", without=packages) for use, packages in USES.items()}
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:LARGEST]
    return {
        "packages": len(needed),
        "total_mb": in_mb(sizes),
        "needed_only_for_mb": {use: in_mb({name: sizes[name] for name in names}) for use, names in only.items()},
        "largest_mb": {name: round(size / 1e6, 1) for name, size in largest},
        "python": sys.version.split()[0],
        "platform": sys.platform,
    }


def closure(name: str, without: Collection[str] = ()) -> set[str]:
    """A package and all that it needs on this machine, as normalised names; extras only where a package asks for them.

    Packages that are not installed, and those of `without`, are left out.
    """
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [(name, frozenset[str]())]
    while todo:
        package, extras = todo.pop()
        key = (re.sub(r"[-_.]+", "-", package).lower(), extras)
        if key in seen or key[0] in without:
            continue
        try:
            lines = distribution(package).requires or ()
        except PackageNotFoundError:
            continue
        seen.add(key)
        for needed in map(Requirement, lines):
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras or {""}):
                todo.append((needed.name, frozenset(needed.extras)))
    return {package for package, _ in seen}


def size_of(package: str) -> int:
    """Bytes of a package's files, as its record states them."""
    return sum(file.size or 0 for file in distribution(package).files or ())


def in_mb(sizes: Mapping[str, int]) -> float:
    """The sum in megabytes."""
    return round(sum(sizes.values()) / 1e6, 1)


if __name__ == "__main__":
    main()
