"""A run is published to a local hub over HTTP with the client of the hub, and downloaded again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import constants
from local_hub import TOKEN, LocalHub, Repository, serving
from tiny_dataset import Bench, environment
from typer.testing import CliRunner, Result

import vl2v as package
from once import Once
from vl2v.cli import app
from vl2v.errors import HubError
from vl2v.hub.package import make_package
from vl2v.hub.push import push
from vl2v.locations import StoragePaths
from vl2v.onnx_export.onnx import get_metadata, set_metadata
from vl2v.redaction import private_strings, public_config, public_teacher

for needed in ("fastapi", "onnx", "onnxscript", "onnxruntime", "tensorboard"):
    pytest.importorskip(needed)
pytestmark = pytest.mark.slow


def publishable(bench: Bench, out: Path) -> None:
    storage = StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite")
    settings: dict[str, Any] = {
        "tracking": ["tensorboard"],
        "student": {"size": 32},
        "align": {"steps": 20},
        "device": "cpu",
    }
    settings |= {"distill": {"steps": 4, "checkpoint_every": 2}, "batch_per_domain": 4, "workers": 0}
    wanted: dict[str, Any] = {"held_out": ["rose"], "storage": storage, "settings": settings, "report": False}
    package.distill(bench.data, bench.teacher, bench.student, out=out, **wanted)
    package.export(out, storage=storage)
    (out / "notes.txt").write_text("private")
    (out / "student" / "photo.png").write_bytes(b"private")


@pytest.fixture(scope="session")
def run(bench: Bench, once: Once) -> Path:
    """A finished run with an exported file, and further files that must not be published."""
    return once("published", lambda folder: publishable(bench, folder / "run")) / "run"


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with serving() as running:
        yield running


class Command:
    """Run a command in this process with changed constants of the hub client, which reads its environment on import."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        self._patch = monkeypatch
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the hub of the tests only supports LFS
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "cache"))

    def __call__(self, hub: LocalHub | None, *arguments: str, token: str = TOKEN) -> Result:
        self._patch.setattr(constants, "ENDPOINT", hub.url if hub else "http://127.0.0.1:9")
        self._patch.setenv("HF_TOKEN", token)
        return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    return Command(monkeypatch, tmp_path)


def head_of(card: bytes) -> dict[str, Any]:
    package: dict[str, Any] = yaml.safe_load(card.decode().split("---\n")[1])
    return package


FILES = {
    "README.md", "config.yaml", "evaluation.json", "export/export.json", "export/model.onnx",
    "student/model.safetensors", "student/student.json",
}  # fmt: skip


def test_a_run_is_published_and_downloaded_again(
    bench: Bench, run: Path, hub: LocalHub, command: Command, tmp_path: Path
) -> None:
    done = command(hub, "push", str(run), "me/stripes", "--licence", "apache-2.0", "--json")
    assert done.exit_code == 0, done.stderr
    metadata = hub.repositories["me/stripes"]
    content = metadata.branches["main"]
    assert content.keys() == FILES | {".gitattributes"} | ({"student/trust.json"} & content.keys())
    assert {"student/model.safetensors", "export/model.onnx"} <= metadata.lfs
    assert metadata.commits == 1, "a push is atomic"
    assert not metadata.private
    assert json.loads(done.stdout)["url"].startswith(f"{hub.url}/me/stripes/commit/")
    assert TOKEN not in done.stdout + done.stderr
    head = head_of(content["README.md"])
    assert head["license"] == "apache-2.0"
    assert (head["pipeline_tag"], head["library_name"]) == ("image-classification", "vl2v")
    figures = {r["dataset"]["config"]: r["metrics"][0]["value"] for r in head["model-index"][0]["results"]}
    table = json.loads((run / "evaluation.json").read_text())["domains"]
    assert figures == {row["domain"]: round(row["student"], 4) for row in table}

    image = bench.data / "rose" / "bar" / "0.png"
    clean_environment = {key: value for key, value in environment().items() if not key.startswith("HF_")}
    clean_environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
    words = [sys.executable, "-m", "vl2v", "predict", "hf:me/stripes", str(image), "--format", "json"]
    again = subprocess.run(words, capture_output=True, text=True, env=clean_environment, timeout=200, check=False)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)[0]["label"] == package.load(run).predict(image)[0]


def test_a_second_push_replaces_the_first(run: Path, hub: LocalHub, command: Command) -> None:
    old = {"export/old.onnx": b"old", "student/student.json": b"old", "LICENSE": b"old"}
    hub.repositories["me/again"] = Repository(False, {"main": old})
    done = command(hub, "push", str(run), "me/again")
    assert done.exit_code == 0, done.stderr
    content = hub.repositories["me/again"].branches["main"]
    assert "export/old.onnx" not in content, "a file of an earlier student would not fit the new one"
    assert content["student/student.json"] != b"old"
    assert content["LICENSE"] == b"old", "files of others are preserved"


