"""The model card of a published student."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from vl2v.evaluation.evaluation import IN_DOMAIN, OUT_OF_DOMAIN, TEST, Evaluation, Row, percent
from vl2v.evaluation.reference import LABELS, Reference
from vl2v.hub.backbone import Origin, origin_of
from vl2v.method.registry import METHODS

SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~])")  # what Markdown gives a meaning to
SPLITS = {IN_DOMAIN: "validation", TEST: "test", OUT_OF_DOMAIN: "test"}
CITATION = """```bibtex
@inproceedings{addepalli2024leveraging,
  title     = {Leveraging Vision-Language Models for Improving Domain Generalization in Image Classification},
  author    = {Addepalli, Sravanti and Asokan, Ashish Ramayee and Sharma, Lakshay and Babu, R. Venkatesh},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2024}
}
```"""


@dataclass(frozen=True)
class Facts:
    """What a card is made of; all of it may be public.

    Attributes:
        name: the repository, ``user/name``.
        licence: by the hub's name; None if none is stated.
        student: what `student.json` says, redacted.
        figures: what `evaluation.json` says.
        settings: the run's, redacted.
        trust: what `trust.json` says, if it is there.
        exported: names of ONNX files.
    """

    name: str
    licence: str | None
    student: Mapping[str, Any]
    figures: Mapping[str, Any]
    settings: Mapping[str, Any]
    trust: Mapping[str, Any] | None = None
    exported: Sequence[str] = ()

    @property
    def rows(self) -> tuple[Row, ...]:
        """The final table."""
        return Evaluation.from_dict(self.figures).rows

    @property
    def reference(self) -> Reference:
        """What the figures compare answers with."""
        return Evaluation.from_dict(self.figures).reference

    @property
    def made(self) -> Mapping[str, Any]:
        """Provenance."""
        found: Mapping[str, Any] = self.student["provenance"]
        return found

    @property
    def taught(self) -> bool:
        """Whether anything of the teacher's is in the student; some baselines learn from labels alone."""
        return METHODS[self.settings["method"]].asks_teacher or self.student["classifier"] == "cosine"


def model_card(facts: Facts) -> str:
    """A README with the front matter that the hub reads, and a section for each question that a user may have."""
    spec = facts.settings["student"]["spec"]
    origin = origin_of(facts.student["backbone"], facts.settings["teacher"]["spec"] if spec == "teacher" else spec)
    sections = [
        f"# {facts.name.partition('/')[2]}\n\n{_what(facts)}",
        f"## Use\n\n{_use(facts)}",
        f"## Figures\n\n{_figures(facts)}",
        f"## Data\n\n{_data(facts)}",
        f"## Teacher\n\n{_teacher(facts)}",
        f"## Backbone and licence\n\n{_licences(facts, origin)}",
        f"## Limits\n\n{_limits(facts)}",
        f"## How it was made\n\n{_making(facts)}",
        f"## Citation\n\n{CITATION}",
    ]
    return f"---\n{_metadata(facts, origin).to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"


def _metadata(facts: Facts, origin: Origin) -> ModelCardData:
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type="imagefolder",
            dataset_name=f"{row.domain} ({row.role})",
            dataset_config=row.domain,  # by which results are kept apart
            dataset_split=SPLITS.get(row.role),
            metric_type=facts.reference.key,
            metric_value=round(row.student, 4),
        )
        for row in facts.rows
    ]
    return ModelCardData(
        license=facts.licence or "unknown",
        library_name="vl2v",
        pipeline_tag="image-classification",
        tags=["vl2v", "domain-generalization", "knowledge-distillation", *(["onnx"] if facts.exported else [])],
        base_model=origin.hub_name,
        metrics=[facts.reference.key],
        model_name=facts.name.partition("/")[2],
        eval_results=results,
    )


