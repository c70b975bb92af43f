"""`lmexp [-p PACKAGE]... COMMAND ...`: finds the command, and turns errors into messages and exit codes.

Exit codes: 0 done, 1 the run failed, 2 the input was wrong, 75 preempted (asked to stop by a signal; can be resumed),
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from contextlib import nullcontext
from typing import NoReturn

from lmexp import __version__
from lmexp.errors import EXIT_CODES, LmexpError, Stopped
from lmexp.output import outlive_readers
from lmexp.redaction import redact_output
from lmexp.stopping import StopRequest

COMMANDS = {
    "train": "train, evaluate and report; without arguments a small GPT on the Python standard library",
    "prepare": "make the tokens that train would use ahead of time, with a data card",
    "evaluate": "measure a run's model: evaluate run=RUN [OVERRIDES]",
    "generate": "sample text: generate run=RUN prompt=TEXT",
    "export": "write a model in Hugging Face's format: export run=RUN to=FOLDER",
    "resume": "go on with a run where it stopped: resume RUN",
    "compare": "say which of several runs is better, and how sure that is: compare RUN RUN",
    "report": "write a run's report again: report RUN; print it: report RUN --text",
    "runs": "list the runs",
    "doctor": "check the installation",
}
INTERRUPTED = EXIT_CODES["interrupted"]
STOPPABLE = ("train", "resume")
"""Commands that any of the stop signals ends with an exit code that says so."""

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
    outlive_readers()
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
        return EXIT_CODES[stopped.state]
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    except LmexpError as error:
        if os.environ.get("LMEXP_TRACEBACK"):
            raise
        print(printable("\n".join(["error:", *(f"  {line}" for line in str(error).splitlines())])), file=sys.stderr)
        return error.exit_code


def printable(text: str) -> str:
    """Text of files for a terminal: what would control it, or turn its letters round, is shown as an escape."""
    escaped = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", lambda m: ascii(m[0])[1:-1], text)
    return escaped.encode(errors="backslashreplace").decode()


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
    with StopRequest().installed() if rest[0] in STOPPABLE else nullcontext():
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
