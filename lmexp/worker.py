"""`python -m lmexp.worker [-p PACKAGE]... RUN-OR-REQUEST`: one process of a run; reads run.json, never a command line.

A run folder is trained to its end; a request file (evaluation/evaluate-*.request.json) is evaluated.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import traceback
from pathlib import Path

from lmexp.errors import LmexpError, Stopped
from lmexp.redaction import redact_output, redact_text


def main(argv: list[str]) -> int:
    """Exit code 0 when done or stopped by a signal (state.json says which), 1 or 2 when failed."""
    parser = argparse.ArgumentParser(prog="python -m lmexp.worker")
    parser.add_argument("-p", dest="plugins", action="append", default=[])
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args(argv)
    from lmexp import plugins
    from lmexp.runs.requests import work

    try:
        plugins.trust_entry_points()
        plugins.trust(arguments.plugins)
        work(arguments.work)
    except Stopped:
        return 0
    except BaseException as error:
        traceback.print_exc()
        code = error.exit_code if isinstance(error, LmexpError) else 1
        _tell_launcher(error, code)
        return code
    return 0


def _tell_launcher(error: BaseException, code: int) -> None:
    """Say what went wrong, unless another process did so before."""
    from lmexp.runs.ranks import FAILURE_VARIABLE

    path = os.environ.get(FAILURE_VARIABLE)
    message = str(error) if isinstance(error, LmexpError) else f"{type(error).__name__}: {error}"
    if path:
        with contextlib.suppress(FileExistsError), open(path, "x", encoding="utf-8") as file:
            told = {"rank": int(os.environ.get("RANK", "0")), "message": redact_text(message), "exit_code": code}
            json.dump(told, file)


if __name__ == "__main__":
    redact_output()
    exit_code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)  # a rank whose peers died must not hang in their destructors
