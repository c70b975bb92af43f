"""Every error lmexp raises on purpose.

    LmexpError               exit code 1: the run failed
    ├── LaunchError          a process could not be started, or one of several failed
    └── UserError            exit code 2: the input was wrong (also a ValueError)
        ├── ConfigError      a key, a value or a combination of them
        ├── DataError        a corpus or a cache
        ├── CheckpointError  a checkpoint that is missing, damaged or of an unknown format
        └── RunError         a run folder that is missing, busy or of an unknown format
    Stopped                  not a failure: a signal ended the run, which can be resumed

A message says where, what was expected, what was found and how to mend it. The command line prints it without a
traceback; `LMEXP_TRACEBACK=1` shows the traceback too.
"""

from __future__ import annotations

import signal

STOP_SIGNALS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "preempted",
    signal.SIGUSR1: "preempted",
    signal.SIGUSR2: "preempted",
}
"""Signal that asks a run to stop -> the state in which it leaves the run."""

EXIT_CODES = {"interrupted": 130, "preempted": 75}
"""State in which a signal left a run -> exit code of the command."""


class LmexpError(Exception):
    """Base of all errors below."""

    exit_code = 1


class LaunchError(LmexpError):
    """A process could not be started, or one of several failed."""


class UserError(LmexpError, ValueError):
    """The user's input was wrong."""

    exit_code = 2


class ConfigError(UserError):
    """A key, a value or a combination of them is wrong."""


class DataError(UserError):
    """A corpus or a cache can't be used."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged or of an unknown format."""


class RunError(UserError):
    """A run folder is missing, busy or of an unknown format."""


class Stopped(BaseException):
    """A signal ended the run: at a step boundary, its checkpoint written, or where there was nothing to save.

    Not an Exception, as KeyboardInterrupt isn't: a handler raises it anywhere, and nobody shall take it for an error.
    """

    def __init__(self, state: str, step: int | None) -> None:
        """step: of the checkpoint that was written; None where none was."""
        super().__init__(state if step is None else f"{state} at step {step}")
        self.state = state
        self.step = step

    def __reduce__(self) -> tuple[type[Stopped], tuple[str, int | None]]:
        return Stopped, (self.state, self.step)
