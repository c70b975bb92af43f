"""Streams of a process that nobody may read any more: `lmexp train | tee log`, and a Ctrl-C, which ends tee first."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO, cast


class Unbreakable:
    """A stream that writes into the void once its reader is gone; a run is worth more than what it says."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if anybody still reads."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._let_go()
            return len(text)

    def flush(self) -> None:
        """Hand on what was written, if anybody still reads."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._let_go()

    def _let_go(self) -> None:
        void = os.open(os.devnull, os.O_WRONLY)
        os.dup2(void, self._stream.fileno())
        os.close(void)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def outlive_readers() -> None:
    """Make the standard streams of this process unbreakable."""
    sys.stdout, sys.stderr = (cast(TextIO, Unbreakable(stream)) for stream in (sys.stdout, sys.stderr))
