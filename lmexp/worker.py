"""`python -m lmexp.worker [-p PACKAGE]... RUN-OR-REQUEST`: one process of a run; reads run.json, never a command line.

A run folder is trained to its end; a request file (evaluation/evaluate-*.request.json) is evaluated.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from pathlib import Path

from lmexp.errors import EXIT_CODES, LmexpError, Stopped
from lmexp.output import outlive_readers
from lmexp.parent import LAUNCHER_VARIABLE, stop_with_parent
from lmexp.redaction import redact_output
from lmexp.stopping import StopRequest, leave_even_if_deaf


def main(argv: list[str]) -> int:
    """Exit code 0 when done or when all processes agreed to stop, 1 or 2 when failed.

    75 or 130 where a signal stopped this process alone: an exit code that makes torchrun stop the others too.
    """
    parser = argparse.ArgumentParser(prog="python -m lmexp.worker")
    parser.add_argument("-p", dest="plugins", action="append", default=[])
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args(argv)
    from lmexp import plugins
    from lmexp.runs.ranks import tell_launcher
    from lmexp.runs.requests import work

    try:
        with StopRequest().installed():
            leave_even_if_deaf(_leave)
            if LAUNCHER_VARIABLE in os.environ:
                stop_with_parent(int(os.environ[LAUNCHER_VARIABLE]))
            plugins.trust_entry_points()
            plugins.trust(arguments.plugins)
            work(arguments.work)
    except Stopped as stopped:
        if stopped.step is not None:  # all are here
            return 0
        tell_launcher(stopped)
        return EXIT_CODES[stopped.state]
    except KeyboardInterrupt as interrupt:
        tell_launcher(interrupt)
        return EXIT_CODES["interrupted"]
    except BaseException as error:
        traceback.print_exc()
        tell_launcher(error)
        return error.exit_code if isinstance(error, LmexpError) else 1
    return 0


def _leave() -> None:
    """End this process as if its handler had been called."""
    from lmexp.runs.ranks import tell_launcher

    tell_launcher(Stopped("preempted", None))
    os._exit(EXIT_CODES["preempted"])


if __name__ == "__main__":
    redact_output()
    outlive_readers()
    exit_code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)  # a rank whose peers died must not hang in their destructors