def _what(facts: Facts) -> str:
    method, card = METHODS[facts.settings["method"]], facts.student
    size = card["preprocess"]["size"]
    head = (
        f"Its head is the text embeddings of the class names in the teacher's {card['dimension']}-dimensional space."
        if card["classifier"] == "cosine"
        else "Its head is a linear classifier."
    )
    source = "the embeddings of a vision-language model" if facts.taught else "labels alone"
    return (
        f"An image classifier of {len(card['classes'])} classes for images of {size} x {size} pixels: "
        f"{_code(card['backbone']['name'])}, trained with {method.title} by "
        f"vl2v {_cell(facts.made['made_with'].get('vl2v', ''))} from {source}. {head} "
        "Inference needs no teacher."
    )


def _use(facts: Facts) -> str:
    text = (
        "```python\n"
        "import vl2v\n\n"
        f'student = vl2v.load("hf:{facts.name}")  # or the folder of a download\n'
        'student.predict(["one.jpg", "another.jpg"])\n'
        "```\n\n"
        "The weights are safetensors and the description is JSON: nothing in this repository is executed on loading."
    )
    if facts.student["backbone"]["kind"] == "module":
        text += "\nThe backbone is a custom module, which you have to provide: `vl2v.load(..., backbone=module)`."
    if facts.exported:
        names = ", ".join(_code(f"export/{name}") for name in facts.exported)
        text += (
            f"\n\nWithout torch, in a download of this repository ({names}):\n\n"
            "```python\n"
            "import vl2v_runtime\n\n"
            f"model = vl2v_runtime.load({_literal(f'export/{facts.exported[0]}')})\n"
            'model.predict(["one.jpg"])\n'
            "```"
        )
    return text


