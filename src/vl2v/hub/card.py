"""The model card of a published student."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from vl2v.evaluation.evaluation import IN_DOMAIN, OUT_OF_DOMAIN, TEST, Evaluation, percent
from vl2v.evaluation.reference import LABELS
from vl2v.hub.backbone import Origin, origin_of
from vl2v.method.registry import METHODS
from vl2v_runtime.fits import SQUASH

SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~])")  # special characters of Markdown
SPLITS = {IN_DOMAIN: "validation", TEST: "test", OUT_OF_DOMAIN: "test"}


@dataclass(frozen=True)
class Facts:
    """The data of a model card. All of it can be published.

    Attributes:
        licence: identifier of the licence on the hub, or None.
        student: content of `student.json`, redacted.
        figures: content of `evaluation.json`.
        settings: settings of the run, redacted.
        trust: content of `trust.json`, or None.
        exported: names of the ONNX files.
    """

    name: str
    licence: str | None
    student: Mapping[str, Any]
    figures: Mapping[str, Any]
    settings: Mapping[str, Any]
    trust: Mapping[str, Any] | None = None
    exported: Sequence[str] = ()

    @property
    def title(self) -> str:
        """Name of the repository without the user."""
        return self.name.partition("/")[2]

    @property
    def evaluation(self) -> Evaluation:
        """The final table."""
        return Evaluation.from_dict(self.figures)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Provenance of the student."""
        provenance: Mapping[str, Any] = self.student["provenance"]
        return provenance

    @property
    def taught(self) -> bool:
        """Whether the teacher was used for training. Some baselines are trained on labels alone."""
        return METHODS[self.settings["method"]].queries_teacher or self.student["classifier"] == "cosine"


def model_card(facts: Facts) -> str:
    """Render the model card: a README with the front matter that the hub reads."""
    student, provenance, settings, evaluation = facts.student, facts.provenance, facts.settings, facts.evaluation
    spec = settings["student"]["spec"]
    origin = origin_of(student["backbone"], settings["teacher"]["spec"] if spec == "teacher" else spec)
    text = _template().render(
        facts=facts,
        student=student,
        size=student["preprocess"]["size"],
        fit=student["preprocess"].get("fit", SQUASH),
        method=METHODS[settings["method"]],
        provenance=provenance,
        origin=origin,
        split=settings["data"],
        data={"images": 0, "domains": [], "held_out": [], **provenance["data"]},
        labelled=evaluation.reference is LABELS,
        fitted=(facts.trust or {}).get("calibration", {}),
        queried=facts.figures.get("asked"),
        evaluation=evaluation,
        unseen=[row for row in evaluation.rows if row.role == OUT_OF_DOMAIN],
        swad=provenance.get("swad") or {},
    )
    return f"---\n{_metadata(facts, origin).to_yaml()}\n---\n\n{text}"


def _template() -> Template:
    """Load the template. Values are escaped for Markdown, unless a filter marks them as safe."""
    loader = FileSystemLoader(Path(__file__).parent)
    env = Environment(
        loader=loader,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: value if isinstance(value, Markup) else _cell(str(value)),
    )
    env.filters |= {
        "code": lambda text: Markup(_code(text)),
        "literal": lambda text: Markup(json.dumps(_one_line(text)).replace("```", "")),
        "listed": lambda names: Markup(", ".join(map(_cell, names))),
        "percent": lambda value: Markup(percent(value)),
        "thousands": lambda number: Markup(f"{number:,}"),
    }
    return env.get_template("card.md.j2")


def _metadata(facts: Facts, origin: Origin) -> ModelCardData:
    evaluation = facts.evaluation
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type="imagefolder",
            dataset_name=f"{row.domain} ({row.role})",
            dataset_config=row.domain,  # the hub distinguishes results by it
            dataset_split=SPLITS.get(row.role),
            metric_type=evaluation.reference.key,
            metric_value=round(row.student, 4),
        )
        for row in evaluation.rows
    ]
    return ModelCardData(
        license=facts.licence or "unknown",
        library_name="vl2v",
        pipeline_tag="image-classification",
        tags=["vl2v", "domain-generalization", "knowledge-distillation", *(["onnx"] if facts.exported else [])],
        base_model=origin.hub_name,
        metrics=[evaluation.reference.key],
        model_name=facts.title,
        eval_results=results,
    )


def _cell(text: str) -> str:
    """Escape untrusted text for one line of Markdown."""
    escaped = SPECIAL.sub(r"\\\1", _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
    return escaped.replace("://", "&#58;//").replace("www.", "www&#46;").replace("@", "&#64;")  # no automatic links


def _code(text: str) -> str:
    """Format untrusted text as code, in a fence longer than any run of backticks. `|` would end a table cell."""
    line = _one_line(text).replace("|", "\u2502")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    space = " " if "`" in line or not line else ""
    return f"{fence}{space}{line}{space}{fence}"


def _one_line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
