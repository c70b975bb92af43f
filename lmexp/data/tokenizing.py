"""The tokenizer and the tokens of each unit, by all processes that prepare a corpus together.

The results are named after the kept documents that they hold, not after files: the same documents may come from others.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmexp.data import shared_work
from lmexp.data.config import CorpusConfig
from lmexp.data.shared_work import Done, Task, share
from lmexp.data.split import CUT, DROPPED, SPLIT_NAMES, Homes, Piece
from lmexp.data.survey import Survey, SurveyedUnit, read_again
from lmexp.data.writing import SplitWriter, sync_all
from lmexp.tokenizers import base as tokenizers
from lmexp.tokenizers.base import Tokenizer
from lmexp.tokenizers.config import TokenizerConfig

TOKENIZER_JSON = "tokenizer.json"
UNIT_JSON = "unit.json"
STRETCHES = 16
"""Places in the training text, evenly apart, from which a tokenizer learns that doesn't want all of it."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Divided:
    """A source of which it is known where each document goes."""

    name: str
    config: CorpusConfig
    survey: Survey
    homes: Homes
    pieces: dict[int, list[Piece]]
    """Document -> its pieces, where it was cut."""

    def slices(self, document: int, text: str) -> list[tuple[int, str]]:
        """The splits of a document and what each gets of its text."""
        home = int(self.homes[document])
        if home == CUT:
            return [(piece.split, text[piece.start : piece.stop]) for piece in self.pieces[document]]
        return [] if home == DROPPED else [(home, text)]

    def train_bytes(self) -> Ints:
        """(documents,) bytes of each that belong to train; of a cut one a guess, by its characters."""
        sizes = np.where(self.homes == 0, self.survey.bytes, 0)
        for document, pieces in self.pieces.items():
            train = sum(piece.stop - piece.start for piece in pieces if piece.split == 0)
            sizes[document] = int(self.survey.bytes[document]) * train // int(self.survey.characters[document])
        return sizes


@dataclass
class TokenizeJob:
    """The tokenizer and the tokens: what a parent and its workers do together."""

    sources: list[Divided]
    tokenizer: TokenizerConfig
    folder: Path
    """Of the claims and results."""
    patience: float
    _learnt: Tokenizer | None = None

    def run(self, done: Done = shared_work.ignore) -> None:
        """Do the tasks that nobody else does."""
        self.learn()
        share(self.folder, [task for task, _ in self.tasks()], patience=self.patience, done=done)

    def learn(self) -> Tokenizer:
        """The tokenizer, trained by one of the processes."""
        if self._learnt is not None:
            return self._learnt

        def train(folder: Path) -> None:
            self.tokenizer.train(self._training_texts()).save(folder / TOKENIZER_JSON)
            sync_all(folder)

        result = self.folder / "tokenizer"
        share(self.folder, [Task("tokenizer", result, train)], patience=self.patience)
        self._learnt = tokenizers.load(result / TOKENIZER_JSON)
        return self._learnt

    def tasks(self) -> list[tuple[Task, SurveyedUnit]]:
        """The task of each unit that holds something, source by source."""
        return [(task, unit) for number in range(len(self.sources)) for task, unit in self.tasks_of(number)]

    def tasks_of(self, number: int) -> list[tuple[Task, SurveyedUnit]]:
        """The tasks of one source."""
        source, found, first = self.sources[number], [], 0
        for unit in source.survey.units:
            homes = source.homes[unit.first : unit.first + unit.n_documents]
            n = int(np.count_nonzero(homes != DROPPED))
            if n:
                name = f"{number}-{first}-{first + n}"
                found.append((Task(name, self.folder / name, Tokenize(self, source, unit)), unit))
            first += n
        return found

    def _training_texts(self) -> Iterator[str]:
        """The text that the tokenizer learns from: all of train, or stretches of it, whatever the units are."""
        wanted = self.tokenizer.text_bytes()
        if wanted == 0:
            return
        total = sum(int(source.train_bytes().sum()) for source in self.sources)
        stretches = Stretches(total, total if wanted is None else min(wanted, total))
        before = 0
        for source in self.sources:
            sizes = source.train_bytes()
            yield from _texts_in(stretches, source, sizes, before)
            before += int(sizes.sum())


