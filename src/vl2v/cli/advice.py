"""Options of settings that a command lacks, for the messages of this command (see `vl2v.hints.fitting`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import get_args

from typer.models import OptionInfo

from vl2v.cli.settings import SETTINGS


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
