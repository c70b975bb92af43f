"""How preparing a corpus tells what it does."""

from __future__ import annotations


class Progress:
    """Tells nobody; a terminal or a test overrides both methods."""

    def say(self, line: str) -> None:
        """A line for the log."""

    def advance(self, what: str, done: int, total: int) -> None:
        """So many bytes of so many are done; at done == total there is no more of this work."""


silent = Progress()
