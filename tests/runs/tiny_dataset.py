from __future__ import annotations

import hashlib
import json
import shutil
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from command_line import Done, environment, run_cli
from once import Once

__all__ = ["Bench", "FinishedRun", "Runs", "bench", "environment", "healthy", "shared_bench", "vl2v"]

CLASSES = ("blank", "bar", "zebra_stripe")
DOMAINS = {"ink": ("white", "black"), "neon": ("black", "lime"), "rose": ("mistyrose", "crimson")}
PRICE = "0.10"
TINY: dict[str, Any] = {
    "student": {"size": 32},
    "align": {"steps": 12},
    "batch": 8,
    "device": "cpu",
    "workers": 0,
    "threads": 1,
}  # settings of a run of seconds, for `vl2v.distill`
FURTHER = ("dot", "grid", "zebra")  # classes without images, whose texts are in the teacher file


def draw(path: Path, kind: str, colours: tuple[str, str], generator: np.random.Generator) -> None:
    """Draw textures, not shapes. A network with random weights learns these within a few steps, with augmentation."""
    image = Image.new("RGB", (48, 48), colours[0])
    pen = ImageDraw.Draw(image)
    for start in {"blank": (), "bar": range(0, 48, 8), "zebra_stripe": range(0, 48, 8)}[kind]:
        low = start + int(generator.integers(3))
        box = (0, low, 47, low + 3) if kind == "bar" else (low, 0, low + 3, 47)
        pen.rectangle(box, fill=colours[1])
    speck = tuple(int(v) for v in generator.integers(0, 256, 3))
    pen.point((int(generator.integers(48)), int(generator.integers(48))), fill=speck)  # so that no two files are equal
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@dataclass
class Bench:
    """A small dataset, a file teacher with its embeddings, and a small real student."""

    root: Path
    data: Path
    teacher: str
    student: str

    @classmethod
    def at(cls, root: Path) -> Bench:
        """Return the bench whose files `make` wrote."""
        student = f"timm:test_resnet@{root / 'student.safetensors'}"
        return cls(root, root / "data", f"file:{root / 'teacher.npz'}", student)

    def copy(self, root: Path) -> Bench:
        """Return a copy that can be changed, with an empty store."""
        root.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.data, root / "data")
        for name in ("teacher.npz", "student.safetensors"):
            shutil.copy(self.root / name, root / name)
        return Bench.at(root)

    def with_separate_storage(self, root: Path) -> Bench:
        """Return the same dataset with a cache and a store in another folder."""
        return replace(self, root=root)

    def flags(self, *more: str) -> list[str]:
        storage_options = ["--cache", str(self.root / "cache"), "--store", str(self.root / "vectors.sqlite")]
        return [*more, *storage_options]

    def distill(self, out: Path, *more: str, held_out: str = "rose") -> list[str]:
        base = ["distill", str(self.data), "--teacher", self.teacher, "--student", self.student, "--out", str(out)]
        small = ["--size", "32", "--batch-per-domain", "4", "--align-steps", "60", "--steps", "24"]
        small += ["--checkpoint-every", "4", "--device", "cpu", "--learning-rate", "1e-3", "--workers", "0"]
        small += [
            "--recipe",
            "paper",
        ]  # the method of the recipe without style augmentation, which so few steps do not learn
        small += ["--no-report"]  # half of the time of a run this small
        return self.flags(*base, "--held-out", held_out, *small, *more)


def make(root: Path) -> None:
    """Draw the images and write the teacher and the student."""
    import timm
    import torch
    from safetensors.torch import save_file

    generator = np.random.default_rng(0)
    paths, embeddings = [], []
    basis = np.linalg.qr(generator.normal(size=(16, 16)))[0]  # all classes have the same distance
    texts = dict(zip(CLASSES, basis, strict=False))
    for domain, colours in DOMAINS.items():
        for kind in CLASSES:
            for i in range(10):
                path = Path(domain, kind, f"{i}.png")
                draw(root / "data" / path, kind, colours, generator)
                paths.append(path.as_posix())
                embeddings.append(texts[kind] + generator.normal(scale=0.1, size=16))
    prompts = ["a photo of a blank", "a photo of a bar", "a photo of a zebra stripe"]
    prompts += [f"a photo of a {name}" for name in FURTHER]
    further = [basis[3], basis[4], texts["zebra_stripe"] + generator.normal(scale=0.1, size=16)]
    np.savez(
        root / "teacher.npz",
        paths=np.array(paths),
        embeddings=np.array(embeddings, np.float32),
        texts=np.array(prompts),
        text_embeddings=np.array([*texts.values(), *further], np.float32),
        logit_scale=20.0,
    )
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), root / "student.safetensors")


def metrics(run: Path) -> list[dict[str, Any]]:
    """Return the lines of `metrics.jsonl` in the folder of a run."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, which tests must not change."""

    folder: Path
    done: Done

    @property
    def student(self) -> Path:
        """The file with its weights."""
        return self.folder / "student" / "model.safetensors"

    @property
    def result(self) -> dict[str, Any]:
        """The output of `--json`."""
        printed: dict[str, Any] = json.loads(self.done.stdout)
        return printed

    def copy(self, to: Path) -> Path:
        """Return a copy that can be changed."""
        return Path(shutil.copytree(self.folder, to))


class Runs:
    """Finished runs of the small dataset, identified by their flags. Each is trained once for all workers."""

    def __init__(self, bench: Bench, once: Once) -> None:
        self._bench, self._once = bench, once

    def get(self, *flags: str) -> FinishedRun:
        """Return the run of `Bench.distill(..., *flags, "--json")`, with a separate store."""
        name = f"run-{hashlib.sha256(json.dumps(flags).encode()).hexdigest()[:12]}"
        folder = self._once(name, lambda folder: self._make(folder, flags))
        return FinishedRun(folder / "run", Done(**json.loads((folder / "done.json").read_text())))

    def _make(self, folder: Path, flags: tuple[str, ...]) -> None:
        options = ["--store", str(folder / "vectors.sqlite"), "--json"]
        done = run_cli(*self._bench.distill(folder / "run"), *options, *flags)
        assert done.returncode == 0, done.stderr
        (folder / "done.json").write_text(json.dumps(vars(done)))


def shared_bench(once: Once) -> Bench:
    """The small dataset, shared by all tests, which must not change it but use `Bench.copy`."""
    return Bench.at(once("tiny-dataset", make))


@pytest.fixture(scope="session")
def bench(once: Once) -> Bench:
    """See `shared_bench`."""
    return shared_bench(once)


@pytest.fixture(scope="session")
def runs(bench: Bench, once: Once) -> Runs:
    """Complete runs of the small dataset."""
    return Runs(bench, once)


vl2v = run_cli


def healthy(port: int | str) -> bool:
    """Return whether a local server reports that it is healthy."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
