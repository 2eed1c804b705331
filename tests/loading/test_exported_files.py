"""Untrusted exported files: their metadata, and tensors with external data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime  # noqa: F401 - its import reads /etc/os-release
import pytest
from exported_file import changed, make_exported
from made_folder import PICTURE
from mutations import mutations
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from watching import watched

from vl2v.onnx_export.onnx import get_metadata, rewrite_classes
from vl2v_runtime import strict_json
from vl2v_runtime.errors import ModelError
from vl2v_runtime.metadata import KEY, Metadata
from vl2v_runtime.model import Model
from vl2v_runtime.onnx_scan import objection
from vl2v_runtime.session import open_session
from vl2v_runtime.trust import Trust

FEW, MANY = 60, 500


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_exported(tmp_path_factory.mktemp("exported") / "model.onnx")


def described(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(get_metadata(onnx.load(file), "it").to_json())
    return content


def attempt(load: Callable[[], object], what: str, *allowed: Path) -> bool:
    refusal: ModelError | None = None
    with watched(*allowed) as events:
        try:
            load()
        except ModelError as error:
            refusal = error
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    assert events == [], what
    assert refusal is None or all((refusal.problem, refusal.expected, refusal.found, refusal.next_step)), what
    return refusal is None


def fuzz_texts(exported: Path, count: int) -> None:
    """Only read, which is quick."""
    worked = 0
    for what, text in mutations(described(exported), count):
        worked += attempt(lambda text=text: Metadata.from_json(text, "it"), what)  # type: ignore[misc]
    assert 0 < worked < count


def test_a_few_mutations_of_the_metadata_are_read_or_refused(exported: Path) -> None:
    fuzz_texts(exported, FEW)


def fuzz_files(exported: Path, tmp_path: Path, count: int) -> None:
    """Load and use complete files."""
    model, file, worked = onnx.load(exported), tmp_path / "model.onnx", 0

    def use() -> None:
        loaded = Model(file)
        chances = loaded.probabilities([PICTURE])
        assert np.isfinite(chances).all()
        assert np.allclose(chances.sum(axis=1), 1, atol=1e-4)
        loaded.predict([PICTURE], coverage=1)
        if loaded.trust is not None:
            loaded.trust.drift(loaded.embed([PICTURE]))

    for what, text in mutations(described(exported), count):
        del model.metadata_props[:]
        model.metadata_props.add(key=KEY, value=text.encode("utf-8", "replace").decode())
        file.write_bytes(model.SerializeToString())
        worked += attempt(use, what, tmp_path)
    assert 0 < worked < count


def test_a_few_mutations_of_a_file_are_loaded_or_refused(exported: Path, tmp_path: Path) -> None:
    fuzz_files(exported, tmp_path, 25)


@pytest.mark.system
def test_many_mutations_of_a_file_are_loaded_or_refused(exported: Path, tmp_path: Path) -> None:
    fuzz_files(exported, tmp_path, MANY)


def test_many_mutations_of_its_trust_data_are_loaded_or_refused(exported: Path) -> None:
    worked = 0
    for what, text in mutations(described(exported)["trust"], MANY, seed=2):
        try:
            trust = Trust.from_dict(strict_json.parse(text))
        except ValueError:
            continue
        worked += 1
        logits = np.array([[20.0, -20.0, 0.0], [0.0, 0.0, 0.0]])
        assert np.isfinite(trust.probabilities(logits)).all(), what
        trust.accepts(logits, coverage=1)
        if trust.reference is not None:
            drift = trust.drift(np.full((3, trust.reference.centres.shape[1]), 0.5))
            assert drift is not None
            assert np.isfinite((drift.distance, drift.expected, drift.limit)).all(), what
    assert worked


@pytest.mark.parametrize("index", ["weights.bin", "link.bin", "../secret.bin", "{folder}/secret.bin"])
@pytest.mark.parametrize("where", ["initializer", "constant", "subgraph"])
def test_external_data_are_refused_before_opening(exported: Path, tmp_path: Path, index: str, where: str) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(np.ones(4, np.float32).tobytes())
    (folder / "weights.bin").write_bytes(np.ones(4, np.float32).tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    model = onnx.load(exported)
    tensor = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=index.replace("{folder}", str(tmp_path)))
    if where == "initializer":
        model.graph.initializer.append(tensor)
    elif where == "constant":
        model.graph.node.append(helper.make_node("Constant", [], ["far"], value=tensor))
    else:
        inner = helper.make_graph([], "inner", [], [], [tensor])
        model.graph.node.append(helper.make_node("If", ["condition"], ["far"], then_branch=inner, else_branch=inner))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with watched(folder) as events, pytest.raises(ModelError, match="external data"):
        Model(folder / "model.onnx")
    assert events == []


def test_an_exported_file_has_no_external_data(exported: Path) -> None:
    assert objection(exported) == ""


def no_data(dims: list[int], **values: Any) -> TensorProto:
    return TensorProto(name="far", data_type=TensorProto.FLOAT, dims=dims, **values)


def repeated(model: onnx.ModelProto, operator: str = "Loop") -> None:
    """Repeat without end."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, [])],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(2**62), "count"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.insert(0, helper.make_node(operator, ["count", "yes"], [], body=body))


