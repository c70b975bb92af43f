"""`lmexp resume RUN [OVERRIDES]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from lmexp.cli.arguments import Parser
from lmexp.config.changes import ACCEPTED

EPILOG = f"""
{ACCEPTED};
anything else is for a new run: lmexp train from=RUN [OVERRIDES]
  lmexp resume RUN trainer.devices=2 logger.sync=off
  lmexp resume RUN trainer.max_steps=2000       also where the run is done: it goes on from its last checkpoint
"""


def run(argv: list[str]) -> int:
    """Go on where the run stopped."""
    parser = Parser(
        prog="lmexp resume",
        description="Go on with a run where it stopped, or with a finished one to a further horizon.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="folder of the run, as `lmexp runs` shows it")
    parser.add_argument("overrides", nargs="*", help="key=value, of what resume accepts")
    parser.add_argument(
        "--allow-changed-data",
        action="store_true",
        help="read the corpus as it is now, and go on with it even where it has changed",
    )
    given = parser.parse_intermixed_args(argv)
    from lmexp.api import resume

    resume(given.run, given.overrides, allow_changed_data=given.allow_changed_data)
    return 0
