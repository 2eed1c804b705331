"""Run the demo from scratch: three methods, three seeds, and the offline vendor."""

from __future__ import annotations

from common import circumstances, keep, scratch_option
from vl2v.cli.console import for_people
from vl2v.demo.job import demo

SEEDS = 3


def main() -> None:
    """Run the demo in a new folder and save its comparison."""
    done = demo(scratch_option(__doc__), for_people(), seeds=SEEDS)
    keep("demo", {**done.comparison.to_dict(), "circumstances": circumstances(tuple(range(SEEDS)))})


if __name__ == "__main__":
    main()
