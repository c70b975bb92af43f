"""Arguments of the commands that take a path and no overrides."""

from __future__ import annotations

import argparse
from pathlib import Path

from lmexp.cli.main import LmexpUsageError


def parse_path(command: str, description: str, argv: list[str]) -> Path:
    """The one run folder that is named."""
    parser = argparse.ArgumentParser(prog=f"lmexp {command}", description=description, exit_on_error=False)
    parser.add_argument("run", type=Path, nargs="?", help="folder of the run, as `lmexp runs` shows it")
    try:
        given, rest = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise LmexpUsageError(f"lmexp {command}: {error}") from None
    if given.run is None or rest:
        extra = f"; {rest[0]!r} is not understood" if rest else ""
        raise LmexpUsageError(f"lmexp {command}: expected one run folder, lmexp {command} RUN{extra}")
    path: Path = given.run
    return path
