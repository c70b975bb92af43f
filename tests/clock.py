"""Time for tests of what is said now and then."""

from __future__ import annotations


class Clock:
    """A monotonic clock that goes as told."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now
