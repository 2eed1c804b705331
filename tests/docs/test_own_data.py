"""The commands of the pages on own data and tables, on a small dataset."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shlex
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from tiny_dataset import Bench, bench  # noqa: F401 - a fixture

from command_line import run_cli

PAGES = Path(__file__).resolve().parents[2] / "docs" / "how-to"
SMALL = (
    "--size 32 --steps 2 --align-steps 4 --batch-per-domain 4 --checkpoint-every 2 --device cpu --workers 0 --threads 1"
)
CAMERAS = {"ink": "phone", "neon": "web", "rose": "scanner"}


def commands(page: str, section: str) -> list[str]:
    """Return the indented commands of a section of a page, with continued lines joined."""
    text = (PAGES / page).read_text(encoding="utf-8").replace("\\\n", " ")
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    lines = (re.sub(r"\s+", " ", line.strip()) for line in body.splitlines() if line.startswith("    "))
    return [line for line in lines if line.startswith("vl2v ")]


@pytest.fixture(scope="module")
def table_bench(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The dataset with tables of its images, with the column names of the page."""
    copy = bench.copy(tmp_path_factory.mktemp("page"))
    rows = []
    for file in sorted(copy.data.rglob("*.png")):
        domain, name = file.relative_to(copy.data).parts[:2]
        number = int(file.stem)
        fold = "train" if number < 6 else "val" if number < 8 else "test"
        path, clip = file.relative_to(copy.data).as_posix(), f"{domain} {name} {number // 2}"
        rows.append([path, name, CAMERAS[domain], fold, clip])
    for table in ("photos.csv", "next-year.csv"):
        with (copy.data / table).open("w", newline="") as out:
            csv.writer(out).writerows([["path", "species", "camera", "fold", "clip"], *rows])
    other_tools(copy.data, rows)
    return copy


def other_tools(data: Path, rows: list[list[str]]) -> None:
    """Write the same images as the other datasets of the page."""
    (data / "shards").mkdir()
    for i in range(2):
        with tarfile.open(data / "shards" / f"part-{i:03d}.tar", "w") as archive:
            for j, (path, name, camera, *_) in list(enumerate(rows))[i::2]:
                described = json.dumps({"camera": camera}).encode()
                for ending, content in (
                    ("png", (data / path).read_bytes()),
                    ("cls", name.encode()),
                    ("json", described),
                ):
                    entry = tarfile.TarInfo(f"{j:05d}.{ending}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
    tasks = [{"image": path, "camera": camera, "choice": name} for path, name, camera, *_ in rows]
    (data / "project-7.json").write_text(json.dumps(tasks))
    tag = '<tag label="{1}"><attribute name="camera">{2}</attribute></tag>'
    images = "".join(f'<image name="{row[0]}">{tag.format(*row)}</image>' for row in rows)
    (data / "annotations.xml").write_text(f"<annotations>{images}</annotations>")
    image = [{"bytes": (data / row[0]).read_bytes(), "path": row[0]} for row in rows]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"image": pa.array(image, kind), "species": [r[1] for r in rows], "camera": [r[2] for r in rows]}
    parquet.write_table(pa.table(columns), data / "species.parquet")
    teacher_file = dict(np.load(data.parent / "teacher.npz"))
    digests = [hashlib.sha256((data / path).read_bytes()).hexdigest() for path in teacher_file.pop("paths")]
    np.savez(data.parent / "teacher.npz", sha256=np.array(digests), **teacher_file)


SECTIONS = (
    ("tables.md", "A table"),
    ("tables.md", "Datasets of other tools"),
    ("own-data.md", "Use your own split"),
    ("own-data.md", "Keep groups together"),
)


@pytest.mark.parametrize(("page", "section"), SECTIONS)
def test_the_commands_of_a_section_work(
    table_bench: Bench, page: str, section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(table_bench.data)
    section_commands = commands(page, section)
    assert section_commands
    for command in section_commands:
        meant = command.replace("open_clip:ViT-B-16/openai", table_bench.teacher)
        words = shlex.split(meant.replace("hf:user/species", "species.parquet"))[1:]
        words = [str(tmp_path / word) if word.startswith("runs/") else word for word in words]
        words = [table_bench.student if word.startswith("timm:") else word for word in words]
        if words[0] == "distill":
            words += [
                *shlex.split(SMALL),
                "--recipe",
                "paper",
                "--no-report",
                "--store",
                str(table_bench.root / "v.sqlite"),
            ]
        done = run_cli(*words, "--cache", str(table_bench.root / "cache"))
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
