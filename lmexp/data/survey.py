"""One reading of a source: what all later steps must know of its documents, kept so that it needn't be read again.

<cache_root>/corpora/<first 16 hex digits of the key>/
    survey.json          {"format": "lmexp.corpus", "version": 1, "key": ..., "n_documents", "n_read", "n_characters",
                         "n_bytes", "n_quarantined": {kind: n}, "units": [{"unit": ..., "n_documents": n}, ...]}
    documents.digests    16 bytes a document: the first half of the SHA-256 of its text
    documents.characters, documents.bytes    int64 a document: its length
    quarantine.jsonl     {"file", "line", "reason"} a line: what should have been a document and isn't

The key is a SHA-256 over the versions of this format and of lmexp, the settings of the source and what tells its files
from others (names, sizes, times of change). A source that can't tell is read each time, and so is one with a file that
changed less than 2 seconds before: within the tick of a file system's clock it could change again unnoticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmexp.data.sources.base import Bad, Source, Unit
from lmexp.data.writing import map_array
from lmexp.errors import DataError
from lmexp.reading import lines_of, open_file, parse_object, read_format

FORMAT = "lmexp.corpus"
VERSION = 1
SURVEY_JSON = "survey.json"
QUARANTINE = "quarantine.jsonl"
DIGEST_BYTES = 16
N_REASONS = 5
"""Quarantined documents that an error quotes."""

Ints = NDArray[np.int64]
Digests = NDArray[np.uint8]
"""(documents, 16)"""


@dataclass(frozen=True, slots=True)
class SurveyedUnit:
    """A unit and which of the corpus's documents it holds."""

    unit: Unit
    first: int
    n_documents: int


class Survey:
    """An opened survey: facts in memory, what belongs to each document memory-mapped."""

    def __init__(self, path: Path) -> None:
        facts = read_format(path / SURVEY_JSON, DataError, FORMAT, VERSION)
        self.path = path
        self.key: str = facts["key"]
        self.n_documents: int = facts["n_documents"]
        self.n_read: int = facts["n_read"]
        """Documents, and what should have been some."""
        self.n_bytes: int = facts["n_bytes"]
        self.n_quarantined: dict[str, int] = facts["n_quarantined"]
        self.units: list[SurveyedUnit] = []
        first = 0
        for entry in facts["units"]:
            unit = Unit(**entry["unit"] | {"paths": tuple(entry["unit"]["paths"])})
            self.units.append(SurveyedUnit(unit, first, entry["n_documents"]))
            first += entry["n_documents"]
        n = self.n_documents
        self.digests: Digests = map_array(path / "documents.digests", "uint8", n * DIGEST_BYTES).reshape(-1, 16)
        self.characters: Ints = map_array(path / "documents.characters", "int64", n)
        self.bytes: Ints = map_array(path / "documents.bytes", "int64", n)

    def first_bad(self) -> list[dict[str, Any]]:
        """The first few entries of the quarantine."""
        return quarantined(self.path / QUARANTINE, N_REASONS)


def reasons(quarantine: Sequence[dict[str, Any]]) -> str:
    """Entries of quarantine.jsonl, a line each, for an error."""
    lines = []
    for entry in quarantine[:N_REASONS]:
        line = "" if entry["line"] is None else f", line {entry['line']:,}"
        where = f"{entry['file']}{line}".removeprefix(", ")
        lines.append(f"\n  {where}: {entry['reason']}" if where else f"\n  {entry['reason']}")
    return "".join(lines)


def read(source: Source, unit: Unit) -> Iterator[tuple[str, bytes] | Bad]:
    """The documents of a unit, each with its UTF-8 bytes, and what should have been some."""
    try:
        for item in source.read(unit):
            if isinstance(item, Bad):
                yield item
                continue
            try:
                raw = item.encode()
            except UnicodeEncodeError as error:
                code = ord(item[error.start])
                yield Bad(f"not Unicode text: character {error.start} is half a surrogate pair, U+{code:04X}")
                continue
            yield item, raw
    except OSError as error:
        file = f" {error.filename}" if error.filename else ""
        raise DataError(f"{source.where}: can't read{file}: {error.strerror or error}") from error


def digest(raw: bytes) -> bytes:
    """What a document is recognized by."""
    return hashlib.sha256(raw).digest()[:DIGEST_BYTES]


def read_again(source: Source, survey: Survey, surveyed: SurveyedUnit) -> Iterator[tuple[str, bytes]]:
    """The documents of a unit; DataError where they aren't those of the survey."""
    first, stop = surveyed.first, surveyed.first + surveyed.n_documents
    known = survey.digests[first:stop].tobytes()
    at = 0
    for item in read(source, surveyed.unit):
        if isinstance(item, Bad):
            continue
        if digest(item[1]) != known[at : at + DIGEST_BYTES]:
            raise ChangedError(source.where)
        at += DIGEST_BYTES
        yield item
    if at != len(known):
        raise ChangedError(source.where)


class ChangedError(DataError):
    """The files changed while they were read."""

    def __init__(self, where: str) -> None:
        super().__init__(f"{where}: the files were changed while they were read; run it again")


def quarantined(path: Path, n: int) -> list[dict[str, Any]]:
    """The first n entries of a quarantine.jsonl."""
    with open_file(path, DataError) as file:
        entries = [parse_object(line, path, DataError) for line in islice(lines_of(file, path, DataError), n)]
    for entry in entries:
        if not (
            isinstance(entry.get("file"), str | None)
            and isinstance(entry.get("line"), int | None)
            and isinstance(entry.get("reason"), str)
            and isinstance(entry.get("source", ""), str)
        ):
            raise DataError(f"{path}: {repr(entry)[:200]} is no entry that lmexp wrote; the file is damaged")
    return entries