def test_a_run_is_pushed_to_a_private_repository_and_a_branch(run: Path, hub: LocalHub, command: Command) -> None:
    done = command(hub, "push", str(run), "me/hidden", "--private", "--revision", "trial")
    assert done.exit_code == 0, done.stderr
    repository = hub.repositories["me/hidden"]
    assert repository.private
    assert repository.branches["trial"].keys() >= FILES
    assert repository.branches["main"].keys() == {".gitattributes"}
    repository.private = False
    refused = command(hub, "push", str(run), "me/hidden", "--private")
    assert refused.exit_code == HubError.exit_code
    assert "me/hidden is public" in refused.stderr


@pytest.mark.parametrize(
    ("name", "more", "token", "says"),
    [
        ("stripes", [], TOKEN, "user/name"),
        ("me/a--b", [], TOKEN, "user/name"),
        ("me/stripes", [], "", "export HF_TOKEN"),
        ("me/stripes", [], "hf_wrong", "rejected the token"),
        ("them/stripes", [], TOKEN, "no permission for them/stripes"),
        ("me/stripes", ["--licence", "mine"], TOKEN, "correct --licence"),
        ("me/taken", [], TOKEN, "does not contain a student of vl2v"),
    ],
)
def test_wrong_arguments_are_refused(
    run: Path, hub: LocalHub, command: Command, name: str, more: list[str], token: str, says: str
) -> None:
    hub.repositories["me/taken"] = Repository(False, {"main": {"pytorch_model.bin": b"weights"}})
    done = command(hub, "push", str(run), name, *more, token=token)
    assert done.exit_code == HubError.exit_code, done.stderr
    assert says in done.stderr
    assert "next: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not any("/commit/" in request for request in hub.requests)
    assert not token or token not in done.stderr


def test_a_missing_network_is_reported(run: Path, command: Command) -> None:
    done = command(None, "push", str(run), "me/stripes")
    assert done.exit_code == HubError.exit_code
    assert "The hub cannot be reached." in done.stderr
    gone = command(None, "predict", "hf:me/stripes", str(run / "student"))
    assert gone.exit_code != 0
    assert "Traceback" not in gone.stderr


def test_a_dry_run_sends_nothing_and_writes_what_would_be_sent(
    bench: Bench, run: Path, hub: LocalHub, command: Command, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(run, tmp_path / "run"))
    done = command(hub, "push", str(run), "me/stripes", "--dry-run", token="")
    assert done.exit_code == 0, done.stderr
    assert not hub.requests
    written = {p.relative_to(run / "hub").as_posix(): p for p in (run / "hub").rglob("*") if p.is_file()}
    assert written.keys() - {"student/trust.json"} == FILES
    for name, path in written.items():
        assert f"{path.stat().st_size:,} bytes" in next(line for line in done.stdout.splitlines() if name in line)
    image = next(bench.data.rglob("*.png"))
    assert np.array_equal(package.load(run / "hub").predict_proba(image), package.load(run).predict_proba(image))
    assert command(hub, "push", str(run), "me/stripes", "--dry-run").exit_code == 0, "it may be repeated"
    dry_run = command(hub, "push", str(run), "me/stripes", "--dry-run", "--out", str(run))
    assert "is not empty" in dry_run.stderr


