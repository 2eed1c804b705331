"""`vl2v quote`, `vl2v distill` and `vl2v demo`. Heavy imports happen when a command runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from vl2v.allocator import hold_memory
from vl2v.cli.common import (
    CacheOpt,
    DataArg,
    ImageColumn,
    Json,
    LabelColumn,
    Quiet,
    SkipBad,
    StoreOpt,
    guarded,
    make_places,
    make_progress,
    pair,
)
from vl2v.errors import ConfigError
from vl2v.method.registry import BUILT_IN
from vl2v.nested import merge, nested

ADIP, RECIPE, *BASELINES = BUILT_IN

TeacherOpt = Annotated[
    str | None,
    typer.Option(help="open_clip:<model>/<tag or file>, file:<path>, offline:, conse:, http(s)://.../v1, jina:, ..."),
]
StudentOpt = Annotated[
    str | None,
    typer.Option(help="timm:<name>, timm:<name>@<checkpoint>, offline:, or teacher (VL2V-SD, open_clip only)."),
]
HeldOut = Annotated[list[str] | None, typer.Option(help="Domain that is left out for testing; repeatable.")]
Classes = Annotated[
    list[str] | None,
    typer.Option(help="For images without labels: names of the classes (cat,dog,...), or a file with one per line."),
]
DomainColumn = Annotated[
    str | None,
    typer.Option("--domain", "--domain-column", help="Of a table: the column of domains, or none for a single domain."),
]
DomainFolders = Annotated[
    bool | None, typer.Option("--domain-folders", help="With --classes: the folders on the first level are domains.")
]
HeldOutClass = Annotated[
    list[str] | None,
    typer.Option(help="Class that is left out of training and evaluated by its name alone; repeatable."),
]
Views = Annotated[
    str | None,
    typer.Option(help="Views to buy per training image (default 1: the image itself), or fresh (see the docs)."),
]
Prompts = Annotated[str | None, typer.Option(help="photo, name, clip-80, a template with {}, or a file of templates.")]
Labels = Annotated[int | None, typer.Option(help="Labels to use per class and domain.")]
Rest = Annotated[
    bool | None, typer.Option("--rest-unlabelled", help="Use the images beyond --labels-per-class without labels.")
]
Unlabelled = Annotated[Path | None, typer.Option(help="Folder of additional images without labels.")]
ZeroShot = Annotated[
    bool | None, typer.Option(help="Query the evaluation images for the zero-shot column of the table.")
]
Missing = Annotated[bool | None, typer.Option("--allow-missing-classes", help="Accept a class that a domain lacks.")]
AsFound = Annotated[
    bool | None,
    typer.Option("--layout-as-found", help="Accept folders that look like splits or dates as domains and classes."),
]
PriceImages = Annotated[
    str | None, typer.Option(help="Price of 1000 images, if a vendor states none, or for a file: teacher.")
]
PriceTexts = Annotated[str | None, typer.Option(help="The same for 1000 texts.")]
Free = Annotated[bool | None, typer.Option("--free", help="Confirm that a vendor without a price is free.")]
Seed = Annotated[int | None, typer.Option(help="Random seed (default 0).")]
ConfigOpt = Annotated[Path | None, typer.Option("--config", help="YAML file with settings; options take precedence.")]
SetOpt = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE of any other setting; repeatable."),
]
SizeOpt = Annotated[int | None, typer.Option(help="Side length of the student's input in pixels.")]


def quote(
    data: DataArg,
    teacher: TeacherOpt = None,
    student: StudentOpt = None,
    image: ImageColumn = None,
    label: LabelColumn = None,
    domain: DomainColumn = None,
    classes: Classes = None,
    domain_folders: DomainFolders = None,
    held_out: HeldOut = None,
    held_out_class: HeldOutClass = None,
    views: Views = None,
    prompts: Prompts = None,
    labels_per_class: Labels = None,
    rest_unlabelled: Rest = None,
    unlabelled: Unlabelled = None,
    zero_shot: ZeroShot = None,
    skip_bad: SkipBad = None,
    allow_missing_classes: Missing = None,
    layout_as_found: AsFound = None,
    price_per_1000_images: PriceImages = None,
    price_per_1000_texts: PriceTexts = None,
    free: Free = None,
    seed: Seed = None,
    size: SizeOpt = None,
    assigned: SetOpt = None,
    config: ConfigOpt = None,
    cache: CacheOpt = None,
    store: StoreOpt = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Show what distilling would cost in queries, money and disk space. Free."""
    from vl2v.api import quote as ask
    from vl2v.cli.printing import quote_json, quote_table, show

    if teacher is None and config is None:
        raise _no_teacher()
    settings = settings_of(locals())
    found = ask(
        data,
        teacher or _from_config(config, "teacher"),
        student=student or "",
        places=make_places(cache, store),
        progress=make_progress(quiet, as_json),
        config=config,
        settings=settings,
    )
    show(quote_json(found) if as_json else quote_table(found))


