"""A kind of data for tests, registered as users do it: units of any size, bad documents, given splits, slow reading.

A folder with all.jsonl and perhaps train.jsonl, validation.jsonl, test.jsonl: a line is a document as a JSON string,
or {"bad": REASON}.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmexp
from lmexp.data.config import CorpusConfig
from lmexp.data.sources.base import Bad, Source, Unit

reads: list[Unit] = []
"""Units that this process has read."""


@dataclass(kw_only=True, slots=True)
class PiecesConfig(CorpusConfig):
    """Documents from a folder of JSON."""

    kind: str = "pieces"
    path: str = ""
    """The folder."""
    unit_lines: int = 4
    """Documents of a unit."""
    seconds: float = 0.0
    """Time that a document takes."""
    known: bool = True
    """Whether the source can tell when its files change."""

    def source(self) -> Source:
        return PiecesSource(self)


class PiecesSource(Source):
    def __init__(self, config: PiecesConfig) -> None:
        self.config = config
        self.where = f"data.path={config.path}"

    def _files(self) -> list[Path]:
        return sorted(Path(self.config.path).glob("*.jsonl"))

    def units(self) -> list[Unit]:
        units = []
        for path in self._files():
            n = len(path.read_bytes().splitlines())
            size = path.stat().st_size // (n // self.config.unit_lines + 1)
            for start in range(0, n, self.config.unit_lines):
                units.append(Unit(path.stem, (str(path),), start, start + self.config.unit_lines, size))
        return units

    def read(self, unit: Unit) -> Iterator[str | Bad]:
        reads.append(unit)
        path = Path(unit.paths[0])
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines[unit.start : unit.stop], unit.start + 1):
            time.sleep(self.config.seconds)
            item = json.loads(line)
            yield item if isinstance(item, str) else Bad(item["bad"], path.name, number)

    def identity(self) -> Any:
        if not self.config.known:
            return None
        found = [(path, path.stat()) for path in self._files()]
        return [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in found]


lmexp.register("data", "pieces", PiecesConfig)
