"""`lmexp generate run=RUN prompt=TEXT`."""

from __future__ import annotations

import shlex
from pathlib import Path

from lmexp.cli.options import answer, parse


def run(argv: list[str]) -> int:
    """Print text as it is sampled."""
    options = parse("generate", "Sample text: generate run=RUN prompt=TEXT temperature=0.8.", argv)
    if answer("generate", options):
        return 0
    from lmexp.config.compose import compose

    config = compose(options.overrides, command="generate", config_dirs=options.config_dirs).config
    from lmexp.config.freeze import require_plugins

    require_plugins(Path(config.run), shlex.join(["generate", *argv]))
    from lmexp.runs.generate import generate

    for piece in generate(Path(config.run), config):
        print(piece, end="", flush=True)
    return 0
