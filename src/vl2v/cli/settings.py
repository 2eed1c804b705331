"""Command-line options generated from the settings (see `vl2v.options.Option`), and `--set` for all other settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from typer.models import ArgumentInfo, OptionInfo

from vl2v.cli.common import make_progress, pair
from vl2v.nested import merge, nested
from vl2v.options import Option, fields_of
from vl2v.progress import warn
from vl2v.schema import CoreSettings, RunSettings

SET = Annotated[
    list[str] | None, typer.Option("--set", help="KEY=VALUE of any setting (see docs/configuration.md); repeatable.")
]

COLUMNS = ("data.image", "data.label", "data.domain", "data.split", "data.group")
"""Settings that name the columns of a table."""
ARGUMENTS = {"data": "data.root", "teacher": "teacher.spec", "classes": "data.classes", "budget": "budget"}
"""Settings that commands set by an argument or an option of their own."""


@dataclass(frozen=True)
class Setting:
    """A setting that has its own option.

    Attributes:
        key: dotted key, such as ``data.image``.
    """

    key: str
    field: FieldInfo
    option: Option

    @property
    def flags(self) -> tuple[str, ...]:
        """Names of the option, the main one first."""
        return self.option.names(self.key.rpartition(".")[2])

    @property
    def name(self) -> str:
        """Keyword of the option in a command."""
        return self.flags[0].lstrip("-").replace("-", "_")

    def parameter(self, text: str | None) -> inspect.Parameter:
        """Parameter of a command for typer; its value is None if the option is not given.

        Args:
            text: help of the option; None takes the first sentence of the setting's docstring.
        """
        kind: Any = self.option.kind or _kind(self.field.annotation)
        flags = self.flags if kind is not bool or self.field.default is False else ()  # typer adds --no-...
        text = text or (self.field.description or "").partition("\n\n")[0].replace("\n", " ")
        kind = Annotated[kind | None, typer.Option(*flags, help=text, rich_help_panel=self.option.panel)]
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)

    def plain(self, value: Any) -> Any:
        """Convert a value from the command line to its form in YAML; None if the option was not given."""
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, list):
            return (",".join(value) if self.option.joined else value) or None
        return value


def _kind(annotation: Any) -> Any:
    """Return the type of the option of a field: str if pydantic parses it."""
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    if get_origin(annotation) is tuple:
        return list[str]
    if annotation in (bool, int, float, Path):
        return annotation
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    return _kind(kinds[0]) if len(kinds) == 1 and get_origin(annotation) is not Literal else str


SETTINGS = [
    Setting(key, field, mark)
    for model in (CoreSettings, RunSettings)
    for key, field in fields_of(model)
    for mark in field.metadata
    if isinstance(mark, Option)
]


def with_settings(
    *panels: str,
    assign: bool = True,
    fixed: Sequence[str] = (),
    texts: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command with the options of sections of the help or of single keys.

    The command receives the given values as its keyword `settings`, nested. Options take precedence over `--set`.

    A value of ``--set`` that another one replaces leads to a warning.

    Args:
        panels: sections of the help, or dotted keys.
        assign: whether the command has `--set`.
        fixed: settings, or blocks of settings, that ``--set`` cannot change in this command.
        texts: by dotted key, the help of options that mean something else than in a run.
    """
    selection = [s for panel in panels for s in SETTINGS if panel in (s.option.panel, s.key)]
    texts = texts or {}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        declared = inspect.signature(command, eval_str=True).parameters
        argument_names = {
            name: name.upper() if isinstance(get_args(p.annotation)[-1], ArgumentInfo) else f"--{name}"
            for name, p in declared.items()
            if name in ARGUMENTS
        }
        parameters_of_command = [p for name, p in declared.items() if name != "settings"]
        assigned = inspect.Parameter("assigned", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=SET)

        @wraps(command)
        def inner(**values: Any) -> None:
            by_key = {s.key: s.plain(values.pop(s.name, None)) for s in selection}
            items = values.pop("assigned", None) or ()
            replacing = [(s.flags[0], s.key, by_key[s.key]) for s in selection]
            replacing += [(argument_names[name], ARGUMENTS[name], values.get(name)) for name in argument_names]
            for text in _replaced(items, replacing):
                warn(make_progress(quiet=True, as_json=bool(values.get("as_json"))), text)
            command(**values, settings=settings_of(items, by_key))

        parameters_of_command = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters_of_command]
        parameters = [
            *(s.parameter(texts.get(s.key)) for s in selection),
            *parameters_of_command,
            *([assigned] if assign else []),
        ]
        inner.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        inner.__annotations__ = {p.name: p.annotation for p in parameters}
        inner.fixed = tuple(fixed)  # type: ignore[attr-defined]
        return inner

    return decorate


def _replaced(items: Iterable[str], options: Iterable[tuple[str, str, Any]]) -> Iterator[str]:
    """Describe the values of ``--set`` that have no effect because a later one or an option replaces them.

    Args:
        items: the ``KEY=VALUE`` items.
        options: options and arguments: name, dotted key, and value; None if the option was not given.
    """
    pairs = [(f"--set {item}", *leaf) for item in items for leaf in _leaves(*pair(item, "--set"))]
    pairs += [(f"{flag} {value}", key, value) for flag, key, value in options if value is not None]
    last = {key: (text, value) for text, key, value in pairs}
    for item, key, value in pairs:
        if last[key][1] is not value and str(last[key][1]) != str(value):
            yield f"{item} has no effect next to {last[key][0]}"


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Iterate over the dotted keys of a value that may be a mapping."""
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield from _leaves(f"{key}.{name}", below)
    else:
        yield key, value


def settings_of(assigned: Iterable[str], by_key: Mapping[str, Any]) -> dict[str, Any]:
    """Merge ``KEY=VALUE`` items and values by dotted key, which take precedence; None is ignored."""
    return merge(nested(dict(pair(item, "--set") for item in assigned)), nested(by_key))


def options_of(command: Callable[..., None]) -> set[str]:
    """Return the names of the options of a command."""
    options = set()
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        for mark in get_args(parameter.annotation)[1:]:
            if isinstance(mark, OptionInfo):
                decls = [mark.default, *(mark.param_decls or ())]  # typer takes the first name for the default
                flags = [flag for decl in decls if isinstance(decl, str) for flag in decl.split("/") if flag[:1] == "-"]
                plain = f"--{name.replace('_', '-')}"
                options |= set(flags or [plain, plain.replace("--", "--no-", 1)])
    return options


def forms_of(command: Callable[..., None]) -> dict[str, str]:
    """Return what replaces the options of settings that a command lacks, for `vl2v.hints.advising`."""
    options, fixed = options_of(command), getattr(command, "fixed", ())
    forms: dict[str, str] = {}
    for setting in SETTINGS:
        settable = "--set" in options and not {setting.key, setting.key.partition(".")[0]} & set(fixed)
        boolean = isinstance(setting.field.default, bool)
        forms |= dict.fromkeys(setting.flags, f"{setting.key}={'true' if boolean else ''}" if settable else "")
        if boolean:
            forms[setting.flags[0].replace("--", "--no-", 1)] = f"{setting.key}=false" if settable else ""
    return {flag: form for flag, form in forms.items() if flag not in options}