@dataclass(frozen=True, slots=True)
class Stretches:
    """Bytes of the training text that are learnt from: the first few of each of STRETCHES equal parts of it."""

    total: int
    wanted: int

    def touch(self, starts: Ints, ends: Ints) -> NDArray[np.bool_]:
        """Whether any byte of each document, which has at least one, is in a stretch."""
        part = starts * STRETCHES // self.total
        in_this = starts < part * self.total // STRETCHES + self._length()
        return in_this | ((ends - 1) * STRETCHES // self.total > part)

    def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """What of the bytes start to end is in stretches.

        >>> stretches = Stretches(total=1600, wanted=800)
        >>> stretches.within(0, 100), stretches.within(60, 70), stretches.within(140, 210)
        ([(0, 50)], [], [(140, 150), (200, 210)])
        """
        if self.wanted >= self.total:
            return [(start, end)]
        found = []
        for part in range(start * STRETCHES // self.total, (end - 1) * STRETCHES // self.total + 1):
            first = part * self.total // STRETCHES
            low, high = max(start, first), min(end, first + self._length())
            if low < high:
                found.append((low, high))
        return found

    def _length(self) -> int:
        return self.total if self.wanted >= self.total else max(1, self.wanted // STRETCHES)


def _texts_in(stretches: Stretches, source: Divided, sizes: Ints, before: int) -> Iterator[str]:
    """What of a source's training text is in stretches.

    sizes: (documents,) bytes of each in train. before: bytes of the sources before this one.
    """
    ends = before + np.cumsum(sizes)
    for unit in source.survey.units:
        inside = slice(unit.first, unit.first + unit.n_documents)
        unit_ends, unit_sizes = ends[inside], sizes[inside]
        touched = (unit_sizes > 0) & stretches.touch(unit_ends - unit_sizes, unit_ends)
        if not touched.any():
            continue
        last = int(np.flatnonzero(touched)[-1])
        for i, (text, _) in enumerate(read_again(source.config.source(), source.survey, unit)):
            if touched[i]:
                train = "".join(part for split, part in source.slices(unit.first + i, text) if split == 0)
                end, size = int(unit_ends[i]), int(unit_sizes[i])
                for low, high in stretches.within(end - size, end):
                    yield train[(low - end + size) * len(train) // size : (high - end + size) * len(train) // size]
            if i == last:
                break


@dataclass(frozen=True)
class Tokenize:
    """The task of tokenizing one unit."""

    job: TokenizeJob
    source: Divided
    unit: SurveyedUnit

    def __call__(self, folder: Path) -> None:
        """Write the tokens of each split."""
        tokenizer = self.job.learn()
        writers: dict[int, SplitWriter] = {}
        homes = self.source.homes[self.unit.first : self.unit.first + self.unit.n_documents].tolist()
        for i, (text, raw) in enumerate(read_again(self.source.config.source(), self.source.survey, self.unit)):
            home = homes[i]
            if home == DROPPED:
                continue
            if home != CUT:
                if home not in writers:
                    writers[home] = SplitWriter(folder, SPLIT_NAMES[home], tokenizer)
                writers[home].add(text, len(raw))
                continue
            for split, part in self.source.slices(self.unit.first + i, text):
                if split not in writers:
                    writers[split] = SplitWriter(folder, SPLIT_NAMES[split], tokenizer)
                writers[split].add(part, len(part.encode()))
        facts = {SPLIT_NAMES[split]: writer.close() for split, writer in sorted(writers.items())}
        (folder / UNIT_JSON).write_text(json.dumps(facts), encoding="utf-8")
        sync_all(folder)


def by_document(pieces: Iterable[Piece]) -> dict[int, list[Piece]]:
    """Document -> its pieces, in order."""
    found = defaultdict(list)
    for piece in pieces:
        found[piece.document].append(piece)
    return dict(found)