def distill(
    data: Annotated[
        Path | None, typer.Argument(help="Images: a folder, or a table (csv, ...); omit with --resume.")
    ] = None,
    teacher: TeacherOpt = None,
    student: StudentOpt = None,
    out: Annotated[Path, typer.Option(help="Folder of the run, new or empty.")] = Path("runs/vl2v"),
    image: ImageColumn = None,
    label: LabelColumn = None,
    domain: DomainColumn = None,
    classes: Classes = None,
    domain_folders: DomainFolders = None,
    held_out: HeldOut = None,
    held_out_class: HeldOutClass = None,
    budget: Annotated[str | None, typer.Option(help="The most to spend; required if the teacher charges.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    recipe: Annotated[
        str | None, typer.Option(help="Set of default settings: ood (default) or paper; see the docs.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help=f"{RECIPE} (default), {ADIP} (of --recipe paper), or a baseline: {', '.join(BASELINES)}."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of Distill (default: 60 passes over the images, 300 to 2400).")
    ] = None,
    align_steps: Annotated[int | None, typer.Option(help="Steps of Align (default 1001; of most baselines 0).")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Learning rate of Distill (default 3e-4; 5e-5 for transformers).")
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(help="Maximum training time, e.g. 90s, 30m, 2h or none (default 60m; none with --steps)."),
    ] = None,
    accept_teacher: Annotated[
        bool | None, typer.Option("--accept-teacher", help="Continue even if the teacher's responses look useless.")
    ] = None,
    batch_per_domain: Annotated[
        int | None, typer.Option(help="Images per source domain and step (default: 24 images shared evenly).")
    ] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps between validations (default 100).")] = None,
    image_weight: Annotated[float | None, typer.Option(help="Lambda of the dual loss, 0 to 1 (default 0.5).")] = None,
    weights: Annotated[str | None, typer.Option(help="Weights to save: swad (default), best or last.")] = None,
    views: Views = None,
    prompts: Prompts = None,
    labels_per_class: Labels = None,
    rest_unlabelled: Rest = None,
    unlabelled: Unlabelled = None,
    zero_shot: ZeroShot = None,
    skip_bad: SkipBad = None,
    allow_missing_classes: Missing = None,
    layout_as_found: AsFound = None,
    price_per_1000_images: PriceImages = None,
    price_per_1000_texts: PriceTexts = None,
    free: Free = None,
    seed: Seed = None,
    size: SizeOpt = None,
    device: Annotated[str | None, typer.Option(help="auto (default), cpu, cuda or mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="no (default), bf16 or fp16.")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of loading processes.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads (default: measured before the first step).")] = None,
    report: Annotated[bool, typer.Option(help="Write report.html at the end.")] = True,
    track: Annotated[list[str] | None, typer.Option(help="tensorboard, wandb or mlflow; repeatable.")] = None,
    assigned: SetOpt = None,
    config: ConfigOpt = None,
    cache: CacheOpt = None,
    store: StoreOpt = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Buy embeddings, train a student, evaluate it and save it in OUT/student."""
    hold_memory()
    from vl2v.api import distill as work
    from vl2v.cli.printing import run_json, run_text, show

    if not resume and config is None:
        for name, value in (("DATA", data), ("--teacher", teacher), ("--student", student)):
            if value is None:
                raise _lacking(name)
    settings = settings_of(locals())
    done = work(
        data,
        teacher,
        student,
        out=out,
        held_out=held_out or None,
        budget=budget,
        resume=resume,
        places=make_places(cache, store, out if resume else None, present=False),
        progress=make_progress(quiet, as_json),
        config=config,
        settings=settings,
        report=report,
    )
    if done is not None:
        show(run_json(done) if as_json else run_text(done))


def demo(
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("runs/demo"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a student and two baselines offline on drawings (extra: demo)."""
    hold_memory()
    from vl2v.cli.printing import demo_json, demo_text, show
    from vl2v.demo.job import demo as work

    done = work(out, make_progress(quiet, as_json))
    show(demo_json(done) if as_json else demo_text(done))


NESTED = {
    "data": (
        *("image", "label", "domain", "domain_folders", "held_out", "labels_per_class", "rest_unlabelled"),
        *("unlabelled", "skip_bad", "allow_missing_classes", "layout_as_found"),
    ),
    "teacher": ("views", "prompts", "zero_shot", "price_per_1000_images", "price_per_1000_texts", "free"),
    "student": ("size",),
    "distill": ("learning_rate", "checkpoint_every", "weights", "steps"),
}
TOP = ("recipe", "method", "image_weight", "batch_per_domain", "seed", "device", "precision", "workers", "threads")


def settings_of(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given, nested as the settings are."""
    settings: dict[str, Any] = {
        part: {key: str(v) if isinstance(v := flags.get(key), Path) else v for key in keys}
        for part, keys in NESTED.items()
    }
    named = flags.get("classes")
    settings["data"]["classes"] = ",".join(named) if named else None  # given once, or a name at a time
    settings["data"]["held_out"] = flags.get("held_out") or None
    settings["data"]["held_out_classes"] = flags.get("held_out_class") or None
    settings["teacher"]["accept"] = flags.get("accept_teacher")
    settings["align"] = {"steps": flags.get("align_steps")}
    settings["distill"]["minutes"] = minutes_of(flags.get("time"))
    settings["tracking"] = flags.get("track") or None
    other = nested(dict(pair(item, "--set") for item in flags.get("assigned") or ()))
    return merge(other, settings | {key: flags.get(key) for key in TOP})


def minutes_of(text: str | None) -> float | None:
    """Minutes of a time such as 90s, 30m, 1.5h or 30; none is 0, which sets no limit.

    Raises:
        ConfigError: if it is something else.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)\s*(s|m|min|h|)", text.strip().lower())
    if text.strip().lower() == "none":
        return 0.0
    minutes = float(match[1]) * {"s": 1 / 60, "h": 60.0}.get(match[2], 1.0) if match else 0.0
    if minutes <= 0:
        raise ConfigError(
            f"--time {text} is not valid.",
            expected="a number above 0 with s, m or h (m if there is none), or none for no limit",
            found=repr(text),
            next_step="e.g. --time 30m",
        )
    return minutes


def _from_config(config: Path | None, part: str) -> str:
    from vl2v.data.folder import read_yaml

    content = read_yaml(config) if config else None
    spec = content.get(part, {}).get("spec") if isinstance(content, dict) else None
    if not isinstance(spec, str):
        raise _no_teacher()
    return spec


def _no_teacher() -> ConfigError:
    return _lacking("--teacher")


def _lacking(name: str) -> ConfigError:
    examples = {
        "DATA": "a folder of images, or a table that lists them",
        "--teacher": "e.g. --teacher open_clip:ViT-B-16/openai",
        "--student": "e.g. --student timm:resnet50.tv_in1k",
    }
    return ConfigError(f"{name} is missing.", expected=examples[name], found="nothing", next_step="vl2v distill --help")


def attach(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (quote, distill, demo):
        app.command()(guarded(command))
