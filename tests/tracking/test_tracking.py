"""Real trackers of a real run: TensorBoard, offline W&B and an MLflow database."""

from __future__ import annotations

import builtins
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_dataset import Bench
from typer.testing import CliRunner

import vl2v as package
from once import Once
from recorders import MessageRecorder
from vl2v.benchmark.protocol import Grid, Origin, key_of
from vl2v.benchmark.sweep import Sweep
from vl2v.cli import app
from vl2v.config import RunConfig
from vl2v.errors import Interrupted, MissingExtraError
from vl2v.interrupts import stop_when
from vl2v.locations import StoragePaths
from vl2v.progress import Silent
from vl2v.runs.folder import RunFolder
from vl2v.tracking.run_tracking import Tracking, values_of

for needed in ("tensorboard", "wandb", "mlflow", "alembic"):
    pytest.importorskip(needed)
pytestmark = pytest.mark.slow
ALL = ["tensorboard", "wandb", "mlflow"]
SMALL: dict[str, Any] = {
    "student": {"size": 32},
    "align": {"steps": 9, "learning_rate": 1e-2},
    "distill": {"steps": 12, "checkpoint_every": 4, "learning_rate": 1e-3, "warmup_steps": 6},
    "batch_per_domain": 4,
    "workers": 0,
    "device": "cpu",
}
STEPS = [0, 4, 8, 9, 13, 17, 20]  # 9 of Align, then 12 of Distill


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    for name, value in {"WANDB_MODE": "offline", "WANDB_CONFIG_DIR": home, "WANDB_CACHE_DIR": home}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def distill(
    bench: Bench, out: Path, tracking: list[str], notes: MessageRecorder | None = None, resume: bool = False
) -> Any:
    return package.distill(
        None if resume else bench.data,
        None if resume else bench.teacher,
        None if resume else bench.student,
        out=out,
        held_out=None if resume else ["rose"],
        resume=resume,
        storage=StoragePaths(bench.root / "cache", out.parent / "vectors.sqlite"),
        progress=notes,
        settings=SMALL | {"tracking": tracking},
        report=False,
    )


