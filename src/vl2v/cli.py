"""The command line: each command parses, calls one function of the API, and prints."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from vl2v.allocator import hold_memory
from vl2v.cli_benchmark import attach as attach_benchmark
from vl2v.cli_classes import attach as attach_classes
from vl2v.cli_data import attach as attach_data
from vl2v.cli_export import attach as attach_export
from vl2v.cli_hub import attach as attach_hub
from vl2v.cli_report import attach as attach_report
from vl2v.cli_serve import attach as attach_serve
from vl2v.cli_teacher import attach as attach_teacher
from vl2v.cli_trust import attach as attach_trust
from vl2v.errors import ConfigError, Interrupted, StudentError, Vl2vError, as_disk_full
from vl2v.method.names import TITLES
from vl2v.vendor.cli import attach as attach_vendor
from vl2v_runtime.errors import ModelError

if TYPE_CHECKING:
    from vl2v.job.prepare import Places
    from vl2v.progress import Progress

app = typer.Typer(
    name="vl2v",
    help="Turn a pay-per-query vision-language model into your own image classifier that holds on unseen domains.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
P = ParamSpec("P")
ADIP, *BASELINES = TITLES

DataArg = Annotated[Path, typer.Argument(help="Images: DATA/<domain>/<class>/<image>, or DATA/<class>/<image>.")]
TeacherOpt = Annotated[
    str | None,
    typer.Option(help="open_clip:<model>/<tag or file>, file:<path>, offline:, conse:, http(s)://.../v1, jina:, ..."),
]
StudentOpt = Annotated[
    str | None,
    typer.Option(help="timm:<name>, timm:<name>@<checkpoint>, offline:, or teacher (VL2V-SD, open_clip only)."),
]
HeldOut = Annotated[list[str] | None, typer.Option(help="A domain left out to test; may be repeated.")]
HeldOutClass = Annotated[
    list[str] | None,
    typer.Option(help="A class left out of training, to measure how well its name alone makes it known; repeatable."),
]
Views = Annotated[
    str | None,
    typer.Option(help="Views bought of every training image (default 1: the image itself); fresh: see the docs."),
]
Prompts = Annotated[str | None, typer.Option(help="photo, name, clip-80, a template with {}, or a file of templates.")]
Labels = Annotated[int | None, typer.Option(help="Labels kept per class and domain.")]
Rest = Annotated[
    bool | None, typer.Option("--rest-unlabelled", help="Use images beyond --labels-per-class unlabelled.")
]
Unlabelled = Annotated[Path | None, typer.Option(help="A folder of further images without labels.")]
ZeroShot = Annotated[bool | None, typer.Option(help="Also ask for the images of the table's zero-shot column.")]
SkipBad = Annotated[bool | None, typer.Option("--skip-bad", help="Go on without unreadable files.")]
Missing = Annotated[bool | None, typer.Option("--allow-missing-classes", help="Accept a class that a domain lacks.")]
PriceImages = Annotated[str | None, typer.Option(help="What 1000 images cost, if a file: or a vendor does not tell.")]
PriceTexts = Annotated[str | None, typer.Option(help="The same for texts.")]
Seed = Annotated[int | None, typer.Option(help="The one seed of a run (default 0).")]
ConfigOpt = Annotated[Path | None, typer.Option("--config", help="YAML settings; flags go over it.")]
SizeOpt = Annotated[int | None, typer.Option(help="Side length of the student's input in pixels.")]
CacheOpt = Annotated[Path | None, typer.Option(help="Where decoded pixels are kept; may be deleted at any time.")]
StoreOpt = Annotated[Path | None, typer.Option(help="The file of bought vectors; worth money.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; only the result.")]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output, progress as JSON lines.")]


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn every fault that a user can mend into a message and an exit code, without a traceback."""

    @wraps(command)
    def inner(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except Vl2vError as error:
            _fail(error, bool(kwargs.get("as_json")))
        except ModelError as e:
            parts = {"expected": e.expected, "found": e.found, "next_step": e.next_step}
            _fail(StudentError(e.problem, **parts), bool(kwargs.get("as_json")))
        except KeyboardInterrupt:
            out = kwargs.get("out")
            step = (
                f"go on: vl2v distill --out {out} --resume" if out and (Path(str(out)) / "config.yaml").exists() else ""
            )
            _fail(Interrupted("Stopped; what was bought is kept.", next_step=step), bool(kwargs.get("as_json")))
        except Exception as error:  # writers word a full disk in many kinds
            full = as_disk_full(error)
            if full is None:
                raise
            _fail(full, bool(kwargs.get("as_json")))

    return inner


def _fail(error: Vl2vError, as_json: bool) -> None:
    if as_json:
        parts = {"problem": error.problem, "expected": error.expected, "found": error.found, "next": error.next_step}
        print(json.dumps({"error": type(error).__name__, **parts}), file=sys.stderr)
    else:
        print(f"{'' if isinstance(error, Interrupted) else 'error: '}{error}", file=sys.stderr)
    raise typer.Exit(error.exit_code)


def make_progress(quiet: bool, as_json: bool) -> Progress:
    """Who is told of the stages: nobody, a script, or people."""
    from vl2v.job.console import JsonLines, for_people
    from vl2v.progress import Silent

    return JsonLines() if as_json else Silent() if quiet else for_people()


def make_places(cache: Path | None, store: Path | None) -> Places:
    """The places that the flags name, the user's own where they do not."""
    from vl2v.job.prepare import Places

    default = Places()
    return Places(cache or default.cache, store or default.store)


@app.callback()
def _setup() -> None:
    """Keep other packages' chatter away from the user."""
    warnings.filterwarnings("ignore", module=r"(torch|timm|open_clip|transformers|huggingface_hub)(\.|$)")
    for name in ("huggingface_hub", "timm", "transformers", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)


@app.command()
@guarded
def quote(
    data: DataArg,
    teacher: TeacherOpt = None,
    student: StudentOpt = None,
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
    price_per_1000_images: PriceImages = None,
    price_per_1000_texts: PriceTexts = None,
    seed: Seed = None,
    size: SizeOpt = None,
    config: ConfigOpt = None,
    cache: CacheOpt = None,
    store: StoreOpt = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Say what distilling would cost in queries, money and disk. Free."""
    from vl2v.api import quote as ask
    from vl2v.job.printing import quote_json, quote_table, show

    if teacher is None and config is None:
        raise _no_teacher()
    settings = _settings(locals())
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


@app.command()
@guarded
def distill(
    data: Annotated[Path | None, typer.Argument(help="Images; left out with --resume.")] = None,
    teacher: TeacherOpt = None,
    student: StudentOpt = None,
    out: Annotated[Path, typer.Option(help="The run's folder, new or empty.")] = Path("runs/vl2v"),
    held_out: HeldOut = None,
    held_out_class: HeldOutClass = None,
    budget: Annotated[str | None, typer.Option(help="The most to spend; needed where the teacher charges.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    method: Annotated[
        str | None, typer.Option(help=f"{ADIP} (default), or a baseline: {', '.join(BASELINES)}.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of Distill (default 5001).")] = None,
    align_steps: Annotated[int | None, typer.Option(help="Steps of Align (default 5001; of most baselines 0).")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Adam's, of Distill (default 5e-5).")] = None,
    batch_per_domain: Annotated[
        int | None, typer.Option(help="Images per source domain and step (default 32).")
    ] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps between validations (default 200).")] = None,
    image_weight: Annotated[float | None, typer.Option(help="Lambda of the dual loss, 0 to 1 (default 0.5).")] = None,
    weights: Annotated[str | None, typer.Option(help="Weights kept: swad (default), best or last.")] = None,
    views: Views = None,
    prompts: Prompts = None,
    labels_per_class: Labels = None,
    rest_unlabelled: Rest = None,
    unlabelled: Unlabelled = None,
    zero_shot: ZeroShot = None,
    skip_bad: SkipBad = None,
    allow_missing_classes: Missing = None,
    price_per_1000_images: PriceImages = None,
    price_per_1000_texts: PriceTexts = None,
    seed: Seed = None,
    size: SizeOpt = None,
    device: Annotated[str | None, typer.Option(help="auto (default), cpu, cuda or mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="no (default), bf16 or fp16.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that load and augment.")] = None,
    track: Annotated[list[str] | None, typer.Option(help="tensorboard, wandb or mlflow; may be repeated.")] = None,
    config: ConfigOpt = None,
    cache: CacheOpt = None,
    store: StoreOpt = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Scan, quote, buy, align, distill, evaluate; leaves a student in OUT/student."""
    hold_memory()
    from vl2v.api import distill as work
    from vl2v.job.printing import run_json, run_text, show

    if not resume and config is None:
        for name, value in (("DATA", data), ("--teacher", teacher), ("--student", student)):
            if value is None:
                raise _lacking(name)
    settings = _settings(locals())
    done = work(
        data,
        teacher,
        student,
        out=out,
        held_out=held_out or None,
        budget=budget,
        resume=resume,
        places=make_places(cache, store),
        progress=make_progress(quiet, as_json),
        config=config,
        settings=settings,
    )
    if done is not None:
        show(run_json(done) if as_json else run_text(done))


@app.command()
@guarded
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's or a student's folder.")],
    data: DataArg,
    domain: Annotated[list[str] | None, typer.Option(help="Only this domain; may be repeated.")] = None,
    skip_bad: SkipBad = None,
    cache: CacheOpt = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure a student on a folder of labelled images."""
    hold_memory()
    from vl2v.api import evaluate as measure
    from vl2v.job.printing import show

    found = measure(
        run,
        data,
        domains=domain or (),
        skip_bad=bool(skip_bad),
        places=make_places(cache, None),
        progress=make_progress(quiet, as_json),
    )
    show(found.to_dict() if as_json else found.table())


@app.command()
@guarded
def predict(
    run: Annotated[Path, typer.Argument(help="A run's or a student's folder, or hf:user/name.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    output: Annotated[str, typer.Option("--format", help="table, json or csv.")] = "table",
    coverage: Annotated[
        float | None,
        typer.Option(help="Mark as unsure what is less sure than this share of the sources' validation images: 0.95."),
    ] = None,
    score: Annotated[str, typer.Option(help="What tells how sure: confidence or energy.")] = "confidence",
) -> None:
    """Classify images. Unreadable ones are reported in their place, and the exit code is then 3."""
    hold_memory()
    from vl2v.api import load
    from vl2v.job.measure import classify, find_images
    from vl2v.job.printing import FORMATS, show_answers

    if output not in FORMATS:
        raise ConfigError("No such format.", expected=", ".join(FORMATS), found=output, next_step="correct --format")
    paths = find_images(images)
    answers, drift = classify(load(run), paths, coverage=coverage, score=score)
    faults = show_answers(answers, output)
    if drift is not None and drift.unusual:
        print(f"warning: {drift.text}", file=sys.stderr)
    if faults:
        raise typer.Exit(3)


@app.command()
@guarded
def ledger(
    run: Annotated[Path | None, typer.Argument(help="Only what this run spent.")] = None,
    store: StoreOpt = None,
    as_json: Json = False,
) -> None:
    """List what was spent on what."""
    from vl2v.job.printing import ledger_json, ledger_table, show
    from vl2v.teacher.ledger import Ledger
    from vl2v.teacher.store import EmbeddingStore

    entries = Ledger(EmbeddingStore(make_places(None, store).store)).entries(str(run.resolve()) if run else None)
    show(ledger_json(entries) if as_json else ledger_table(entries))


@app.command()
@guarded
def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("runs/demo"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run the main job offline on drawings, beside two baselines (extra: demo)."""
    hold_memory()
    from vl2v.demo.job import demo as work
    from vl2v.job.printing import demo_json, demo_text, show

    done = work(out, make_progress(quiet, as_json))
    show(demo_json(done) if as_json else demo_text(done))


for attach in (
    attach_report,
    attach_export,
    attach_serve,
    attach_classes,
    attach_trust,
    attach_hub,
    attach_benchmark,
    attach_data,
    attach_teacher,
    attach_vendor,
):
    attach(app, guarded)


NESTED = {
    "data": ("held_out", "labels_per_class", "rest_unlabelled", "unlabelled", "skip_bad", "allow_missing_classes"),
    "teacher": ("views", "prompts", "zero_shot", "price_per_1000_images", "price_per_1000_texts"),
    "student": ("size",),
    "distill": ("learning_rate", "checkpoint_every", "weights", "steps"),
}
TOP = ("method", "image_weight", "batch_per_domain", "seed", "device", "precision", "workers")


def _settings(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given, nested as the settings are."""
    settings: dict[str, Any] = {
        part: {key: str(v) if isinstance(v := flags.get(key), Path) else v for key in keys}
        for part, keys in NESTED.items()
    }
    settings["data"]["held_out"] = flags.get("held_out") or None
    settings["data"]["held_out_classes"] = flags.get("held_out_class") or None
    settings["align"] = {"steps": flags.get("align_steps")}
    settings["tracking"] = flags.get("track") or None
    return settings | {key: flags.get(key) for key in TOP}


def _from_config(config: Path | None, part: str) -> str:
    from vl2v.task.folder import read_yaml

    content = read_yaml(config) if config else None
    spec = content.get(part, {}).get("spec") if isinstance(content, dict) else None
    if not isinstance(spec, str):
        raise _no_teacher()
    return spec


def _no_teacher() -> ConfigError:
    return _lacking("--teacher")


def _lacking(name: str) -> ConfigError:
    examples = {
        "DATA": "a folder of images",
        "--teacher": "e.g. --teacher open_clip:ViT-B-16/openai",
        "--student": "e.g. --student timm:resnet50.tv_in1k",
    }
    return ConfigError(f"{name} is missing.", expected=examples[name], found="nothing", next_step="vl2v distill --help")


def main() -> None:
    """Entry point of the command `vl2v`."""
    app()
