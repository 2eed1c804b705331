"""The content of model cards, and their metadata as read by the hub."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import ModelCard

from vl2v.config import RunConfig
from vl2v.hub.backbone import origin_of
from vl2v.hub.card import Facts, model_card

ROWS: list[dict[str, Any]] = [
    {"domain": "photo", "role": "in-domain", "images": 40, "student": 0.95, "zero_shot": 0.9, "student_ece": 0.05},
    {"domain": "a|b", "role": "out-of-domain", "images": 1234, "student": 0.71234, "zero_shot": None},
]
MEANS = {"in_domain": {"zero_shot": 0.9, "student": 0.95}, "out_of_domain": {"zero_shot": None, "student": 0.7}}
ASKED = {"image_queries": 1500, "text_queries": 2, "cost": "0.90", "currency": "USD"}
TRUST = {"temperature": 1.25, "calibration": {"images": 40, "ece_before": 0.05, "ece_after": 0.02}}


def facts(method: str = "adip", student: str = "timm:resnet50.tv_in1k", **changes: Any) -> Facts:
    config = RunConfig.model_validate(
        {
            "data": {"root": "DATA"},
            "teacher": {"spec": "jina:jina-clip-v2"},
            "student": {"spec": student},
            "method": method,
        }
    )
    provenance = {
        "made_with": {"vl2v": "0.1.0", "torch": "2.14"},
        "made_at": "2026-11-25T00:00:00+00:00",
        "teacher": {"identity": "jina:jina-clip-v2", "revision": "r1", "dimension": 512},
        "prompts": ["a photo of a cat", "a photo of a dog"],
        "data": {"digest": "d1", "images": 1500, "domains": ["photo", "a|b"], "held_out": ["a|b"]},
        "seed": 7,
        "weights": "swad",
        "swad": {"converged_at": 50, "dead_at": None, "threshold": 0.8},
    }
    card = {
        "backbone": {"kind": "timm", "name": "resnet50.tv_in1k", "options": {}},
        "dimension": 512,
        "classifier": "linear" if method in ("erm", "kd") else "cosine",
        "preprocess": {"size": 96},
        "classes": ["cat", "dog"],
        "provenance": provenance,
    }
    figures = {"domains": ROWS, "means": MEANS, "asked": ASKED}
    return Facts("me/pets", None, card, figures, config.model_dump(mode="json"), **changes)


def test_the_hub_reads_the_metadata_of_the_card() -> None:
    head = ModelCard(model_card(facts())).data.to_dict()  # type: ignore[no-untyped-call]
    assert head["base_model"] == "timm/resnet50.tv_in1k"
    assert (head["license"], head["pipeline_tag"]) == ("unknown", "image-classification")
    results = head["model-index"][0]["results"]
    assert [(r["dataset"]["config"], r["dataset"]["split"], r["metrics"][0]["value"]) for r in results] == [
        ("photo", "validation", 0.95),
        ("a|b", "test", 0.7123),
    ]


@pytest.mark.parametrize(
    "sentence",
    [
        "| a\\|b | out-of-domain | 1,234 | - | 71.2 | - |",
        "Training needed 1,500 image and 2 text queries (0.90 USD).",
        "Many vendors forbid or restrict training on the output of their models",
        "licence of its pretrained weights by timm: `bsd-3-clause`",
        "not stated: without a licence, others may not use it",
        "The only unseen domains in the evaluation are a\\|b (1,234 images).",
        "a square of 96 x 96 pixels",
        "from step 50 of the second stage to its end",
        "Seed 7",
        "@inproceedings{addepalli2024leveraging",
    ],
)
def test_the_card_has_the_facts_that_a_reader_needs(sentence: str) -> None:
    assert sentence in model_card(facts())


def test_the_card_names_trust_data_and_exported_files_if_present() -> None:
    plain, full = model_card(facts()), model_card(facts(trust=TRUST, exported=("model.onnx",)))
    assert "with the temperature 1.25, fitted on 40 validation images" in full
    assert "from 5.0 to 2.0 percent" in full
    assert 'vl2v_runtime.load("export/model.onnx")' in full
    assert "temperature" not in plain
    assert "vl2v_runtime" not in plain


def test_a_baseline_of_labels_alone_has_no_teacher() -> None:
    card = model_card(facts("erm"))
    assert "from labels alone" in card
    assert "Many vendors forbid" not in card
    assert "errors and biases of its teacher" not in card
    assert "Many vendors forbid" in model_card(facts("kd"))


def test_the_card_states_the_origin_of_the_weights() -> None:
    timm = {"kind": "timm", "name": "resnet50.tv_in1k", "options": {}}
    assert origin_of(timm, "timm:resnet50.tv_in1k").hub_name == "timm/resnet50.tv_in1k"
    from_file = origin_of(timm, "timm:resnet50.tv_in1k@FILE")
    assert from_file.hub_name is None
    assert "unknown licence" in from_file.text
    assert origin_of({"kind": "open_clip", "name": "hf-hub:org/name"}, "teacher").hub_name == "org/name"
    assert origin_of({"kind": "module", "name": "Net"}, "Net").hub_name is None


def test_untrusted_texts_are_escaped() -> None:
    hostile = "<b>*x*</b> [a](http://e) `y` | z"
    made = facts(trust=TRUST)
    provenance = made.student["provenance"]
    provenance |= {"made_with": {"vl2v": hostile, hostile: hostile}, "made_at": hostile, "weights": hostile}
    data = {"digest": "d", "domains": [hostile] * 2, "held_out": [hostile]}
    provenance |= {"prompts": [hostile], "seed": hostile, "data": data}
    row = ROWS[0] | {"domain": hostile, "role": "out-of-domain"}
    figures = {"domains": [row], "means": {hostile: MEANS["in_domain"]}, "asked": ASKED | {"currency": hostile}}
    student = {**made.student, "classes": [hostile, "dog"], "dimension": hostile}
    card = model_card(replace(made, student=student, figures=figures)).partition("\n---\n")[2]
    shown = "\\*x\\*&lt;/b&gt; \\[a\\]\\(http&#58;//e\\) \\`y\\` \\| z"
    assert card.count(shown) == 17
    assert not any(mark in card for mark in ("<b>", "](http", "*x*</b>"))
