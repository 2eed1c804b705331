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

from vl2v.evaluation.evaluation import IN_DOMAIN, OUT_OF_DOMAIN, TEST, Evaluation, Row, percent
from vl2v.evaluation.reference import LABELS, Reference
from vl2v.hub.backbone import Origin, origin_of
from vl2v.method.registry import METHODS

SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~])")  # what Markdown gives a meaning to
SPLITS = {IN_DOMAIN: "validation", TEST: "test", OUT_OF_DOMAIN: "test"}


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
    def title(self) -> str:
        """The name without the user's."""
        return self.name.partition("/")[2]

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
        return METHODS[self.settings["method"]].queries_teacher or self.student["classifier"] == "cosine"


def model_card(facts: Facts) -> str:
    """A README with the front matter that the hub reads, and a section for each question that a user may have."""
    student, made, settings = facts.student, facts.made, facts.settings
    spec = settings["student"]["spec"]
    origin = origin_of(student["backbone"], settings["teacher"]["spec"] if spec == "teacher" else spec)
    text = _template().render(
        facts=facts,
        student=student,
        size=student["preprocess"]["size"],
        method=METHODS[settings["method"]],
        made=made,
        origin=origin,
        split=settings["data"],
        data={"images": 0, "domains": [], "held_out": [], **made["data"]},
        labelled=facts.reference is LABELS,
        fitted=(facts.trust or {}).get("calibration", {}),
        asked=facts.figures.get("asked"),
        unseen=[row for row in facts.rows if row.role == OUT_OF_DOMAIN],
        swad=made.get("swad") or {},
    )
    return f"---\n{_metadata(facts, origin).to_yaml()}\n---\n\n{text}"


def _template() -> Template:
    """The card's text; what it shows is escaped for Markdown unless a filter has made it safe."""
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
        "literal": lambda text: Markup(_literal(text)),
        "listed": lambda names: Markup(", ".join(map(_cell, names))),
        "percent": lambda value: Markup(percent(value)),
        "thousands": lambda number: Markup(f"{number:,}"),
    }
    return env.get_template("card.md.j2")


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
        model_name=facts.title,
        eval_results=results,
    )


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
