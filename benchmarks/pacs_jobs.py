"""Save the finished jobs of a grid, one line of JSON per job, so that tables can be made without the runs."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from common import RESULTS
from vl2v.benchmark.results import JOBS
from vl2v.json_files import read_json, write_json
from vl2v.redaction import public_config
from vl2v.runs.folder import RunFolder


def save_jobs(grid: str, out: Path) -> None:
    """Save the finished jobs of a grid: facts, figures and settings, without local paths."""
    lines = []
    for done in sorted((out / grid / JOBS).glob("*/job.json")):
        run = RunFolder(done.parent)
        settings = public_config(run.config().model_dump(mode="json"))
        parts = {"facts": read_json(done), "evaluation": read_json(run.evaluation_file), "config": settings}
        lines.append(json.dumps({"job": done.parent.name, **parts}))
    saved = RESULTS / f"pacs-{grid}.jsonl"
    saved.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def restore_jobs(grid: str, out: Path) -> None:
    """Restore saved jobs that are not in the folder, without their students and predictions."""
    saved = RESULTS / f"pacs-{grid}.jsonl"
    for line in saved.read_text(encoding="utf-8").splitlines() if saved.is_file() else ():
        record = json.loads(line)
        run = RunFolder(out / grid / JOBS / record["job"])
        if run.path.exists():
            continue
        run.path.mkdir(parents=True)
        run.config_file.write_text(yaml.safe_dump(record["config"]), encoding="utf-8")
        write_json(run.evaluation_file, record["evaluation"])
        write_json(run.path / "job.json", record["facts"])
