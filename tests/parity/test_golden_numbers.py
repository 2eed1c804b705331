"""Numbers of the published implementation, with their stated tolerances."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vl2v.data.folder import DomainFolder
from vl2v.data.splits import domainbed_holdout, seed_hash
from vl2v.method.align import align
from vl2v.method.distill import distill
from vl2v.method.evaluation import mean_over_domains, score
from vl2v.method.loop import Batch
from vl2v.method.loss import dual_loss
from vl2v.method.swad import LossValley
from vl2v.student.model import cosine_logits
from vl2v.student.preprocess import Preprocess
from vl2v.teacher.prompts import text_head
from vl2v_runtime.imaging import decode, square

Golden = tuple[Any, Any]
PRECISIONS = [("f32", torch.float32), ("f64", torch.float64)]


def golden(shared: Path, name: str) -> Golden:
    folder = shared / "parity"
    if not (folder / f"{name}.json").is_file():
        pytest.skip(f"no golden numbers of {name}")
    arrays = np.load(folder / f"{name}.npz") if (folder / f"{name}.npz").is_file() else None
    return json.loads((folder / f"{name}.json").read_text()), arrays


def tensor(arrays: Any, key: str, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(arrays[key]).to(dtype)


@pytest.mark.parametrize(("suffix", "dtype"), PRECISIONS)
def test_the_dual_loss_and_its_gradient_equal_the_published_ones(shared: Path, suffix: str, dtype: torch.dtype) -> None:
    meta, z = golden(shared, "dual_loss")
    for case in meta["cases"]:
        i = case["id"]
        for j, weight in enumerate(meta["lambdas"]):
            projected = tensor(z, f"{i}_proj", dtype).requires_grad_()
            loss = dual_loss(projected, tensor(z, f"{i}_img", dtype), tensor(z, f"{i}_txt", dtype), weight)
            torch.autograd.backward(loss)
            assert projected.grad is not None
            wanted = z[f"{i}_grad_{suffix}"][j]
            error = np.abs(projected.grad.numpy() - wanted).max() / np.abs(wanted).max()
            assert abs(loss.item() - z[f"{i}_loss_{suffix}"][j]) < (1e-12 if suffix == "f64" else 1e-6)
            assert error < (1e-12 if suffix == "f64" else 1e-5)


def test_the_zero_shot_head_equals_the_published_one(shared: Path) -> None:
    meta, z = golden(shared, "zero_shot_head")
    for case in meta["cases"]:
        i, scale = case["id"], case["exp_logit_scale_f32"]
        head = text_head(torch.from_numpy(z[f"{i}_prompt_emb"]))
        weight = z[f"{i}_weight"]
        assert np.abs(head.numpy() * scale - weight).max() < 1e-5 * np.abs(weight).max()
        logits = cosine_logits(torch.from_numpy(z[f"{i}_proj"]), head, scale).numpy()
        assert np.abs(logits - z[f"{i}_logits"]).max() < 1e-5 * scale
        assert (logits.argmax(1) == z[f"{i}_logits"].argmax(1)).all()


def linear(z: Any, i: int, weight: str, bias: str, dtype: torch.dtype) -> nn.Linear:
    w = tensor(z, f"{i}_{weight}", dtype)
    layer = nn.Linear(w.shape[1], w.shape[0], dtype=dtype)
    layer.load_state_dict({"weight": w, "bias": tensor(z, f"{i}_{bias}", dtype)})
    return layer


@pytest.mark.parametrize(("suffix", "dtype"), PRECISIONS)
def test_align_equals_the_published_one(shared: Path, suffix: str, dtype: torch.dtype) -> None:
    meta, z = golden(shared, "align")
    tight = suffix == "f64"
    for case in meta["cases"]:
        i = case["id"]
        projection = linear(z, i, "W0", "b0", dtype)
        text = tensor(z, f"{i}_txt_used", dtype)  # a float32 head in both precisions, times the logit scale
        labels = torch.from_numpy(z[f"{i}_labels"])
        features, images = tensor(z, f"{i}_features", dtype), tensor(z, f"{i}_teacher_img", dtype)
        batches = [Batch(features[s], images[s], text[labels[s]]) for s in range(case["steps"])]
        losses = align(projection, batches, image_weight=case["lambda"], learning_rate=case["lr"])
        assert np.abs(np.array(losses) - z[f"{i}_loss_{suffix}"]).max() < (1e-10 if tight else 1e-6)
        assert np.abs(projection.weight.detach().numpy() - z[f"{i}_W6_{suffix}"]).max() < (1e-10 if tight else 2e-6)
        assert np.abs(projection.bias.detach().numpy() - z[f"{i}_b6_{suffix}"]).max() < (1e-10 if tight else 2e-6)
        projected = projection(tensor(z, f"{i}_eval_features", dtype))
        scale = float(np.linalg.norm(z[f"{i}_txt_used"], axis=1).mean())
        logits = cosine_logits(projected, text, scale).detach().numpy()
        assert np.abs(logits - z[f"{i}_eval_logits_f32"]).max() < 1e-3


class Mlp(nn.Module):
    def __init__(self, z: Any, i: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.l1 = linear(z, i, "init_l1.weight", "init_l1.bias", dtype)
        self.l2 = linear(z, i, "init_l2.weight", "init_l2.bias", dtype)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.l2(torch.tanh(self.l1(x)))
        return torch.relu(hidden)


class Conv(nn.Module):
    def __init__(self, z: Any, i: int, dtype: torch.dtype) -> None:
        super().__init__()
        names = [key.removeprefix(f"{i}_init_") for key in z.files if key.startswith(f"{i}_init_")]
        state = {name: tensor(z, f"{i}_init_{name}", dtype) for name in names}
        conv = next(name for name in names if state[name].ndim == 4).split(".")[0]
        bn = next(name for name in names if name.endswith("running_mean")).split(".")[0]
        weight = state[f"{conv}.weight"]
        self.add_module(conv, nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=False, dtype=dtype))
        self.add_module(bn, nn.BatchNorm2d(weight.shape[0], dtype=dtype))
        self.order = (conv, bn)
        self.load_state_dict(state, strict=False)

    def forward(self, x: Tensor) -> Tensor:
        conv, bn = (getattr(self, name) for name in self.order)
        return torch.relu(bn(conv(x))).mean((2, 3))


@pytest.mark.parametrize(("suffix", "dtype"), PRECISIONS)
def test_distill_equals_the_published_one(shared: Path, suffix: str, dtype: torch.dtype) -> None:
    meta, z = golden(shared, "distill")
    tight = suffix == "f64"
    for case in meta["cases"]:
        i = case["id"]
        backbone: nn.Module = (Mlp if case["kind"] == "mlp" else Conv)(z, i, dtype)
        before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
        projection = linear(z, i, "W", "b", dtype)
        text = tensor(z, f"{i}_txt_used", dtype)  # a float32 head in both precisions, times the logit scale
        labels = torch.from_numpy(z[f"{i}_labels"])
        x, images = tensor(z, f"{i}_x", dtype), tensor(z, f"{i}_teacher_img", dtype)
        batches = [Batch(x[s], images[s], text[labels[s]]) for s in range(case["steps"])]
        settings = {"learning_rate": case["lr"], "weight_decay": case["weight_decay"]}
        done = distill(backbone, projection, batches, image_weight=case["lambda"], **settings)
        assert np.abs(np.array(done.losses) - z[f"{i}_loss_{suffix}"]).max() < (1e-10 if tight else 1e-6)
        for name, parameter in backbone.named_parameters():
            wanted = z[f"{i}_final_{name}_{suffix}"]
            assert np.abs(parameter.detach().numpy() - wanted).max() < (1e-10 if tight else 5e-6), name
        for name, buffer in backbone.named_buffers():
            assert torch.equal(buffer, before[name]), f"{name} moved"
        assert (
            projection.weight.detach().numpy() == z[f"{i}_W"].astype(projection.weight.detach().numpy().dtype)
        ).all()


def test_swad_equals_the_published_one(shared: Path) -> None:
    meta, z = golden(shared, "swad")
    for case in meta["cases"]:
        i, checkpoints = case["id"], case["checkpoint_steps"]
        settings = (case["n_converge"], case["n_tolerance"], case["tolerance_ratio"], case["segments"])
        valley, weights = LossValley(*settings), torch.from_numpy(z[f"{i}_weights"])
        step = 0
        for step in range(len(weights)):
            valley.update(step, {"w": weights[step]})
            if step in checkpoints:
                valley.end_segment(step, float(z[f"{i}_val_loss"][checkpoints.index(step)]))
                if valley.dead_at is not None:
                    break
        assert (valley.converged_at, valley.dead_at, step) == (
            case["converge_step"],
            case["dead_at_step"],
            case["last_step_run"],
        )
        assert (valley.threshold is None) == (case["threshold"] is None)
        assert abs((valley.threshold or 0) - (case["threshold"] or 0)) < 1e-12
        assert np.abs(valley.average()["w"].numpy() - z[f"{i}_final"]).max() < 1e-9


def test_splits_equal_the_published_ones(shared: Path) -> None:
    meta, z = golden(shared, "split")
    for case in meta["cases"]:
        training, out = domainbed_holdout(case["length"], case["trial_seed"], case["env"], case["holdout_fraction"])
        assert training.tolist() == z[f"{case['id']}_train"].tolist()
        assert out.tolist() == z[f"{case['id']}_held_out"].tolist()
    for case in meta["seed_hash"]:
        assert seed_hash(*case["args"]) == case["value"]


def test_the_split_of_pacs_equals_the_published_one(shared: Path) -> None:
    meta, _ = golden(shared, "pacs_split")
    root = shared / "data" / "PACS"
    if not root.is_dir():
        pytest.skip("PACS is not there")
    folder = DomainFolder(root)
    assert list(folder.domains) == meta["environments"]
    assert list(folder.folders) == meta["classes"]
    for record in meta["records"]:
        paths = [path for path in folder.paths if path.startswith(f"{record['domain']}/")]
        training, out = domainbed_holdout(len(paths), record["trial_seed"], record["env"])
        held_out_paths = [paths[i] for i in out]
        assert (len(paths), len(held_out_paths), len(training)) == (
            record["n_total"],
            record["n_held_out"],
            record["n_train"],
        )
        assert held_out_paths[:10] == record["first10_held_out"]
        assert hashlib.sha256("\n".join(held_out_paths).encode()).hexdigest() == record["sha256_held_out_in_order"]
        train = "\n".join(sorted(paths[i] for i in training))
        assert hashlib.sha256(train.encode()).hexdigest() == record["sha256_train_sorted"]


def test_accuracies_equal_the_published_ones(shared: Path) -> None:
    meta, z = golden(shared, "evaluator")
    for case in meta["cases"]:
        scores = {}
        for name, accuracy in case["accuracies"].items():
            logits = torch.from_numpy(z[f"{case['id']}_{name}_logits"])
            labels = torch.from_numpy(z[f"{case['id']}_{name}_labels"])
            scores[name] = score(logits, labels)
            assert scores[name].accuracy == accuracy
            assert abs(scores[name].loss - case["losses"][name]) < 1e-5
        sources = [s for n, s in scores.items() if n.endswith("_out") and n != f"env{case['test_env']}_out"]
        mean = mean_over_domains(sources)
        assert abs(mean.accuracy - case["summaries"]["train_out"]) < 1e-12
        assert abs(mean.loss - case["summaries"]["tr_outloss"]) < 1e-5


def test_the_preprocessing_for_evaluation_equals_the_published_one(shared: Path) -> None:
    meta, z = golden(shared, "eval_preprocess")
    preprocess = Preprocess(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for case in meta["cases"]:
        path = shared / "data" / "PACS" / case["path"]
        if not path.is_file():
            pytest.skip("PACS is not there")
        image = preprocess(path).numpy()
        assert list(image.shape) == case["shape"]
        assert np.abs(image.ravel()[z[f"{case['id']}_pos"]] - z[f"{case['id']}_val"]).max() < 1e-5
        cached = preprocess.normalise(torch.from_numpy(square(decode(path), 224)).permute(2, 0, 1)[None])[0]
        assert np.array_equal(cached.numpy(), image), "the pixel cache and predict see the same"


@pytest.mark.slow
def test_resnet18_is_trained_in_both_stages_as_published(shared: Path) -> None:
    import torchvision

    meta, z = golden(shared, "resnet18")
    torch.manual_seed(meta["init_seed"])
    backbone = torchvision.models.resnet18(weights=None)
    backbone.fc = nn.Identity()
    state = backbone.state_dict()
    for name, (total, absolute) in meta["init_checksums_sum_abssum"].items():
        averaged = state[name].double()
        assert abs(float(averaged.sum()) - total) < 1e-4, f"another initialisation: {name}"
        assert abs(float(averaged.abs().sum()) - absolute) < 1e-4, f"another initialisation: {name}"
    x, labels = torch.from_numpy(z["x"]).float(), torch.from_numpy(z["labels"])
    images, text = torch.from_numpy(z["teacher_img"]), text_head(torch.from_numpy(z["prompt_emb"]))
    projection = nn.Linear(512, meta["D"])
    projection.load_state_dict({"weight": torch.from_numpy(z["W0"]), "bias": torch.from_numpy(z["b0"])})
    scale = float(np.linalg.norm(z["txt_used"], axis=1).mean())

    def logits() -> Any:
        backbone.eval()
        with torch.no_grad():
            return cosine_logits(projection(backbone(x[6])), text, scale).numpy()

    backbone.eval()
    with torch.no_grad():
        batches = [Batch(backbone(x[s]), images[s], text[labels[s]]) for s in range(3)]
    losses = align(projection, batches, image_weight=meta["lam"], learning_rate=meta["lr"])
    assert np.abs(np.array(losses) - z["loss_stage1"]).max() < 1e-5
    assert np.abs(projection.weight.detach().numpy() - z["W_after_stage1"]).max() < 1e-6
    assert np.abs(logits() - z["stage1_eval_logits"]).max() < 1e-3
    batches = [Batch(x[s], images[s], text[labels[s]]) for s in range(3, 6)]
    done = distill(backbone, projection, batches, image_weight=meta["lam"], learning_rate=meta["lr"])
    assert np.abs(np.array(done.losses) - z["loss_stage2"]).max() < 1e-5
    assert np.abs(backbone.conv1.weight.detach().numpy() - z["conv1_final"]).max() < 5e-6
    assert np.abs(logits() - z["stage2_eval_logits"]).max() < 5e-3
