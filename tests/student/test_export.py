from __future__ import annotations

import copy
import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported import CLASSES, DIMENSION, PREPROCESS, Exported, cosine, linear, picture  # noqa: F401 - fixtures
from onnx import numpy_helper
from torch import Tensor, nn

import vl2v_runtime
from vl2v.errors import MissingExtraError, StudentError
from vl2v.onnx_export.onnx import describe, rewrite_classes, rewrite_trust, to_onnx, write
from vl2v.onnx_export.quantise import FIRST, quantise
from vl2v.student.backbones import from_module
from vl2v.student.model import Student
from vl2v_runtime.metadata import Metadata
from vl2v_runtime.network import HEAD

IMAGES = [picture(i) for i in range(12)]


def initializers(file: Path) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in onnx.load(file).graph.initializer}


@pytest.fixture(scope="session")
def int8(cosine: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("int8") / "model.int8.onnx"
    pixels = cosine.student.preprocess.normalise(
        torch.stack([cosine.student.preprocess.pixels(image) for image in IMAGES])
    ).numpy()
    quantise(cosine.file, target, [pixels[:6], pixels[6:]])
    return target


def test_the_head_in_the_file_equals_that_of_the_student(cosine: Exported, int8: Path) -> None:
    assert cosine.student.head is not None
    for file in (cosine.file, int8):
        head = initializers(file)[HEAD]
        assert head.data_type == onnx.TensorProto.FLOAT
        assert np.array_equal(numpy_helper.to_array(head), cosine.student.head.numpy())


def test_the_file_contains_no_path_of_this_machine(cosine: Exported, int8: Path) -> None:
    torch_folder = str(Path(torch.__file__).parent.parent).encode()
    for file in (cosine.file, int8):
        content = file.read_bytes()
        assert torch_folder not in content
        assert b"stack_trace" not in content
        assert b"site-packages" not in content


def test_a_quantised_file_is_smaller_and_nearly_the_same(cosine: Exported, int8: Path) -> None:
    model = vl2v_runtime.load(int8)
    assert int8.stat().st_size < 0.5 * cosine.file.stat().st_size
    assert model.metadata.quantised is not None
    assert model.metadata.quantised["images"] == len(IMAGES)
    assert model.metadata.classes == tuple(CLASSES)
    embedding = model.embed(IMAGES)
    wanted = cosine.student.embed(IMAGES)
    cosines = (embedding * wanted).sum(axis=1)
    assert cosines.min() > 0.95
    assert cosines.max() < 1 - 1e-9, "it is quantised"
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)
    kinds = {node.op_type for node in onnx.load(int8).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    weights = [t for t in initializers(int8).values() if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4]
    assert len(weights) == sum(isinstance(layer, nn.Conv2d) for layer in cosine.student.modules()) - FIRST


def test_the_norm_and_the_head_are_not_quantised(int8: Path) -> None:
    nodes = onnx.load(int8).graph.node
    makers = {output: node for node in nodes for output in node.output}
    classify = next(node for node in nodes if "logits" in node.output)
    divide = makers["embedding"]
    assert list(classify.input) == ["embedding", HEAD]
    assert makers[divide.input[1]].op_type not in ("DequantizeLinear", "QuantizeLinear")


def named(exported: Exported, classes: list[str]) -> Metadata:
    return replace(describe(exported.student, exported.student.provenance), classes=tuple(classes))


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_classes_are_changed_in_the_file(cosine: Exported, int8: Path, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "model.onnx"
    shutil.copy(cosine.file if kind == "float" else int8, file)
    before = vl2v_runtime.load(file)
    heads = np.random.default_rng(1).normal(size=(5, DIMENSION)).astype(np.float32) * 7
    names = ["emu", "zebra", "cat", "Ära", "yak"]
    rewrite_classes(file, named(cosine, names), heads)
    model = vl2v_runtime.load(file)
    assert model.classes == names
    assert model.metadata.provenance == before.metadata.provenance
    assert np.array_equal(model.embed(IMAGES), before.embed(IMAGES)), "the network is the same"
    rows = heads / np.linalg.norm(heads, axis=1, keepdims=True)
    np.testing.assert_allclose(model.logits(IMAGES), 20.0 * before.embed(IMAGES) @ rows.T, atol=1e-4)
    onnx.checker.check_model(file)
    assert not list(tmp_path.glob("*.new"))


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_offsets_are_added_replaced_and_removed_in_the_file(
    cosine: Exported, int8: Path, tmp_path: Path, kind: str
) -> None:
    file, heads = tmp_path / "model.onnx", np.random.default_rng(1).normal(size=(3, DIMENSION)).astype(np.float32)
    shutil.copy(cosine.file if kind == "float" else int8, file)
    card, logits = named(cosine, ["emu", "yak", "cat"]), []
    for offsets in (None, [0.0, 3.0, -1.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]):
        rewrite_classes(file, card, heads, offsets)
        onnx.checker.check_model(file)
        logits.append(vl2v_runtime.load(file).logits(IMAGES))
    np.testing.assert_allclose(logits[1] - logits[0], [[0, 3, -1]] * len(IMAGES), atol=1e-4)
    np.testing.assert_allclose(logits[2] - logits[0], [[0, 0, 2]] * len(IMAGES), atol=1e-4)
    assert np.array_equal(logits[3], logits[0])


@pytest.mark.slow
def test_a_student_with_offsets_is_exported_with_them(cosine: Exported, tmp_path: Path) -> None:
    student = copy.deepcopy(cosine.student)
    student.offsets[1] = 5.0
    write(to_onnx(student), tmp_path / "model.onnx")
    logits = vl2v_runtime.load(tmp_path / "model.onnx").logits(IMAGES)
    np.testing.assert_allclose(logits, student.logits(student.project(IMAGES)), atol=1e-3)


@pytest.mark.parametrize(
    ("names", "shape"), [(["a", "a"], (2, 6)), (["a", "b"], (3, 6)), (["a", "b"], (2, 5)), ([], (0, 6)), (["a"], (6,))]
)
def test_a_head_that_does_not_fit_changes_nothing(
    cosine: Exported, tmp_path: Path, names: list[str], shape: tuple[int, ...]
) -> None:
    file = tmp_path / "model.onnx"
    shutil.copy(cosine.file, file)
    with pytest.raises(StudentError, match="do not match"):
        rewrite_classes(file, named(cosine, names), np.ones(shape, np.float32))
    assert file.read_bytes() == cosine.file.read_bytes()


def test_embeddings_of_norm_zero_and_files_without_a_head_are_refused(
    cosine: Exported, linear: Exported, tmp_path: Path
) -> None:
    for wrong in (0.0, np.nan, np.inf):
        with pytest.raises(StudentError, match="of norm above 0"):
            rewrite_classes(cosine.file, named(cosine, ["a"]), np.full((1, DIMENSION), wrong, np.float32))
    with pytest.raises(StudentError, match="no text head"):
        rewrite_classes(linear.file, named(linear, ["a"]), np.ones((1, DIMENSION)))
    (tmp_path / "broken.onnx").write_bytes(b"\xff\xff\xff")
    for missing in ("broken.onnx", "gone.onnx"):
        with pytest.raises(StudentError, match="cannot be read"):
            rewrite_trust(tmp_path / missing, None)


class Own(nn.Module):
    """A backbone of the user: flattened, with dropout, which must be disabled."""

    def __init__(self, turn: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5), nn.Dropout(0.5))
        self.turn = turn

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return -y if self.turn and float(y.sum()) > 0 else y


def student_of(module: nn.Module) -> Student:
    backbone = from_module(module, PREPROCESS)
    return Student(backbone, nn.Linear(5, DIMENSION), torch.randn(3, DIMENSION), CLASSES, 20.0)


def test_a_module_of_the_user_is_exported(tmp_path: Path) -> None:
    student = student_of(Own()).train()
    write(to_onnx(student), tmp_path / "own.onnx")
    assert student.training, "it is not changed"
    model = vl2v_runtime.load(tmp_path / "own.onnx")
    np.testing.assert_allclose(model.probabilities(IMAGES), student.predict_proba(IMAGES), atol=1e-5)


def test_a_module_that_cannot_be_traced_is_named() -> None:
    with pytest.raises(StudentError, match="Own cannot be exported"):
        to_onnx(student_of(Own(turn=True)))


def test_without_the_extra_the_export_names_it(cosine: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnx" else real(name, *a))
    with pytest.raises(MissingExtraError, match=r"vl2v\[export\]"):
        to_onnx(cosine.student)
    with pytest.raises(MissingExtraError, match=r"vl2v\[export\]"):
        rewrite_trust(cosine.file, None)
