"""What every source of documents offers, whatever it reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

ALL = "all"
"""Part of a corpus that is divided into train, validation and test; other parts are one of these as they are."""

UNIT_BYTES = 1 << 22
"""About so many bytes make a unit, where a source can choose."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of a corpus that one process reads by itself; the units of a corpus, in order, are the corpus."""

    part: str
    """ALL, or the split (train, validation, test) that the documents were given as."""
    paths: tuple[str, ...] = ()
    """Files to read; empty where there are none."""
    start: int = 0
    stop: int | None = None
    """Which of them: bytes of one file, rows, row groups, numbers of documents; None is the end."""
    n_bytes: int = 0
    """Size for the progress bar: exact or a guess."""


@dataclass(frozen=True, slots=True)
class Bad:
    """Something that should have been a document and isn't."""

    reason: str
    """Why, in words that suggest a fix; begins with one of a few fixed phrases, up to a colon, by which it is counted,
    e.g. "not UTF-8: byte 17 is 0xe9 (invalid continuation byte)"."""
    file: str = ""
    """Path as the user gave it, or what stands for one."""
    line: int | None = None
    """Line, row or record, from 1; None where the whole file is bad."""

    @property
    def kind(self) -> str:
        """The fixed phrase of the reason."""
        return self.reason.partition(":")[0]


class Source(ABC):
    """Documents in a fixed order, in units that can be read by different processes.

    A source is made from its config alone and is cheap to make: units() and identity() look at files, read() reads.
    """

    where: str
    """What an error calls the corpus: the option that chose it, e.g. "data.path=books"."""

    @abstractmethod
    def units(self) -> list[Unit]:
        """All units, in the order of the corpus; the same for the same files. DataError where there is nothing."""

    @abstractmethod
    def read(self, unit: Unit) -> Iterator[str | Bad]:
        """The documents of a unit in order, and between them what is no document. Memory stays bounded by the largest
        document that data.max_document_bytes allows. Blank lines between records are neither."""

    def identity(self) -> Any:
        """JSON that differs when the documents may differ, found without reading them (paths, sizes, times of change);
        None where that can't be told, and the documents are read each time."""
        return None

    def facts(self) -> dict[str, Any]:
        """What is known beforehand, for the data card, e.g. the entropy of a synthetic source."""
        return {}
