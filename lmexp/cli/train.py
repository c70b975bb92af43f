"""`lmexp train [from=RUN] [OVERRIDES]`."""

from __future__ import annotations

from lmexp.cli.options import answer, parse


def run(argv: list[str]) -> int:
    """Compose, train, evaluate, report."""
    options = parse("train", "Train, evaluate and report.", argv)
    if answer("train", options):
        return 0
    from lmexp.config.compose import compose
    from lmexp.config.freeze import plain_config

    composed = compose(options.overrides, config_dirs=options.config_dirs)
    from lmexp.api import start_and_launch

    start_and_launch(
        composed.config, plain_config(composed.node), composed.overrides, print, from_run=composed.from_run
    )
    return 0
