"""`python -m lmexp.worker [-p PACKAGE]... RUN-OR-REQUEST`: one process of a run; reads run.json, never a command line.

A run folder is trained to its end; a request file (evaluation/evaluate-*.request.json) is evaluated.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lmexp.errors import Stopped


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when done or stopped by a signal (state.json says which), 1 or 2 when failed."""
    parser = argparse.ArgumentParser(prog="python -m lmexp.worker")
    parser.add_argument("-p", dest="plugins", action="append", default=[])
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args(argv)
    from lmexp import plugins
    from lmexp.runs.requests import work

    plugins.trust_entry_points()
    plugins.trust(arguments.plugins)
    try:
        work(arguments.work)
    except Stopped:
        return 0
    return 0


if __name__ == "__main__":
    code = 1
    try:
        code = main()
    except BaseException as error:
        import traceback

        traceback.print_exc()
        code = getattr(error, "exit_code", 1)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a rank whose peers died must not hang in their destructors