def sparse(model: onnx.ModelProto) -> None:
    values, indices = numpy_helper.from_array(np.ones(1, np.float32), "wide"), numpy_helper.from_array(np.zeros(1, int))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2**40]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.graph.initializer.append(no_data([2**40])), "1,099,511,627,776 values and has 0 bytes"),
        (lambda model: model.graph.initializer.append(no_data([2**31, 2**31], raw_data=b"x" * 99)), "has 99 bytes"),
        (lambda model: model.graph.initializer.append(no_data([-1])), "values and has 0 bytes"),
        (lambda model: model.graph.initializer.append(no_data([3, 2**20], float_data=[1.0])), "has 4 bytes"),
        (sparse, "a sparse tensor"),
        (repeated, r"repeats a graph \(Loop\)"),
        (lambda model: repeated(model, "Scan"), r"repeats a graph \(Scan\)"),
    ],
)
def test_contents_that_no_student_has_are_refused_before_opening(
    exported: Path, tmp_path: Path, change: Callable[[onnx.ModelProto], object], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        Model(changed(exported, tmp_path / "model.onnx", change))


def test_tensors_of_zeros_and_empty_tensors_are_accepted(exported: Path, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(TensorProto(name="z", data_type=TensorProto.INT64, dims=[1], int64_data=[0]))
        model.graph.initializer.append(numpy_helper.from_array(np.zeros((0, 3), np.float32), "nothing"))
        model.graph.initializer.append(numpy_helper.from_array(np.array(1.0), "scalar"))

    Model(changed(exported, tmp_path / "model.onnx", change))


def test_a_file_that_is_too_slow_is_refused(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(model: onnx.ModelProto) -> None:
        wide = np.random.default_rng(0).normal(size=(3, 512)).astype(np.float32) / 100
        square = np.random.default_rng(1).normal(size=(512, 512)).astype(np.float32) / 23
        for name, values in (("wide", wide), ("square", square), ("narrow", wide.T.copy())):
            model.graph.initializer.append(numpy_helper.from_array(values, name))
        names = ["flat", *(f"slow{i}" for i in range(1500))]
        nodes = [
            helper.make_node("MatMul", [a, "wide" if i == 0 else "square"], [b])
            for i, (a, b) in enumerate(pairwise(names))
        ]
        nodes += [helper.make_node("MatMul", [names[-1], "narrow"], ["last"])]
        index = next(i for i, node in enumerate(model.graph.node) if "flat" in node.input)
        model.graph.node[index].input[0] = "last"
        for node in reversed(nodes):
            model.graph.node.insert(index, node)

    file = changed(exported, tmp_path / "model.onnx", change)

    def open_and_hurry(*arguments: Any) -> Any:
        session = open_session(*arguments)
        monkeypatch.setattr("vl2v_runtime.network.PATIENCE", 0.01)
        return session

    monkeypatch.setattr("vl2v_runtime.network.open_session", open_and_hurry)
    with pytest.raises(ModelError, match="too slow") as caught:
        Model(file)
    assert caught.value.expected == "at most 0.01 s to classify one image"


def test_an_image_without_finite_outputs_gets_no_class(exported: Path, tmp_path: Path) -> None:
    def use_a_square_root(model: onnx.ModelProto) -> None:
        """Return NaN for images that are darker than the mean."""
        next(node for node in model.graph.node if node.op_type == "Flatten").input[0] = "root"
        model.graph.node.insert(1, helper.make_node("Sqrt", ["pooled"], ["root"]))

    model = Model(changed(exported, tmp_path / "model.onnx", use_a_square_root))
    size = (32, 32)
    assert model.predict([Image.new("RGB", size, "white")])
    with pytest.raises(ModelError, match="not finite"):
        model.predict([Image.new("RGB", size, "black")])
    with pytest.raises(ModelError, match="not finite"):
        model.embed([Image.new("RGB", size, "black")])


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x0f", b"\x0b\x00", b"text, no model"])
def test_other_files_than_protocol_buffers_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    with pytest.raises(ModelError, match="cannot be used"):
        Model(file)


def test_a_graph_without_a_usable_head_is_not_changed(exported: Path, tmp_path: Path) -> None:
    file, metadata = tmp_path / "model.onnx", get_metadata(onnx.load(exported), "it")
    for spoil in ("dims", "output"):
        model = onnx.load(exported)
        if spoil == "dims":
            next(t for t in model.graph.initializer if t.name == "head").dims.pop()
        else:
            model.graph.output[0].name = "other"
        file.write_bytes(model.SerializeToString())
        with pytest.raises(Exception, match="cannot be changed"):
            rewrite_classes(file, replace(metadata, classes=("a", "b")), np.eye(2, 4))
