from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

CLASSES = ("blank", "bar", "zebra_stripe")
DOMAINS = {"ink": ("white", "black"), "neon": ("black", "lime"), "rose": ("mistyrose", "crimson")}
PRICE = "0.10"
FURTHER = ("dot", "grid", "zebra")  # classes without images, whose texts the teacher knows


def draw(path: Path, kind: str, colours: tuple[str, str], generator: np.random.Generator) -> None:
    """Textures, not shapes: a network of random weights learns these within a few steps, augmented as they are."""
    image = Image.new("RGB", (48, 48), colours[0])
    pen = ImageDraw.Draw(image)
    for start in {"blank": (), "bar": range(0, 48, 8), "zebra_stripe": range(0, 48, 8)}[kind]:
        low = start + int(generator.integers(3))
        box = (0, low, 47, low + 3) if kind == "bar" else (low, 0, low + 3, 47)
        pen.rectangle(box, fill=colours[1])
    speck = tuple(int(v) for v in generator.integers(0, 256, 3))
    pen.point((int(generator.integers(48)), int(generator.integers(48))), fill=speck)  # no two files are alike
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@dataclass
class Bench:
    """A small task, a teacher that knows it, and a small real student."""

    root: Path
    data: Path
    teacher: str
    student: str

    def flags(self, *more: str) -> list[str]:
        places = ["--cache", str(self.root / "cache"), "--store", str(self.root / "vectors.sqlite")]
        return [*more, *places]

    def distill(self, out: Path, *more: str, held_out: str = "rose") -> list[str]:
        base = ["distill", str(self.data), "--teacher", self.teacher, "--student", self.student, "--out", str(out)]
        small = ["--size", "32", "--batch-per-domain", "4", "--align-steps", "60", "--steps", "24"]
        small += ["--checkpoint-every", "4", "--device", "cpu", "--learning-rate", "1e-3", "--workers", "0"]
        return self.flags(*base, "--held-out", held_out, *small, *more)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    root = tmp_path_factory.mktemp("bench")
    generator = np.random.default_rng(0)
    paths, vectors = [], []
    basis = np.linalg.qr(generator.normal(size=(16, 16)))[0]  # no class is nearer to the others than any other
    texts = dict(zip(CLASSES, basis, strict=False))
    for domain, colours in DOMAINS.items():
        for kind in CLASSES:
            for i in range(10):
                path = Path(domain, kind, f"{i}.png")
                draw(root / "data" / path, kind, colours, generator)
                paths.append(path.as_posix())
                vectors.append(texts[kind] + generator.normal(scale=0.1, size=16))
    prompts = ["a photo of a blank", "a photo of a bar", "a photo of a zebra stripe"]
    prompts += [f"a photo of a {name}" for name in FURTHER]
    further = [basis[3], basis[4], texts["zebra_stripe"] + generator.normal(scale=0.1, size=16)]
    np.savez(
        root / "teacher.npz",
        paths=np.array(paths),
        embeddings=np.array(vectors, np.float32),
        texts=np.array(prompts),
        text_embeddings=np.array([*texts.values(), *further], np.float32),
        logit_scale=20.0,
    )
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), root / "student.safetensors")
    student = f"timm:test_resnet@{root / 'student.safetensors'}"
    return Bench(root, root / "data", f"file:{root / 'teacher.npz'}", student)


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "ACCELERATE_USE_CPU": "1"}


def vl2v(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vl2v", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300, check=False)


def healthy(port: int | str) -> bool:
    """Whether a server on this machine says that it is."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
