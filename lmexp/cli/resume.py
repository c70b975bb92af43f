"""`lmexp resume RUN`."""

from __future__ import annotations

from pathlib import Path

from lmexp.cli.arguments import Parser


def run(argv: list[str]) -> int:
    """Go on where the run stopped."""
    parser = Parser(prog="lmexp resume", description="Go on with a run where it stopped.")
    parser.add_argument("run", type=Path, help="folder of the run, as `lmexp runs` shows it")
    parser.add_argument(
        "--allow-changed-data",
        action="store_true",
        help="read the corpus as it is now, and go on with it even where it has changed",
    )
    given = parser.parse_args(argv)
    from lmexp.api import resume

    resume(given.run, allow_changed_data=given.allow_changed_data)
    return 0
