"""Rows of figures in a file, one JSON object a line: metrics.jsonl and timings.jsonl.

A row is {"step": 10, "train/loss": 2.5, ...}: the optimizer step and numbers. JSON has no word for what is
not finite: these are the strings "NaN", "Infinity" and "-Infinity", which `read_rows` turns back into floats.
Floats are written with all their digits: what is read equals what was logged, bit for bit.

Each row reaches the kernel in one write, so a kill -9 leaves at most one torn line, at the end. Readers skip
it; `cut_back` moves it out of the way before a resumed run appends.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmexp.errors import RunError
from lmexp.files import sync_file, sync_folder, write_atomically
from lmexp.reading import lines_of, open_file

Number = int | float

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class RowFile:
    """Appends rows to a file."""

    def __init__(self, path: Path) -> None:
        if _is_torn(path):
            raise RunError(
                f"{path}: the last line is not complete, so nothing can be appended after it; "
                f"`lmexp resume {path.parent}` cuts it off and goes on"
            )
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def append(self, step: int, values: Mapping[str, Number]) -> None:
        """Add one row. OSError where the disk doesn't take it."""
        line = encode(step, values)
        written = os.write(self._descriptor, line)
        if written != len(line):
            raise OSError(f"{self.path}: {written} of {len(line)} bytes of a row were written; is the disk full?")

    def sync(self) -> None:
        """Return when all rows so far would survive a power cut."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def encode(step: int, values: Mapping[str, Number]) -> bytes:
    """The line of a row.

    >>> encode(3, {"train/loss": 2.5, "grad_norm": math.inf})
    b'{"step": 3, "train/loss": 2.5, "grad_norm": "Infinity"}\\n'
    """
    row: dict[str, Number | str] = {"step": step}
    for name, value in values.items():
        if name == "step":
            raise ValueError("a row has its own `step`; log this figure under another name")
        if not isinstance(value, int | float):
            raise TypeError(
                f"{name} is a {type(value).__name__}; a row holds int and float only, so call .item() first"
            )
        row[name] = value if math.isfinite(value) else _word(value)
    return json.dumps(row).encode("ascii") + b"\n"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All complete rows, in the order in which they were logged; none where the file is missing.

    RunError where a line other than the last is not a row.
    """
    return [decode(line) for line in _split(path)[0]]


def decode(line: bytes) -> dict[str, Any]:
    """The row of a line; ValueError where it isn't one."""
    try:
        row = json.loads(line)
    except RecursionError:
        raise ValueError("expected numbers, not lists in lists") from None
    if not isinstance(row, dict):
        raise ValueError("expected a JSON object")
    for name, value in row.items():
        if not isinstance(value, float | str) and not (isinstance(value, int) and abs(value) < 1 << 63):
            raise ValueError(f"expected a number as {name}")
    return {k: _NOT_FINITE.get(v, v) if isinstance(v, str) else v for k, v in row.items()}


def cut_back(path: Path, step: int | None, discarded_path: Path) -> int:
    """Keep the rows up to and including step (None keeps none) and say how many lines were cut.

    Cut lines are appended to discarded_path as they are, a torn one as {"torn": text}. They are on disk
    there before the file is replaced, in one rename: a crash in between leaves the file as it was, and the
    lines of discarded_path may then be there twice.
    """
    lines, torn = _split(path)
    kept: list[bytes] = []
    cut: list[bytes] = []
    for number, line in enumerate(lines, start=1):
        row_step = decode(line).get("step")
        if not isinstance(row_step, int):
            raise RunError(f"{path}:{number}: expected a row with an integer `step`, found {line[:80]!r}")
        (kept if step is not None and row_step <= step else cut).append(line)
    if torn:
        cut.append(json.dumps({"torn": torn.decode("utf-8", errors="replace")}).encode("ascii"))
    if not cut and not _is_torn(path):
        return 0
    if cut:
        with open(discarded_path, "ab") as file:
            file.write(_join(cut))
        sync_file(discarded_path)
        sync_folder(discarded_path.parent)
    write_atomically(path, _join(kept))
    return len(cut)


def _split(path: Path) -> tuple[list[bytes], bytes]:
    """The lines that hold rows, and what of a torn one is there at the end.

    A last line that lacks only its line break is a row: no beginning of a JSON object is one itself.
    """
    try:
        opened = open_file(path, RunError)
    except FileNotFoundError:
        return [], b""
    lines: list[bytes] = []
    with opened as file:
        for line in lines_of(file, path, RunError):
            row = line.removesuffix(b"\n")
            try:
                decode(row)
            except ValueError:
                if row == line:  # without its line break
                    return lines, row
                raise RunError(
                    f'{path}:{len(lines) + 1}: expected a row such as {{"step": 10, ...}}, found {row[:80]!r}; '
                    f"the file is damaged"
                ) from None
            lines.append(row)
    return lines, b""


def _is_torn(path: Path) -> bool:
    """Whether the file ends within a line."""
    try:
        with open(path, "rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except FileNotFoundError:
        return False


def _join(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _word(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
