"""`lmexp resume RUN`."""

from __future__ import annotations

from lmexp.cli.arguments import parse_path


def run(argv: list[str]) -> int:
    """Go on where the run stopped."""
    path = parse_path("resume", "Go on with a run where it stopped.", argv)
    from lmexp.api import resume

    resume(path)
    return 0
