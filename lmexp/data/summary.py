"""What becomes of each document of a source: dropped or kept, and in which split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmexp.data.config import CorpusConfig
from lmexp.data.sources.base import ALL
from lmexp.data.split import DROPPED, SPLIT_NAMES, Homes, Piece, hash_homes, tail_borders, tail_homes
from lmexp.data.survey import Survey, reasons
from lmexp.errors import DataError

CHUNK = 1 << 20
"""Documents looked at together."""

Mask = NDArray[np.bool_]


@dataclass
class Summary:
    """A surveyed source after cleaning and splitting."""

    name: str
    """Of the source in its corpus."""
    config: CorpusConfig
    survey: Survey
    homes: Homes
    pieces: list[Piece] = field(default_factory=list)
    """Of the documents that were cut."""
    n_documents: int = 0
    """Kept."""
    n_bytes: int = 0
    """Of the kept ones."""
    n_duplicates: int = 0
    """Documents that equal an earlier one of the same part, and pass the limits of length."""
    n_dropped: dict[str, int] = field(default_factory=lambda: {"short": 0, "long": 0, "duplicate": 0})
    digest: str = ""
    """SHA-256 of the kept documents, in order, with their parts."""

    @property
    def where(self) -> str:
        """What an error calls the source."""
        where = self.config.source().where
        return f"data.parts.{self.name}: {where}" if self.name else where

    def split_settings(self) -> dict[str, Any]:
        """The split as it was done: nothing is held out for a split that has documents of its own."""
        given = given_splits(self.config, self.survey)
        fractions = {f"{n}_fraction": 0.0 if n in given else _fraction(self.config, n) for n in SPLIT_NAMES[1:]}
        return {"split": self.config.split, **fractions}

    def cleaning_settings(self) -> dict[str, Any]:
        """The settings by which documents are dropped or quarantined."""
        names = ("min_characters", "max_characters", "drop_duplicates", "max_document_bytes")
        return {name: getattr(self.config, name) for name in names}

    def n_in(self, split: str) -> int:
        """Documents, or pieces of some, in a split."""
        index = SPLIT_NAMES.index(split)
        return int(np.count_nonzero(self.homes == index)) + sum(piece.split == index for piece in self.pieces)

    def documents_digest(self, split: str) -> str:
        """SHA-256 of the documents of a split, in order, and of the pieces of those that were cut."""
        index = SPLIT_NAMES.index(split)
        sha = hashlib.sha256()
        for _, chunk in chunks(self.survey):
            sha.update(np.ascontiguousarray(self.survey.digests[chunk][self.homes[chunk] == index]).data)
        for piece in self.pieces:
            if piece.split == index:
                sha.update(self.survey.digests[piece.document].tobytes())
                sha.update(f"{piece.start}-{piece.stop};".encode())
        return sha.hexdigest()


def summarize(name: str, config: CorpusConfig, survey: Survey) -> Summary:
    """Clean and split a source; DataError where a split that is wanted gets nothing."""
    summary = Summary(name, config, survey, np.zeros(survey.n_documents, np.uint8))
    if not survey.n_documents:
        found = survey.first_bad()
        bad = (
            f"; nothing in it is good. The first bad ones:{reasons(found)}"
            if found
            else ": every file is empty or blank"
        )
        raise DataError(f"{summary.where}: no text was found{bad}")
    _drop(summary)
    _split(summary)
    _count(summary)
    _check(summary)
    return summary


def given_splits(config: CorpusConfig, survey: Survey) -> set[str]:
    """Splits that have documents of their own."""
    return set(config.given_splits()) | {entry.unit.part for entry in survey.units} - {ALL, "train"}


def parts(survey: Survey) -> Iterator[tuple[str, int, int]]:
    """Stretches of documents of one part: the part, the first document and the one after the last."""
    part, first, stop = ALL, 0, 0
    for entry in survey.units:
        if entry.unit.part != part:
            if first < stop:
                yield part, first, stop
            part, first = entry.unit.part, entry.first
        stop = entry.first + entry.n_documents
    if first < stop:
        yield part, first, stop


def chunks(survey: Survey) -> Iterator[tuple[str, slice]]:
    """The same in pieces of bounded size."""
    for part, first, stop in parts(survey):
        for start in range(first, stop, CHUNK):
            yield part, slice(start, min(start + CHUNK, stop))


def _drop(summary: Summary) -> None:
    survey, config, homes = summary.survey, summary.config, summary.homes
    longest = config.max_characters
    for _, chunk in chunks(survey):
        characters = survey.characters[chunk]
        short = characters < config.min_characters
        if getattr(config, "keep_blank_lines", False):
            short &= characters > 0
        long = characters > longest if longest is not None else np.zeros_like(short)
        homes[chunk][short | long] = DROPPED
        summary.n_dropped["short"] += int(np.count_nonzero(short))
        summary.n_dropped["long"] += int(np.count_nonzero(long))
    for part in sorted({part for part, _, _ in parts(survey)}):
        wanted = homes != DROPPED
        for other, first, stop in parts(survey):
            if other != part:
                wanted[first:stop] = False
        repeated = duplicates(survey.digests, wanted)
        summary.n_duplicates += len(repeated)
        if config.drop_duplicates:
            homes[repeated] = DROPPED
            summary.n_dropped["duplicate"] += len(repeated)


def duplicates(digests: NDArray[np.uint8], wanted: Mask) -> NDArray[np.int64]:
    """Numbers of the wanted documents that equal an earlier wanted one; digests: (documents, 16).

    Looks at those with the same first bits of the digest together, so that memory stays bounded.
    """
    n_bits = max(0, (int(np.count_nonzero(wanted)) // CHUNK).bit_length())
    found = [np.empty(0, np.int64)]
    for bucket in range(1 << n_bits):
        numbers, keys = [], []
        for start in range(0, len(digests), CHUNK):
            chunk = digests[start : start + CHUNK]
            heads = chunk[:, :2].astype(np.uint16)
            in_bucket = (heads[:, 0] << 8 | heads[:, 1]) >> np.uint16(16 - n_bits) == bucket if n_bits else True
            inside = np.flatnonzero(wanted[start : start + CHUNK] & in_bucket)
            numbers.append(inside + start)
            keys.append(np.ascontiguousarray(chunk[inside]).view(np.uint64))  # (documents, 2)
        number, key = np.concatenate(numbers), np.concatenate(keys)
        order = np.lexsort((key[:, 1], key[:, 0]))  # stable: the first of equal documents comes first
        same = np.all(key[order[1:]] == key[order[:-1]], axis=1)
        found.append(number[order[1:][same]])
    return np.sort(np.concatenate(found))


def _split(summary: Summary) -> None:
    survey, homes = summary.survey, summary.homes
    settings = summary.split_settings()
    validation, test = settings["validation_fraction"], settings["test_fraction"]
    borders = []
    if summary.config.split == "tail":
        n_characters = sum(int(survey.characters[numbers].sum()) for numbers in _divided(summary))
        borders = tail_borders(n_characters, validation, test)
    before = 0
    for numbers in _divided(summary):
        if summary.config.split == "hash":
            homes[numbers] = hash_homes(survey.digests[numbers], validation, test)
            continue
        characters = survey.characters[numbers]
        homes[numbers], pieces = tail_homes(characters, before, borders)
        summary.pieces += [Piece(int(numbers[p.document]), p.split, p.start, p.stop) for p in pieces]
        before += int(characters.sum())
    for part, chunk in chunks(survey):
        if part != ALL:
            homes[chunk][homes[chunk] != DROPPED] = SPLIT_NAMES.index(part)


def _divided(summary: Summary) -> Iterator[NDArray[np.int64]]:
    """Numbers of the documents that the fractions divide."""
    for part, chunk in chunks(summary.survey):
        if part == ALL:
            yield np.flatnonzero(summary.homes[chunk] != DROPPED) + chunk.start


def _count(summary: Summary) -> None:
    survey = summary.survey
    sha = hashlib.sha256()
    for part, chunk in chunks(survey):
        kept = summary.homes[chunk] != DROPPED
        n = int(np.count_nonzero(kept))
        records = np.empty((n, 17), np.uint8)
        records[:, 0] = (ALL, *SPLIT_NAMES).index(part)
        records[:, 1:] = survey.digests[chunk][kept]
        sha.update(records.data)
        summary.n_documents += n
        summary.n_bytes += int(survey.bytes[chunk][kept].sum())
    summary.digest = sha.hexdigest()


def _check(summary: Summary) -> None:
    """Raise DataError where a split that is wanted got nothing."""
    config, given = summary.config, given_splits(summary.config, summary.survey)
    if not summary.n_documents:
        dropped = ", ".join(f"{n:,} {why}" for why, n in summary.n_dropped.items() if n)
        raise DataError(
            f"{summary.where}: no document is left ({dropped} were dropped); "
            f"set data.min_characters and data.max_characters to what your documents are like"
        )
    for name in SPLIT_NAMES:
        wanted = name == "train" or name in given or _fraction(config, name) > 0
        if wanted and not summary.n_in(name):
            raise DataError(_empty(summary, name, given))


def _empty(summary: Summary, name: str, given: set[str]) -> str:
    config = summary.config
    data = f"data.parts.{summary.name}" if summary.name else "data"
    if name in given:
        options = [f"{data}.{name}_{key}" for key in ("pattern", "split") if hasattr(config, f"{name}_{key}")]
        return (
            f"{summary.where}: {name} has documents of its own, but none was found or kept; "
            f"check {options[0] if options else 'the source'}"
        )
    n = summary.n_documents
    all_of_it = "the 1 document" if n == 1 else f"any of the {n:,} documents"
    found = f"{summary.where}: {data}.split={config.split} doesn't put {all_of_it} into"
    if name == "train":
        fix = f"make {data}.validation_fraction and {data}.test_fraction smaller"
        return f"{found} train; {fix}, or use more text"
    share = f"{data}.{name}_fraction"
    fixes = [f"{data}.split=tail"] if config.split == "hash" else []
    fixes += ["more text", f"a larger {share}", f"{share}=0"]
    return f"{found} {name} ({share}={_fraction(config, name)}); use {', '.join(fixes[:-1])} or {fixes[-1]}"


def _fraction(config: CorpusConfig, split: str) -> float:
    fraction: float = getattr(config, f"{split}_fraction")
    return fraction
