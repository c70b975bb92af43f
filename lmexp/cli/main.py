"""`lmexp [-p PACKAGE]... COMMAND ...`: finds the command, and turns errors into messages and exit codes.

Exit codes: 0 done, 1 the run failed, 2 the input was wrong, 75 preempted (asked to stop by a signal; can be resumed),
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import NoReturn

from lmexp import __version__
from lmexp.errors import LmexpError, Stopped
from lmexp.redaction import redact_output

COMMANDS = {
    "train": "train, evaluate and report; without arguments a small GPT on the Python standard library",
    "prepare": "make the tokens that train would use ahead of time, with a data card",
    "evaluate": "measure a run's model: evaluate run=RUN [OVERRIDES]",
    "generate": "sample text: generate run=RUN prompt=TEXT",
    "resume": "go on with a run where it stopped: resume RUN",
    "report": "write a run's report again: report RUN",
    "runs": "list the runs",
    "doctor": "check the installation",
}
PREEMPTED = 75
INTERRUPTED = 130

USAGE = """lmexp {version}: experiments with language models, from one configuration

usage: lmexp [-p PACKAGE]... COMMAND [ARGUMENTS]

{commands}

  -p PACKAGE    trust a package of yours: its registered kinds and the classes that `kind: custom` names
  --shell-completion install=SHELL    print the script that makes <TAB> complete; SHELL is bash, zsh or fish
  --help, --version

`lmexp train --help` tells about overrides. For tracebacks of user errors set LMEXP_TRACEBACK=1.
"""


def entry() -> NoReturn:
    """The console script."""
    redact_output()
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    if "torch" in sys.modules:
        os._exit(code)  # tearing down an interpreter with torch and W&B takes a second
    sys.exit(code)


def main(argv: list[str]) -> int:
    """Run a command; returns the exit code."""
    try:
        return _main(argv)
    except Stopped as stopped:
        return INTERRUPTED if stopped.state == "interrupted" else PREEMPTED
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    except LmexpError as error:
        if os.environ.get("LMEXP_TRACEBACK"):
            raise
        print("\n".join(["error:", *(f"  {line}" for line in str(error).splitlines())]), file=sys.stderr)
        return error.exit_code


def _main(argv: list[str]) -> int:
    packages, rest = packages_and_rest(argv)
    if not rest or rest[0] in ("-h", "--help"):
        listing = "\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())
        print(USAGE.format(version=__version__, commands=listing), end="")
        return 0 if rest else 2
    if rest[0] == "--version":
        print(__version__)
        return 0
    if rest[0] in ("-sc", "--shell-completion"):
        from lmexp.cli import completion

        return completion.run(rest[1:])
    if rest[0] not in COMMANDS:
        from lmexp.plugins import did_you_mean

        hint = did_you_mean(rest[0], COMMANDS)
        raise LmexpUsageError(f"there is no command {rest[0]!r}{hint}; one of {', '.join(COMMANDS)}")
    if rest[0] not in ("runs", "doctor"):
        from lmexp import plugins

        plugins.trust_entry_points()
        plugins.trust(packages)
    command = importlib.import_module(f"lmexp.cli.{rest[0]}")
    code: int = command.run(rest[1:])
    return code


class LmexpUsageError(LmexpError):
    """The command line can't be understood."""

    exit_code = 2


def packages_and_rest(argv: list[str]) -> tuple[list[str], list[str]]:
    """Names given with -p before the command, and the rest."""
    packages: list[str] = []
    rest = list(argv)
    while rest and rest[0].startswith("-p"):
        option = rest.pop(0)
        name = option[2:].lstrip("=") or (rest.pop(0) if rest else "")
        if not name:
            raise LmexpUsageError("-p needs the name of a package: lmexp -p my_pkg train ...")
        packages.append(name)
    return packages, rest