def stopped_then_resumed(bench: Bench, out: Path, tracking: list[str]) -> Any:
    """A run that was stopped between two validations of Distill and then resumed."""
    polls = iter(range(100))
    with stop_when(lambda: next(polls) == 15), pytest.raises(Interrupted):
        distill(bench, out, tracking)
    return distill(bench, out, tracking, resume=True)


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def texts(run: Path) -> dict[str, str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged_run = EventAccumulator(str(run / "tensorboard"))
    logged_run.Reload()
    tags = logged_run.Tags()["tensors"]
    return {tag: logged_run.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in tags}


def wandb_records(run: Path) -> list[Any]:
    """Return the records of offline files of W&B: the log format of LevelDB after a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    protocol: Any = wandb_internal_pb2

    records = []
    for file in sorted((run / "wandb").glob("offline-run-*/*.wandb"), key=lambda f: f.stat().st_mtime_ns):
        content, offset, record = file.read_bytes(), 7, b""
        while offset + 7 <= len(content):
            if 32768 - offset % 32768 < 7:
                offset += 32768 - offset % 32768
                continue
            length, kind = int.from_bytes(content[offset + 4 : offset + 6], "little"), content[offset + 6]
            record += content[offset + 7 : offset + 7 + length]
            offset += 7 + length
            if kind in (1, 4):  # the whole record, or its last part
                records.append(protocol.Record.FromString(record))
                record = b""
    return records


def wandb_history(run: Path) -> Iterator[dict[str, Any]]:
    for record in wandb_records(run):
        if record.WhichOneof("record_type") == "history":
            yield {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}


def mlflow_run(run: Path) -> tuple[Any, Any]:
    from mlflow.tracking import MlflowClient

    client: Any = MlflowClient(f"sqlite:///{run / 'mlflow.db'}")
    (logged_run,) = client.search_runs([client.get_experiment_by_name("vl2v").experiment_id])
    return client, logged_run


@pytest.fixture(scope="session")
def plain(bench: Bench, once: Once) -> Path:
    """A finished run without tracking."""
    return once("not-tracked", lambda folder: distill(bench, folder / "run", [])) / "run"


def test_three_trackers_log_a_resumed_run_and_do_not_change_it(bench: Bench, plain: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = stopped_then_resumed(bench, run, ALL)
    weights = "student/model.safetensors"
    assert (run / weights).read_bytes() == (plain / weights).read_bytes()
    assert (run / "metrics.jsonl").read_text() == (plain / "metrics.jsonl").read_text()
    assert {"tracking.json", "wandb", "tensorboard"}.isdisjoint(p.name for p in plain.iterdir())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    accuracy = [(step, line["val_accuracy"]) for step, line in zip(STEPS, lines, strict=True)]

    logged_run = scalars(run)
    joined = logged_run["align/val_accuracy"] + logged_run["distill/val_accuracy"]
    assert [step for step, _ in joined] == STEPS
    assert [value for _, value in joined] == pytest.approx([value for _, value in accuracy])
    rates = [value for _, value in logged_run["distill/learning_rate"]]
    assert rates == pytest.approx([1e-3 * min(1, (step + 1) / 7) for step in (0, 4, 8, 11)])
    assert {"distill/val_accuracy/ink", "distill/val_loss/neon", "distill/loss"} <= logged_run.keys()
    assert not any("rose" in tag for tag in logged_run), "the held-out domain stands in the summary only"
    outcome = next(row.student for row in done.evaluation.rows if row.domain == "rose")
    written = texts(run)
    assert f"| final/out-of-domain/rose/accuracy | {outcome} |" in written["summary/text_summary"]

    history = [row for row in wandb_history(run) if "_step" in row]
    assert [row["_step"] for row in history] == STEPS
    assert history[-1]["distill/val_accuracy"] == lines[-1]["val_accuracy"]
    ids = {record.run.run_id for record in wandb_records(run) if record.WhichOneof("record_type") == "run"}
    assert ids == {json.loads((run / "tracking.json").read_text())["wandb"]["run"]}, "the same run continues"

    client, logged = mlflow_run(run)
    history = client.get_metric_history(logged.info.run_id, "align/val_accuracy")
    history += client.get_metric_history(logged.info.run_id, "distill/val_accuracy")
    assert [(point.step, point.value) for point in history] == accuracy
    assert logged.data.metrics["final/out-of-domain/rose/accuracy"] == outcome
    assert logged.data.metrics["asked/image_queries"] == 48
    assert logged.data.tags["asked/currency"] == "USD"
    assert logged.info.status == "FINISHED"

    distill(bench, run, ALL, resume=True)
    assert len(scalars(run)["distill/loss"]) == 4, "a resumed finished run logs nothing again"


def test_nothing_private_is_logged(bench: Bench, tmp_path: Path) -> None:
    run = tmp_path / "run"
    distill(bench, run, ["tensorboard", "mlflow"])
    _, logged = mlflow_run(run)
    logged_text = f"{texts(run)} {logged.data.params}"
    assert "test_resnet" in logged_text
    assert str(bench.root) not in logged_text
    assert logged.data.params["data.root"] == "DATA"


def test_a_kill_before_the_state_is_saved_leaves_no_duplicate_point(bench: Bench, plain: Path, tmp_path: Path) -> None:
    """The state of the trackers is lost, as if the process had died in the middle of a checkpoint."""
    run = tmp_path / "run"
    polls = iter(range(100))
    with stop_when(lambda: next(polls) == 15), pytest.raises(Interrupted):
        distill(bench, run, ["tensorboard", "mlflow"])
    memory = json.loads((run / "tracking.json").read_text())
    for name in memory:
        memory[name]["last"] = 9  # before the last logged step, 13
    (run / "tracking.json").write_text(json.dumps(memory))
    distill(bench, run, ["tensorboard", "mlflow"], resume=True)
    assert [step for step, _ in scalars(run)["distill/loss"]] == STEPS[3:]
    client, logged = mlflow_run(run)
    assert [p.step for p in client.get_metric_history(logged.info.run_id, "distill/loss")] == STEPS[3:]


@pytest.mark.parametrize("method", ["start", "log", "finish"])
def test_a_failing_tracker_is_disabled_with_one_warning(
    bench: Bench, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    from vl2v.tracking.tensorboard import TensorBoardTracker

    def fail(*_: object) -> None:
        raise OSError("no room left for events")

    monkeypatch.setattr(TensorBoardTracker, method, fail)
    notes = MessageRecorder()
    distill(bench, tmp_path / "run", ["tensorboard", "mlflow"], notes)
    warnings = [line for line in notes.lines if "tracker" in line]
    assert len(warnings) == 1
    assert "tensorboard failed and is disabled" in warnings[0]
    assert "no room left for events" in warnings[0]
    weights = "student/model.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (plain / weights).read_bytes()
    assert mlflow_run(tmp_path / "run")[1].info.status == "FINISHED"


def test_wandb_without_a_key_warns_and_does_not_prompt(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("a run asks for input"))
    import wandb

    wandb.teardown()
    notes: list[str] = []
    Tracking(["wandb"], folder_of(bench, tmp_path / "run"), notes.append).close()
    wandb.teardown()
    assert len(notes) == 1
    assert "export WANDB_API_KEY" in notes[0]


def test_an_unreachable_mlflow_server_gives_one_warning(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    notes: list[str] = []
    Tracking(["mlflow"], folder_of(bench, tmp_path / "run"), notes.append).finish({})
    assert len(notes) == 1
    assert "127.0.0.1" in notes[0]


def test_a_missing_extra_is_reported_before_anything_is_spent(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else there(name))
    with pytest.raises(MissingExtraError, match=r'pip install "vl2v\[wandb\]"'):
        distill(bench, tmp_path / "run", ["wandb"])
    assert not (tmp_path / "run").exists()


def test_a_benchmark_reports_a_missing_extra_before_it_opens_a_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    settings = {"data": {"root": "."}, "teacher": {"spec": "file:none"}, "student": {"spec": "timm:x"}}
    grid = Grid(settings=settings | {"tracking": ["mlflow"]}, variants={}, domains=("a",), targets=("a",))
    with pytest.raises(MissingExtraError, match=r'pip install "vl2v\[mlflow\]"'):
        Sweep(grid, tmp_path / "grid", StoragePaths(tmp_path, tmp_path / "v.sqlite")).open(Silent())


def test_an_unknown_tracker_is_refused_with_the_existing_ones(bench: Bench, tmp_path: Path) -> None:
    logged_text = CliRunner().invoke(app, bench.distill(tmp_path / "run", "--track", "mlflow", "--track", "nowhere"))
    assert logged_text.exit_code == 2
    assert "tracking.1: Input should be 'tensorboard', 'wandb' or 'mlflow' (found 'nowhere')" in logged_text.stderr


def test_the_figures_of_a_line_are_logged() -> None:
    line = {
        "losses": [1.0, 3.0], "learning_rate": 0.1, "val_loss": 0.5, "val_accuracy": 0.9, "converged_at": 0,
        "dead_at": None, "threshold": 1.0, "domains": {"ink": {"loss": 0.5, "accuracy": 0.9}},
    }  # fmt: skip
    assert values_of(line) == {
        "loss": 2.0, "learning_rate": 0.1, "val_loss": 0.5, "val_accuracy": 0.9, "swad_start": 0,
        "val_loss/ink": 0.5, "val_accuracy/ink": 0.9,
    }  # fmt: skip


def test_tracking_is_not_part_of_the_key_of_a_benchmark_job() -> None:
    settings: dict[str, Any] = {"data": {"root": "."}, "teacher": {"spec": "offline:"}, "student": {"spec": "timm:x"}}
    origin = Origin("data", "teacher", "student")
    changes: list[dict[str, Any]] = [{}, {"tracking": ["wandb", "mlflow"]}, {"seed": 1}]
    plain, tracked, other = (key_of(RunConfig(**settings | change), origin) for change in changes)
    assert plain == tracked != other


def folder_of(bench: Bench, path: Path) -> RunFolder:
    """A run that has started and has no figures yet."""
    settings: dict[str, Any] = {"data": {"root": bench.data}, "teacher": {"spec": bench.teacher}}
    folder = RunFolder(path)
    folder.create(RunConfig(**settings | {"student": {"spec": bench.student}}))
    folder.metrics_file.touch()
    return folder
