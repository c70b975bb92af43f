"""`lmexp export run=RUN to=FOLDER`."""

from __future__ import annotations

import shlex
from pathlib import Path

from lmexp.cli.options import answer, parse


def run(argv: list[str]) -> int:
    """Write a run's model in Hugging Face's format."""
    options = parse("export", "Write a run's model in Hugging Face's format: export run=RUN to=FOLDER.", argv)
    if answer("export", options):
        return 0
    from lmexp.config.compose import compose

    config = compose(options.overrides, command="export", config_dirs=options.config_dirs).config
    from lmexp.config.freeze import require_plugins

    require_plugins(Path(config.run), shlex.join(["export", *argv]))
    from lmexp.runs.export import export

    export(Path(config.run), config, print)
    return 0
