"""The method of docs/how-to/add-a-method.md from a separate package is trained, resumed and used for predictions."""

from __future__ import annotations

import json
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_dataset import Bench, metrics
from typer.testing import CliRunner

import vl2v
from other_packages import install_package
from vl2v.benchmark.protocol import Origin, key_of, make_variants
from vl2v.cli import app
from vl2v.config import RunConfig
from vl2v.errors import ConfigError, Interrupted
from vl2v.interrupts import stop_when
from vl2v.locations import StoragePaths
from vl2v.method.registry import BUILT_IN, METHODS
from vl2v.validation import parse

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "add-a-method.md"
BASE: dict[str, Any] = {"data": {"root": "x"}, "teacher": {"spec": "file:x"}, "student": {"spec": "timm:x"}}
ORIGIN = Origin("d", "t", "s")
Install = Callable[..., None]


def config(**more: Any) -> RunConfig:
    return parse(RunConfig, BASE | more, "the settings")


def example() -> tuple[str, str]:
    """The page's module, and the entry point that it registers."""
    text = PAGE.read_text(encoding="utf-8")
    (code,), (entries,) = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("python", "toml"))
    name, value = re.findall(r'(\w+) = "(.*)"', entries)[0]
    return code, f"[vl2v.methods]\n{name} = {value}\n"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a module and its metadata with the entry points on the path, as pip would."""
    site, loaded, modules = tmp_path / "site", dict(METHODS._loaded), set(sys.modules)
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def put(code: str, entries: str, module: str = "my_method") -> None:
        install_package(site, module, code, entries)

    yield put
    METHODS._loaded.clear()
    METHODS._loaded.update(loaded)
    for name in set(sys.modules) - modules:
        if name.endswith("_method"):
            del sys.modules[name]


def distill(bench: Bench, out: Path, resume: bool = False) -> vl2v.Student:
    arguments: dict[str, Any] = {
        "storage": StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite"),
        "report": False,
    }
    if not resume:
        small = {"student": {"size": 32}, "align": {"steps": 4}, "distill": {"steps": 4, "checkpoint_every": 3}}
        settings_of_method = {"method": "mine", "mine": {"weight": 0.3}, "batch_per_domain": 4, "threads": 1}
        settings = small | settings_of_method | {"device": "cpu", "workers": 0}
        arguments |= {"data": bench.data, "teacher": bench.teacher, "student": bench.student}
        arguments |= {"settings": settings, "held_out": ["rose"], "recipe": "paper"}
    run = vl2v.distill(out=out, resume=resume, **arguments)
    assert run is not None
    return run.student


def test_the_method_is_trained_resumed_and_its_student_predicts(bench: Bench, tmp_path: Path, install: Install) -> None:
    install(*example())
    student, stopped = distill(bench, tmp_path / "run"), tmp_path / "stopped"
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (stored["method"], stored["mine"]) == ("mine", {"weight": 0.3})
    for line in metrics(tmp_path / "run"):
        assert list(line["parts"]) == ["image", "text", "divergence"]
        assert line["parts"]["divergence"] > 0
        assert sum(line["parts"].values()) == pytest.approx(sum(line["losses"]) / len(line["losses"]), abs=1e-6)
    polls = iter(range(100))
    with pytest.raises(Interrupted), stop_when(lambda: next(polls) >= 5):  # in Distill, between two validations
        distill(bench, stopped)
    assert json.loads((stopped / "state.json").read_text())["parts"]["divergence"] > 0
    distill(bench, stopped, resume=True)
    weights = [(run / "student" / "model.safetensors").read_bytes() for run in (tmp_path / "run", stopped)]
    assert weights[0] == weights[1]
    assert metrics(stopped) == metrics(tmp_path / "run")
    assert student.predict(bench.data / "rose" / "bar" / "0.png")[0] in student.classes


def test_the_example_is_short() -> None:
    code, _ = example()
    assert len([line for line in code.splitlines() if line.strip()]) <= 30


def test_settings_of_the_method_are_read_like_others(install: Install) -> None:
    install(*example())
    assert "mine" in METHODS
    assert "my_method" not in sys.modules, "nothing is imported before the method is used"
    assert list(METHODS) == [*BUILT_IN, "mine"]
    assert "mine" not in config().model_dump()
    chosen = config(method="mine")
    assert chosen.method_settings.weight == 0.5
    assert chosen.model_dump(mode="json")["mine"] == {"weight": 0.5}
    other = config(method="mine", mine={"weight": 0.3})
    for settings in (chosen, other, config(mine={"weight": 0.3})):
        assert parse(RunConfig, yaml.safe_load(settings.to_yaml()), "config.yaml") == settings
        assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 - trusted
    assert key_of(chosen, ORIGIN) != key_of(other, ORIGIN)
    with pytest.raises(ConfigError, match=r"(?s)2 faults.*mine\.weight: .*\(found 'much'\).*mine\.heat: Extra inputs"):
        config(method="mine", mine={"weight": "much", "heat": 1})
    with pytest.raises(ConfigError, match=r"mine: Input should be keys and values \(found 3\)"):
        config(method="mine", mine=3)
    with pytest.raises(ConfigError, match=r"or 'mine', or .*\(found 'yours'\)"):
        config(method="yours")
    assert make_variants(("mine",), {})["mine"].title == "Dual loss and divergence"


def test_without_the_package_its_name_is_unknown() -> None:
    with pytest.raises(ConfigError, match=r"(?s)method: Input should be 'adip'.*\(found 'mine'\).*mine: Extra inputs"):
        config(method="mine", mine={"weight": 0.3})


@pytest.mark.parametrize(
    ("code", "entry", "message"),
    [
        ("import a_package_that_is_missing", "x_method:METHOD", "ModuleNotFoundError: No module named 'a_package_"),
        ("METHOD = 1 / 0", "x_method:METHOD", "ZeroDivisionError"),
        ("", "x_method:METHOD", "AttributeError.*METHOD"),
        ("METHOD = 3", "x_method:METHOD", "found: int"),
        ("from vl2v.method.adip import ADIP as METHOD", "x_method:METHOD", "found: the method adip"),
    ],
)
def test_a_broken_package_is_reported_and_does_not_affect_others(
    install: Install, code: str, entry: str, message: str
) -> None:
    install(code, f"[vl2v.methods]\nbroken = {entry}\n", "x_method")
    install(*example())
    with pytest.raises(ConfigError, match=rf"(?s)The method broken of x-method cannot be used.*{message}.*next: "):
        config(method="broken")
    with pytest.raises(ConfigError, match="The method broken of x-method cannot be used"):
        make_variants(("broken",), {})
    assert config(method="mine").method == "mine"
    assert config(method="kd").method == "kd"
    assert list(make_variants(("erm", "mine"), {})) == ["erm", "mine"]
    with pytest.raises(ConfigError, match="'broken' or 'mine'"):
        config(method="yours")


def test_existing_names_are_refused(install: Install) -> None:
    code, _ = example()
    install(code.replace('"mine"', '"seed"'), "[vl2v.methods]\nseed = a_method:METHOD\n", "a_method")
    with pytest.raises(ConfigError, match="a name that is not a key of the settings"):
        config(method="seed")
    assert config(seed=3).seed == 3
    install(code.replace('"mine"', '"kd"'), "[vl2v.methods]\nkd = b_method:METHOD\n", "b_method")
    assert config(method="kd").method_settings.temperature == 2, "the method of vl2v itself"
    for module in ("c_method", "d_method"):
        install(code, f"[vl2v.methods]\nmine = {module}:METHOD\n", module)
    with pytest.raises(ConfigError, match="The method mine of c-method and d-method cannot be used"):
        config(method="mine")


def test_the_command_line_reports_a_broken_package(install: Install, bench: Bench, tmp_path: Path) -> None:
    install("import missing_x", "[vl2v.methods]\nbroken = x_method:METHOD\n", "x_method")
    arguments = ["distill", str(bench.data), "--teacher", bench.teacher, "--student", bench.student]
    done = CliRunner().invoke(app, [*arguments, "--method", "broken", "--out", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert "error: The method broken of x-method cannot be used." in done.output
    assert "repair or uninstall x-method" in done.output
    assert not (tmp_path / "run").exists()
