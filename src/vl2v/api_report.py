"""Write the report of a run or benchmark folder."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path

from vl2v.errors import ConfigError
from vl2v.runs.folder import RunFolder
from vl2v.runs.ownership import alone_in
from vl2v.runs.start_checks import ensure_outside
from vl2v.writing import check_folder, ensure_writable


def make_report(folder: Path, store: Path, hour_price: str | None = None, out: Path | None = None) -> Path:
    """Write the report of a run or of a benchmark, and return its path; see `write_run_report`.

    Args:
        folder: folder of the run or of the benchmark.
        store: file of purchased embeddings with the ledger.
        hour_price: cost of an hour of this machine, in the currency of the teacher; None if it is unknown.
        out: folder to write to, created if it is missing; None for `folder`.

    Raises:
        ConfigError: if the price is not a number of at least 0.
        OSError: before any work, if `out` cannot be written.
        RunError: if the folder contains neither, or no finished run or job, or `out` is inside the images of the run.
    """
    price = None if hour_price is None else _price(hour_price)
    if out is not None:
        ensure_writable(RunFolder(out).report_file)
        ensure_outside(out, RunFolder(folder).images())
    if (folder / "benchmark.yaml").is_file():
        from vl2v.benchmark.report.page import write_benchmark_report

        check_folder(out or folder)
        return write_benchmark_report(folder, out)
    from vl2v.reports.run import write_run_report

    with alone_in(folder if out is None else None, "vl2v report"):
        return write_run_report(folder, store, price, out)


def _price(text: str) -> Decimal:
    try:
        price = Decimal(text)
    except InvalidOperation:
        price = Decimal(-1)
    if not price.is_finite() or price < 0:
        expected, step = "an amount of money, 0 or more", "e.g. --hour-price 0.40"
        raise ConfigError("The price of an hour cannot be used.", expected=expected, found=text, next_step=step)
    return price