def written_in(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_refused_dry_run_deletes_nothing(run: Path, command: Command, tmp_path: Path) -> None:
    run = Path(shutil.copytree(run, tmp_path / "run"))
    assert command(None, "push", str(run), "me/stripes", "--dry-run").exit_code == 0
    before = written_in(run / "hub")
    for words in (["stripes"], ["me/stripes", "--licence", "a b"], ["me/stripes", "--revision", "-"]):
        assert command(None, "push", str(run), *words, "--dry-run").exit_code == HubError.exit_code
        assert written_in(run / "hub") == before
    card = run / "student" / "student.json"
    card.rename(tmp_path / "student.json")
    assert "unfinished" in command(None, "push", str(run), "me/stripes", "--dry-run").stderr
    assert written_in(run / "hub") == before
    (tmp_path / "student.json").rename(card)
    (run / "hub" / "export" / "notes.txt").write_text("mine")
    assert "found: export/notes.txt" in command(None, "push", str(run), "me/stripes", "--dry-run").stderr
    assert written_in(run / "hub") == before | {"export/notes.txt": b"mine"}
    for name in before:
        (run / "hub" / name).unlink()
    assert "found: export/notes.txt" in command(None, "push", str(run), "me/stripes", "--dry-run").stderr
    (run / "hub" / "export" / "notes.txt").unlink()
    assert command(None, "push", str(run), "me/stripes", "--dry-run").exit_code == 0, "empty folders are replaced"
    assert written_in(run / "hub").keys() == before.keys()
    refused = command(None, "push", str(run), "me/stripes", "--out", str(tmp_path / "out"))
    assert "add --dry-run" in refused.stderr, "nothing was sent, as the user may have expected"


def test_only_exported_files_of_the_run_are_published(run: Path, command: Command, tmp_path: Path) -> None:
    import onnx

    run = Path(shutil.copytree(run, tmp_path / "run"))
    own, folder = run / "export" / "model.onnx", run / "export"
    (folder / "a-broken.onnx").write_bytes(b"text")
    model = onnx.load(str(own))
    metadata = get_metadata(model, "")
    onnx.save(model, str(folder / "mine.onnx"))  # the run's own under another name
    set_metadata(model, replace(metadata, provenance={**metadata.provenance, "origin": "0" * 32}))
    onnx.save(model, str(folder / "of-another-run.onnx"))
    set_metadata(model, replace(metadata, provenance={}))
    onnx.save(model, str(folder / "old.onnx"))
    del model.metadata_props[:]
    onnx.save(model, str(folder / "foreign.onnx"))
    done = command(None, "push", str(run), "me/stripes", "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert {name for name in written_in(run / "hub") if "onnx" in name} == {"export/model.onnx", "export/mine.onnx"}
    warned = "".join(done.stderr.split())  # lines are broken
    for name in ("a-broken", "of-another-run", "old", "foreign"):
        assert f"{name}.onnxisleftout" in warned
    for name, says in (("foreign", "was not exported by vl2v"), ("of-another-run", "belongs to another student")):
        shutil.copy(folder / f"{name}.onnx", own)
        refused = command(None, "push", str(run), "me/stripes", "--dry-run")
        assert refused.exit_code != 0
        assert says in " ".join(refused.stderr.split())


def test_nothing_of_the_machine_is_published(bench: Bench, run: Path) -> None:
    metadata = make_package(run, "me/stripes")
    everything = b"".join(p.read_bytes() if isinstance(p, Path) else p for p in metadata.values())
    data, teacher, student = bench.data, bench.teacher.removeprefix("file:"), bench.student.partition("@")[2]
    for secret in (data, bench.root, run, teacher, student, Path(teacher).name, Path.home(), bench.root.name):
        assert str(secret).encode() not in everything, secret
    assert "root: DATA" in (metadata["config.yaml"] if isinstance(metadata["config.yaml"], bytes) else b"").decode()
    assert b"tensorboard" not in everything


def test_an_exported_file_that_names_the_machine_is_refused(bench: Bench, run: Path, tmp_path: Path) -> None:
    import onnx

    copied = tmp_path / "copied"
    shutil.copytree(run, copied)
    model = onnx.load(str(copied / "export" / "model.onnx"))
    model.graph.node[0].doc_string = f"made from {bench.data}"
    onnx.save(model, str(copied / "export" / "model.onnx"))
    with pytest.raises(HubError, match=r"export/model\.onnx contains private information"):
        make_package(copied, "me/stripes")


def test_published_settings_have_no_private_paths() -> None:
    config = {
        "data": {"root": "/home/me/secret-project", "unlabelled": "/home/me/more"},
        "teacher": {"spec": "https://vision.corp.example:8443/v1#model=clip", "prompts": "/home/me/prompts.txt"},
        "student": {"spec": "timm:resnet50@/home/me/x.safetensors"},
        "repair": {"run": "/home/me/secret-project/first", "images": "/home/me/x.csv", "per_batch": 8},
        "tracking": ["wandb"],
        "seed": 3,
    }
    public = public_config(config)
    assert not any(word in str(public) for word in ("secret-project", "/home", "corp", "wandb", "x.safetensors"))
    assert public["student"]["spec"] == "timm:resnet50@FILE"
    assert config["seed"] == public["seed"] == 3
    assert "/home/me/secret-project/first" in private_strings(config, Path("/runs/x"))
    assert config["repair"]["run"] == "/home/me/secret-project/first"  # type: ignore[index]
    assert "vision.corp.example" in private_strings(config, Path("/runs/x"))
    assert public_teacher("azure:my-endpoint.example") == "azure:PRIVATE"
    assert public_teacher("jina:jina-clip-v2#rpm=60") == "jina:jina-clip-v2"
    assert public_teacher("open_clip:ViT-B-16//home/me/clip.pt") == "open_clip:ViT-B-16/FILE"
    assert public_teacher("open_clip:ViT-B-16/openai") == "open_clip:ViT-B-16/openai"
    assert public_teacher("simulated vendor") == "simulated vendor"


def test_an_unfinished_run_is_not_published(tmp_path: Path, run: Path) -> None:
    shutil.copytree(run, tmp_path / "copied")
    (tmp_path / "copied" / "evaluation.json").unlink()
    with pytest.raises(package.Vl2vError, match="unfinished"):
        push(tmp_path / "copied", "me/stripes", dry_run=tmp_path / "out")
    assert not (tmp_path / "out").exists()
