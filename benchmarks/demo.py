"""Run the demo from scratch: three methods, three seeds, and the offline vendor."""

from __future__ import annotations

import argparse
from pathlib import Path

from common import circumstances, keep
from vl2v.cli.console import for_people
from vl2v.demo.job import SEEDS, demo


def main() -> None:
    """Run the demo in a new folder and save its comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, required=True, help="a new folder for drawings, cache and runs")
    a = parser.parse_args()
    done = demo(a.scratch, for_people())
    keep("demo", {**done.comparison.to_dict(), "circumstances": circumstances(SEEDS)})


if __name__ == "__main__":
    main()
