"""Everything that ends a command with a sentence. Each says which object, which field, what was found, what to do.

PrismError
├── BadRunError             the file or the object cannot be carried out as it stands; carries every problem (exit code 2)
├── RunFolderError     the run folder cannot be used
│   └── RunFolderBusyError  another `prism run` works in it
├── NoSuchRunError          there is no run where one was asked for
├── SettingsError           the operator's own environment does not hold
└── ClusterError            the API server refused, or cannot be reached
    └── StartRefusedError   it does not take an attempt's cluster as things stand
"""

from __future__ import annotations

from collections.abc import Sequence

from prism_operator.problems import Problem


class PrismError(Exception):
    """Do not try again unchanged: the sentence says what to change."""

    exit_code = 1


class BadRunError(PrismError):
    """A PrismRun with problems, all of them at once."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class RunFolderError(PrismError):
    """The run folder is unwritable, full, or holds another run."""


class RunFolderBusyError(RunFolderError):
    """One run folder has one runner."""


class NoSuchRunError(PrismError):
    """Nothing to show."""


class SettingsError(PrismError):
    """The operator cannot start like this."""


class ClusterError(PrismError):
    """What the API server said, and to what."""


class StartRefusedError(ClusterError):
    """For the moment, or until somebody corrects what it names: it is tried again."""
