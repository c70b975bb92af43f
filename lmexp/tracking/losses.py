"""losses.f64: the loss of every optimizer step, bit for bit, so that two runs can be compared step by step.

Format "lmexp.losses", version 1: 16 bytes of header, then one little-endian float64 a step, in nats per target, that
of step 1 first. No two runs of a config differ in it on the same software and hardware; receipt.json holds its digest.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmexp.errors import RunError
from lmexp.reading import open_file

HEADER = b"lmexp.losses 1\n\n"
ITEM_BYTES = 8


class LossFile:
    """Appends the losses of steps to a file that is made with the first of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1
        self._n_steps = 0

    def append(self, first_step: int, losses: Sequence[float]) -> None:
        """Add the losses of first_step and those after it. RunError unless it is the step after the last one here."""
        if self._descriptor < 0:
            self._open()
        if first_step != self._n_steps + 1:
            raise RunError(
                f"{self.path}: it holds the losses of {self._n_steps} steps, and those of step {first_step} come next; "
                f"expected {first_step - 1}; the file is damaged: go on from an older checkpoint, or start anew"
            )
        content = struct.pack(f"<{len(losses)}d", *losses)
        if os.write(self._descriptor, content) != len(content):
            raise OSError(f"{self.path}: not all losses could be written; is the disk full?")
        self._n_steps += len(losses)

    def sync(self) -> None:
        """Return when all losses so far would survive a power cut."""
        if self._descriptor >= 0:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if os.fstat(self._descriptor).st_size > 0:
            self._n_steps = len(read_losses(self.path))
        else:
            os.write(self._descriptor, HEADER)


def read_losses(path: Path) -> tuple[float, ...]:
    """The loss of every step in nats per target; RunError where the file is none of ours."""
    with open_file(path, RunError) as file:
        content = file.read()
    if not content.startswith(HEADER) or (len(content) - len(HEADER)) % ITEM_BYTES:
        raise RunError(f"{path}: expected the header {HEADER!r} and 8 bytes a step; the file is damaged")
    return struct.unpack_from(f"<{(len(content) - len(HEADER)) // ITEM_BYTES}d", content, len(HEADER))


def cut_back_losses(path: Path, step: int | None) -> None:
    """Keep the losses up to and including a step (None keeps none), before a run goes on from there."""
    if step is None:
        path.unlink(missing_ok=True)
        return
    wanted = len(HEADER) + ITEM_BYTES * step
    if path.exists() and path.stat().st_size > wanted:
        with open(path, "r+b") as file:
            file.truncate(wanted)
            os.fsync(file.fileno())


def losses_digest(path: Path) -> dict[str, Any] | None:
    """What the receipt says of a file of losses; None where there is none (a task of the user's own)."""
    if not path.exists():
        return None
    return {"n_steps": len(read_losses(path)), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