def _figures(facts: Facts) -> str:
    measure = facts.reference.measure
    lines = [
        f"{measure[0].upper()}{measure[1:]} in percent. `in-domain`: validation images of the training domains, by "
        "which the weights were selected. `out-of-domain`: domains that were used neither for training nor selection.",
        "",
        "| domain | | images | zero-shot teacher | student | student's calibration error |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in facts.rows:
        numbers = " | ".join(percent(value) for value in (row.zero_shot, row.student, row.student_ece))
        lines.append(f"| {_cell(row.domain)} | {row.role} | {row.images:,} | {numbers} |")
    for role, means in facts.figures["means"].items():
        named = _cell(role.replace("_", "-"))
        lines.append(f"| mean | {named} | | {percent(means['zero_shot'])} | {percent(means['student'])} | |")
    fitted = (facts.trust or {}).get("calibration", {})
    if facts.reference is not LABELS:
        lines += ["", "The images have no labels: how often the student is right was not measured."]
    if facts.trust is not None and {"images", "ece_before", "ece_after"} <= fitted.keys():
        before, after = fitted["ece_before"], fitted["ece_after"]
        lines += [
            "",
            f"The probabilities are calibrated with the temperature {facts.trust['temperature']:.3g}, fitted on "
            f"{fitted['images']:,} validation images of the training domains. Their expected "
            f"calibration error changed from {percent(before)} to {percent(after)} percent. "
            "This does not hold for unseen domains.",
        ]
    return "\n".join(lines)


def _data(facts: Facts) -> str:
    data, split = {"images": 0, "domains": [], "held_out": [], **facts.made["data"]}, facts.settings["data"]
    held_out = data["held_out"]
    kind = "labelled images" if facts.reference is LABELS else "images without labels"
    lines = [
        f"- {data['images']:,} {kind} in {len(data['domains'])} domains: {_listed(data['domains'])}.",
        f"- Held out for testing: {_listed(held_out)}." if held_out else "- No domain was held out.",
        f"- {split['holdout_fraction']:.0%} of every training domain was held out for validation.",
    ]
    if split["labels_per_class"] is not None:
        lines.append(f"- {split['labels_per_class']} labels per class and domain were used.")
    if split["unlabelled"] or split["rest_unlabelled"]:
        lines.append("- Additional images were used without labels.")
    lines += [f"- Classes: {_listed(facts.student['classes'])}.", "- The images are not published here."]
    return "\n".join(lines)


def _teacher(facts: Facts) -> str:
    teacher, asked = facts.made["teacher"], facts.figures.get("asked")
    if not facts.taught:
        named = _code(teacher["identity"])
        return f"None: the student was trained on labels alone. {named} is the teacher in the zero-shot column, if any."
    texts = "".join(f'; prompts such as "{_cell(prompt)}"' for prompt in facts.made["prompts"][:1])
    lines = [f"{_code(teacher['identity'])}, {teacher['dimension']} dimensions{texts}."]
    if asked:
        cost = f"{asked['cost']} {_cell(asked['currency'])}"
        lines.append(
            f"Training needed {asked['image_queries']:,} image and {asked['text_queries']:,} text queries ({cost})."
        )
    lines.append(
        "\n**Check the teacher's terms before you use, sell or pass on this model.** The terms of many vendors forbid "
        "or limit training on what their models answer, or competing with them by it, and the weights of many open "
        "models are not free for every use. Nobody has checked this for you."
    )
    return "\n".join(lines)


def _licences(facts: Facts, origin: Origin) -> str:
    own = _code(facts.licence) if facts.licence else "not stated: without a licence, others may not use it"
    return "\n".join(
        [
            f"- This student: {own}.",
            f"- Backbone: {_code(facts.student['backbone']['name'])}, {origin.text}",
            "- The images and the teacher have their own terms, which may apply to this student.",
        ]
    )


def _limits(facts: Facts) -> str:
    unseen = [f"{_cell(row.domain)} ({row.images:,} images)" for row in facts.rows if row.role == OUT_OF_DOMAIN]
    size = facts.student["preprocess"]["size"]
    answer = "a low confidence may indicate this (see trust.json)" if facts.trust else "it has no rejection thresholds"
    measured = (
        f"The only unseen domains in the evaluation are {', '.join(unseen)}. Results on others are unknown."
        if unseen
        else "No unseen domain was evaluated: results outside the domains above are unknown."
    )
    inherited = ["- It inherits errors and biases of its teacher, which were not studied."] if facts.taught else []
    return "\n".join(
        [
            f"- It assigns one of the classes above to any image; {answer}.",
            f"- Every image is resized to a square of {size} x {size} pixels, whatever its shape.",
            f"- {measured}",
            "- The in-domain images are similar to the training images, and the weights were selected by them.",
            *inherited,
            "- Do not use it for decisions about people, or where errors cause harm, without your own tests.",
        ]
    )


def _making(facts: Facts) -> str:
    made = facts.made
    versions = ", ".join(_cell(f"{name} {version}") for name, version in made["made_with"].items())
    swad = made.get("swad") or {}
    weights = f"- Saved weights: {_cell(made['weights'])}"
    if made["weights"] == "swad" and swad.get("converged_at") is not None:
        end = "its end" if swad.get("dead_at") is None else f"step {swad['dead_at']}"
        weights += f", from step {swad['converged_at']} of the second stage to {end}"
    return "\n".join(
        [
            f"- Seed {made.get('seed', 0)}, {_cell(made['made_at'])}. All settings: `config.yaml`.",
            f"{weights}.",
            f"- Versions: {versions}.",
            f"- Data by content: {_code(made['data']['digest'])}; "
            f"teacher's revision: {_code(made['teacher']['revision'])}.",
        ]
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(_cell, names))


def _cell(text: str) -> str:
    """Text that somebody else may have chosen, on one line, so that Markdown shows it and does nothing else with it."""
    escaped = SPECIAL.sub(r"\\\1", _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
    return escaped.replace("://", "&#58;//").replace("www.", "www&#46;").replace("@", "&#64;")  # no links by themselves


def _code(text: str) -> str:
    """The same as code, in a fence that is longer than any run of backticks in it; `|` would end a table's cell."""
    line = _one_line(text).replace("|", "\u2502")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    space = " " if "`" in line or not line else ""
    return f"{fence}{space}{line}{space}{fence}"


def _literal(text: str) -> str:
    """Text in a block of Python code."""
    return json.dumps(_one_line(text)).replace("```", "")


def _one_line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
