"""Errors for users. Each message states what was expected, what was found, and what to do next."""

from __future__ import annotations

from vl2v.hints import fitting
from vl2v_runtime.errors import worded


class Vl2vError(Exception):
    """Base class of all errors. `exit_code` is the exit code of the command line.

    Args:
        problem: what is wrong, in one sentence.
        expected: what would have been valid.
        found: what was found instead.
        next_step: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, problem: str, *, expected: str = "", found: str = "", next_step: str = "") -> None:
        self.problem, self.expected, self.found = map(fitting, (problem, expected, found))
        self.next_step = fitting(next_step, step=True)
        super().__init__(worded(self.problem, self.expected, self.found, self.next_step))

    def __reduce__(self) -> tuple[object, ...]:
        """Support pickling, for errors from other processes, independently of the arguments of the class."""
        return Exception.__new__, (type(self), *self.args), self.__dict__


class ConfigError(Vl2vError):
    """A setting, an option or a YAML file is not valid."""

    exit_code = 2


class DataError(Vl2vError):
    """The images or their folder layout are not valid."""

    exit_code = 3


class TeacherError(Vl2vError):
    """A teacher cannot be opened, or its response is not usable."""

    exit_code = 4


class BudgetError(Vl2vError):
    """Continuing would exceed the budget."""

    exit_code = 5


class StudentError(Vl2vError):
    """A student cannot be built, loaded or used."""

    exit_code = 6


class TrainingError(Vl2vError):
    """Training cannot continue, for example because the loss is not finite."""

    exit_code = 7


class RunError(Vl2vError):
    """A run folder is missing, in use, not empty, or not suitable."""

    exit_code = 8


class DiskFullError(Vl2vError):
    """The disk has no space for the file."""

    exit_code = 9


class HubError(Vl2vError):
    """A repository on the hub cannot be written or read."""

    exit_code = 12


class AccessError(Vl2vError):
    """A file, a folder or another resource of this machine cannot be used."""

    exit_code = 13


class DamagedError(Vl2vError):
    """A file does not contain what was written to it."""

    exit_code = 14


class Interrupted(Vl2vError):  # noqa: N818 - not a fault: the user wanted it
    """The user stopped the run; its state is saved."""

    exit_code = 130


class MissingExtraError(Vl2vError):
    """A required optional package is not installed.

    Args:
        feature: the feature that needs the package.
        extra: the extra that installs the package.
        package: the package that could not be imported.
    """

    exit_code = 10

    def __init__(self, feature: str, extra: str, package: str) -> None:
        super().__init__(
            f"{feature} needs an optional package.",
            expected=f"the package {package}",
            found="it is not installed",
            next_step=f'pip install "vl2v[{extra}]"',
        )


class UnexpectedError(Vl2vError):
    """A bug in vl2v."""

    exit_code = 70
