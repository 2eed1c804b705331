"""Untrusted run folders: the JSON files, the state, the model card and the published files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from made_folder import PREPROCESS, Small, student_of
from mutations import mutations
from safetensors.torch import save_file
from watching import watched

from vl2v.commands.classes import list_classes
from vl2v.commands.new_classes import known_classes
from vl2v.config import RunConfig
from vl2v.errors import HubError, RunError, StudentError, Vl2vError
from vl2v.hub.package import make_package
from vl2v.json_files import write_json
from vl2v.reports.extra_tables import export_table
from vl2v.reports.source import read_run
from vl2v.runs.folder import RunFolder, State
from vl2v.runs.run_files import read_evaluation, read_export
from vl2v.student.backbones import from_module
from vl2v.student.provenance import check_provenance
from vl2v.training.adam import load_adam
from vl2v.validation import parse
from vl2v_runtime import strict_json

FEW, MANY = 50, 500
MADE: dict[str, Any] = {
    "made_with": {"vl2v": "0.1.0", "torch": "2.14"},
    "made_at": "2026-11-25T00:00:00+00:00",
    "teacher": {"identity": "file:teacher.npz", "revision": "r1", "dimension": 4},
    "prompts": ["a photo of a cat", "a photo of a dog", "a photo of a horse"],
    "templates": ["a photo of a {}"],
    "data": {"digest": "d1", "images": 60, "domains": ["ink", "rose"], "held_out": ["rose"]},
    "seed": 7,
    "weights": "swad",
    "swad": {"converged_at": 5, "dead_at": None, "threshold": 0.8},
    "config": {"data": {"root": "DATA"}, "teacher": {"spec": "file:FILE"}, "student": {"spec": "x"}},
    "classes_changed": [{"at": "2026-11-26", "before": ["cat", "dog"], "added": {"horse": ["a photo of a horse"]}}],
}
ROWS = [
    {"domain": "ink", "role": "in-domain", "images": 40, "student": 0.95, "zero_shot": 0.9, "student_ece": 0.05},
    {"domain": "rose", "role": "out-of-domain", "images": 20, "student": 0.7, "zero_shot": None},
]
MEANS = {"in_domain": {"zero_shot": 0.9, "student": 0.95}, "out_of_domain": {"zero_shot": None, "student": 0.7}}
ASKED = {"image_queries": 60, "text_queries": 3, "cost": "0.90", "currency": "USD", "price_per_1000_images": "0.5"}
EVALUATION = {
    "domains": ROWS,
    "means": MEANS,
    "asked": ASKED,
    "fresh_queries": 0,
    "beside": {"last": {"domains": ROWS, "means": MEANS}},
}
EXPORT = {
    "format": 1,
    "files": {"model.onnx": {"bytes": 10, "images": 5, "logits": 1e-5, "agreement": 1.0, "accuracy": None}},
}
STATE = {"stage": "distill", "step": 4, "digest": "d1", "losses": [0.5], "metrics": 100, "best": 0.5}


def make_run(root: Path, made: dict[str, Any] | None = None) -> Path:
    folder = RunFolder(root / "run")
    values = {
        "data": {"root": "/srv/data"},
        "teacher": {"spec": "file:/srv/teacher.npz"},
        "student": {"spec": "timm:x"},
    }
    folder.create(parse(RunConfig, values, "made"))
    student_of(backbone=from_module(Small(), PREPROCESS), **(MADE if made is None else made)).save(folder.student)
    write_json(folder.evaluation_file, EVALUATION)
    folder.add_metrics(
        {"stage": "align", "step": 0, "losses": [0.5], "val_loss": 0.5, "val_accuracy": 0.5, "domains": {}}
    )
    return folder.path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("untrusted"))


def fuzz(document: Any, use: Callable[[str], object], count: int, *allowed: Path) -> None:
    """Check that every mutation works or raises an error of vl2v."""
    worked = 0
    for what, text in mutations(document, count):
        refusal: Vl2vError | None = None
        with watched(*allowed) as events:
            try:
                use(text)
            except Vl2vError as error:
                refusal = error
            except Exception as error:
                raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
        assert events == [], what
        assert refusal is None or (refusal.problem and len(str(refusal)) < 5000), what
        worked += refusal is None
    assert 0 < worked < count


def writing(path: Path, use: Callable[[], object]) -> Callable[[str], object]:
    def inner(text: str) -> object:
        path.write_text(text)
        return use()

    return inner


def card_of(run: Path) -> str:
    content = make_package(run, "me/pets")["README.md"]
    assert isinstance(content, bytes)
    return content.decode()


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.system)])
def test_a_mutated_evaluation_is_read_or_refused(tmp_path: Path, count: int) -> None:
    path = make_run(tmp_path)
    fuzz(EVALUATION, writing(path / "evaluation.json", lambda: (read_run(path), card_of(path))), count, tmp_path)


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.system)])
def test_a_mutated_export_report_is_read_or_refused(tmp_path: Path, count: int) -> None:
    path = tmp_path / "export.json"
    fuzz(EXPORT, writing(path, lambda: export_table(read_export(path))), count, tmp_path)


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.system)])
def test_mutated_provenance_is_read_or_refused(tmp_path: Path, count: int) -> None:
    path = make_run(tmp_path)
    card = json.loads((path / "student" / "student.json").read_text())

    def use(text: str) -> None:
        (path / "student" / "student.json").write_text(json.dumps(card | {"provenance": "@@"}).replace('"@@"', text))
        read_run(path)
        card_of(path)

    fuzz(MADE, use, count, tmp_path)


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.system)])
def test_mutated_provenance_of_classes_is_read_or_refused(tmp_path: Path, count: int) -> None:
    student = student_of(backbone=from_module(Small(), PREPROCESS), **MADE)

    def use(text: str) -> None:
        try:
            made = strict_json.parse(text)
        except ValueError as error:
            raise StudentError(str(error)) from error
        student.provenance = made if isinstance(made, dict) else {}
        known_classes(student)

    fuzz(MADE, use, count)


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.system)])
def test_a_mutated_state_is_read_or_refused(tmp_path: Path, count: int) -> None:
    folder = RunFolder(tmp_path)

    def use(text: str) -> None:
        save_file({"x": torch.ones(2)}, folder.state_file, {"state": text.encode("utf-8", "replace").decode()})
        state = folder.load_state()
        assert state is not None
        assert state.values["step"] >= 0

    fuzz(STATE, use, count, tmp_path)


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.system)])
def test_a_mutated_config_is_read_or_refused(tmp_path: Path, count: int) -> None:
    """YAML includes JSON."""
    path = make_run(tmp_path)
    config = RunFolder(path).config().model_dump(mode="json")
    fuzz(config, writing(path / "config.yaml", lambda: RunFolder(path).config()), count, tmp_path)


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.system)])
def test_a_mutated_line_of_metrics_is_read_or_refused(tmp_path: Path, count: int) -> None:
    """The report omits its curves and states the reason."""
    path = make_run(tmp_path)
    line = json.loads((path / "metrics.jsonl").read_text())
    missing = 0
    for what, text in mutations(line, count):
        (path / "metrics.jsonl").write_text(text.replace("\n", " ") + "\n")
        source = read_run(path)
        missing += "metrics" in source.missing
        assert all(set(line) >= {"stage", "losses"} for line in source.metrics), what
    assert 0 < missing < count


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    moments = {"adam/0/exp_avg": torch.ones(5), "adam/0/exp_avg_sq": torch.ones(5), "adam/0/step": torch.ones(())}
    with pytest.raises(RunError, match="does not fit this run"), RunFolder(tmp_path).state_fits():
        load_adam(optimizer, State(moments, {}))


EVIL = [
    "<img src=x onerror=alert(1)>",
    "</code><script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![](http://attacker.invalid/pixel.png)",
    "`` ` `` <b>",
    "a\n\n# Heading\n\n```\ncode",
    "https://attacker.invalid",
    "www.attacker.invalid",
    "a | b",
    "\x1b[31mred",
    "@someone",
]


@pytest.mark.parametrize("evil", EVIL)
def test_no_name_becomes_markup_in_a_model_card(tmp_path: Path, evil: str) -> None:
    made = json.loads(json.dumps(MADE))
    made["teacher"] |= {"identity": f"odd {evil}", "revision": evil}
    made |= {"prompts": [f"a photo of a {evil}"], "made_with": {evil: evil}, "made_at": evil, "weights": evil}
    made["data"] |= {"digest": evil, "domains": [evil, "rose"], "held_out": [evil]}
    path = make_run(tmp_path, made)
    evaluation = json.loads(json.dumps(EVALUATION))
    for row in evaluation["domains"]:
        row["domain"] = evil
    evaluation["asked"]["currency"] = evil
    evaluation["means"][evil] = MEANS["in_domain"]
    write_json(path / "evaluation.json", evaluation)
    card = card_of(path).partition("\n---\n")[2]
    lines = [line for line in card.splitlines() if not line.startswith("```")]
    outside = "\n".join(lines)
    prose = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", outside)
    for sign in ("<img", "<script", "<b>", "](", "![", "\n# Heading", "www.", "\x1b", "@s", "://attacker"):
        assert sign not in prose, sign
    table = [line for line in card.splitlines() if line.startswith("| ") and "domain" in line]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


def test_a_link_out_of_the_run_is_not_published(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    assert "student/model.safetensors" in make_package(path, "me/pets")
    secret = tmp_path / "id_rsa"
    secret.write_text("private key")
    (path / "export").mkdir()
    (path / "export" / "model.onnx").symlink_to(secret)
    with pytest.raises(HubError, match=r"model.onnx cannot be published"):
        make_package(path, "me/pets")
    (path / "export" / "model.onnx").unlink()
    (path / "export" / "model.onnx").write_text("private key, copied")
    with pytest.raises(StudentError, match=r"model.onnx cannot be read"):
        make_package(path, "me/pets")
    (path / "export" / "model.onnx").unlink()
    weights = path / "student" / "model.safetensors"
    moved = weights.rename(tmp_path / "elsewhere.safetensors")
    weights.symlink_to(moved)
    with pytest.raises(HubError, match=r"model.safetensors cannot be published"):
        make_package(path, "me/pets")
    weights.unlink()
    weights.symlink_to(secret)
    with pytest.raises(StudentError, match="cannot be used"):
        make_package(path, "me/pets")


def test_values_of_a_report_are_type_checked(run: Path, tmp_path: Path) -> None:
    assert read_evaluation(run / "evaluation.json") == EVALUATION
    for key, value in (("domains", {}), ("means", []), ("asked", {"cost": "1e999"}), ("domains", [{"domain": 1}])):
        (tmp_path / "evaluation.json").write_text(json.dumps(EVALUATION | {key: value}))
        with pytest.raises(RunError, match="cannot be used"):
            read_evaluation(tmp_path / "evaluation.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "x"),
        ("prompts", "a photo"),
        ("teacher", {"identity": 3}),
        ("classes_changed", [{"at": "x", "before": []}]),
        ("data", "pets"),
        ("config", []),
    ],
)
def test_provenance_of_another_form_is_refused_if_it_is_needed(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(StudentError, match="provenance"):
        check_provenance(MADE | {key: value}, "it")
    path = student_of(**(MADE | {key: value})).save(tmp_path / "student")
    with pytest.raises(StudentError, match="provenance"):
        list_classes(path)
