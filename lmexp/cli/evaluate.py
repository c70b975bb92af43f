"""`lmexp evaluate run=RUN [OVERRIDES]`."""

from __future__ import annotations

import shlex
from pathlib import Path

from lmexp.cli.options import answer, parse


def run(argv: list[str]) -> int:
    """Measure a run's model again."""
    options = parse("evaluate", "Measure a run's model: evaluate run=RUN weights=best|latest|STEP.", argv)
    if answer("evaluate", options):
        return 0
    from lmexp.config.compose import compose

    composed = compose(options.overrides, command="evaluate", config_dirs=options.config_dirs)
    from lmexp.config.freeze import require_plugins

    require_plugins(Path(composed.config.run), shlex.join(["evaluate", *argv]))
    from lmexp.api import evaluate_composed

    evaluate_composed(composed)
    return 0
