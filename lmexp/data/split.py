"""Which documents, or which parts of them, belong to train, validation and test.

hash: a document goes where the SHA-256 of its text says, so identical documents stay together and a new
document moves no other. tail: the corpus is one stream of characters; its last fractions are held out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmexp.data.config import CorpusConfig
from lmexp.data.sources import Documents
from lmexp.errors import DataError

SPLIT_NAMES = ("train", "validation", "test")

Slices = NDArray[np.int64]
"""(documents, 2): first character of each document that belongs to a split, and the one after the last."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What one reading of a corpus tells."""

    digest: str
    """SHA-256 over the documents' own SHA-256, in order."""
    lengths: NDArray[np.int64]
    """(documents,) characters."""
    points: NDArray[np.float64]
    """(documents,) a number from 0 to below 1 that depends on nothing but the document's text."""


class SplitCorpus:
    """A corpus that knows which text belongs to which split; it is read again for each split."""

    def __init__(self, documents: Documents, config: CorpusConfig) -> None:
        self.documents = documents
        self.survey = survey(documents)
        if not len(self.survey.lengths):
            raise DataError(f"{documents.where}: no text was found: every file is empty or blank")
        fractions = {"validation": config.validation_fraction, "test": config.test_fraction}
        slices = {"hash": hash_slices, "tail": tail_slices}[config.split]
        self._slices = slices(self.survey, fractions["validation"], fractions["test"])
        for name in SPLIT_NAMES:
            if self.n_documents(name) == 0 and fractions.get(name, 1) > 0:
                raise DataError(self._empty(name, config))

    @property
    def names(self) -> list[str]:
        """The splits that hold text."""
        return [name for name in SPLIT_NAMES if self.n_documents(name)]

    def n_documents(self, name: str) -> int:
        """Documents, or parts of one, in a split."""
        return int(np.count_nonzero(self._slices[name][:, 1] > self._slices[name][:, 0]))

    def texts(self, name: str) -> Iterator[str]:
        """The texts of a split, in the corpus's order."""
        digest = hashlib.sha256()
        slices = self._slices[name]
        for i, text in enumerate(self.documents):
            digest.update(hashlib.sha256(text.encode()).digest())
            if i < len(slices) and slices[i, 0] < slices[i, 1]:
                yield text[slices[i, 0] : slices[i, 1]]
        if digest.hexdigest() != self.survey.digest:
            raise DataError(f"{self.documents.where}: the files were changed while they were read; run it again")

    def _empty(self, name: str, config: CorpusConfig) -> str:
        n = len(self.survey.lengths)
        all_of_it = "the 1 document" if n == 1 else f"any of the {n:,} documents"
        found = f"{self.documents.where}: data.split={config.split} doesn't put {all_of_it} into"
        if name == "train":
            fix = "make data.validation_fraction and data.test_fraction smaller"
            return f"{found} train; {fix}, or use more text"
        share = f"data.{name}_fraction"
        fixes = ["data.split=tail"] if config.split == "hash" else []
        fixes += ["more text", f"a larger {share}", f"{share}=0"]
        given = getattr(config, f"{name}_fraction")
        return f"{found} {name} ({share}={given}); use {', '.join(fixes[:-1])} or {fixes[-1]}"


def survey(documents: Documents) -> Survey:
    """Read a corpus once."""
    total = hashlib.sha256()
    lengths, points = [], []
    for text in documents:
        digest = hashlib.sha256(text.encode()).digest()
        total.update(digest)
        lengths.append(len(text))
        points.append((int.from_bytes(digest[:8], "big") >> 11) / 2**53)
    return Survey(total.hexdigest(), np.array(lengths, dtype=np.int64), np.array(points, dtype=np.float64))


def hash_slices(survey: Survey, validation: float, test: float) -> dict[str, Slices]:
    """Whole documents by their points: test lies below `test`, validation above it, train above both."""
    borders = {
        "test": (0.0, test),
        "validation": (test, test + validation),
        "train": (test + validation, 1.0),
    }
    inside = {name: (low <= survey.points) & (survey.points < high) for name, (low, high) in borders.items()}
    return {name: np.stack([0 * survey.lengths, survey.lengths * inside[name]], axis=1) for name in SPLIT_NAMES}


def tail_slices(survey: Survey, validation: float, test: float) -> dict[str, Slices]:
    """Parts of the stream of all characters: train, then validation, then test."""
    ends = np.cumsum(survey.lengths)
    starts = ends - survey.lengths
    n = int(ends[-1])
    borders = [0, int(n * (1 - (validation + test))), int(n * (1 - test)), n]
    return {
        name: np.stack([np.clip(low, starts, ends) - starts, np.clip(high, starts, ends) - starts], axis=1)
        for name, low, high in zip(SPLIT_NAMES, borders[:-1], borders[1:], strict=True)
    }
