"""`lmexp prepare [OVERRIDES]`."""

from __future__ import annotations

import sys

from lmexp.cli.main import INTERRUPTED
from lmexp.cli.options import answer, parse


def run(argv: list[str]) -> int:
    """Make the tokens that `lmexp train` with the same overrides would use, and say what they are."""
    options = parse("prepare", "Make the tokens that train would use, ahead of time.", argv)
    if answer("prepare", options):
        return 0
    from lmexp.config.compose import compose

    config = compose(options.overrides, config_dirs=options.config_dirs).config
    from lmexp.api import prepare
    from lmexp.reports.data_card import as_text

    try:
        cache = prepare(config)
    except KeyboardInterrupt:
        print("stopped; what is done is kept, and the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    print(as_text(cache))
    return 0
