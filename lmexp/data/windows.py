"""Sequences of tokens, as rows of a fixed length: at random borders to train on, side by side to evaluate on.

stream    A row is cut out of the documents as they stand one after another in their split.
packed    A row holds whole documents (pieces of those longer than a row), as a plan says: see plans.py.
padded    A row holds one of them.

A target's place is its position in the token file of its split. Place 0, the <eos> before the first document, is no
target, so it stands where nothing is predicted. Sample ids: the place of a stream row's first token, else the number
of the row in its plan; in a mixture with the number of the source above SOURCE_BITS.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmexp.data.mixture import Schedule
from lmexp.data.order import epoch_keys, sample_indices
from lmexp.data.plans import SplitPlan, make_plan
from lmexp.errors import DataError
from lmexp.metrics.ignore import IGNORE

if TYPE_CHECKING:
    from lmexp.data.cache import TokenCache, TokenSplit
    from lmexp.data.config import CorpusConfig

Ints = NDArray[np.int64]

SOURCE_BITS = 48
ID_MASK = (1 << SOURCE_BITS) - 1
NO_PLACES: Ints = np.empty((0, 0), np.int64)


class Rows(NamedTuple):
    """Equally long rows; each token predicts the target at its place. All int64."""

    tokens: Ints
    """(batch, seq)."""
    targets: Ints
    """(batch, seq); IGNORE where nothing is predicted."""
    positions: Ints | None
    """(batch, seq): position of each token in its piece of a document, where a row may hold several; else None."""
    places: Ints
    """(batch, seq): place of each target in its split, 0 where there is none; empty in training on a stream."""


class TrainingRows(ABC):
    """Rows to train on, in an endless random order that depends on the seed alone."""

    n_samples: int
    """Rows in an epoch."""
    sequence_length: int
    row_targets: int | None = None
    """Targets of each row, where all have as many."""

    @abstractmethod
    def ids(self, positions: ArrayLike) -> Ints:
        """Sample id of the row at each position of the order; any shape."""

    @abstractmethod
    def gather(self, ids: Ints) -> Rows:
        """The rows of a batch of ids, of one dimension."""

    @abstractmethod
    def n_targets(self, ids: Ints) -> Ints:
        """Targets of each row that are predicted; any shape."""


class StreamRows(TrainingRows):
    """Rows cut out of the stream from first, its first token, to before stop.

    An epoch cuts the stream into n_samples rows from a first token of its own (its phase), so borders between rows
    differ from epoch to epoch, and shows each row once. Less than two rows' worth of tokens, at the two ends, is left
    out of an epoch.
    """

    def __init__(
        self,
        split: TokenSplit,
        first: int,
        stop: int,
        sequence_length: int,
        seed: int,
        *,
        source: int = 0,
        name: str = "",
    ) -> None:
        self.split = split
        self.first = first
        self.sequence_length = self.row_targets = sequence_length
        self.seed = seed
        self.stream = 2 * source
        self.n_samples = n_training_windows(stop - first - 1, sequence_length, name)
        self._n_phases = min(sequence_length, stop - first - self.n_samples * sequence_length)

    def ids(self, positions: ArrayLike) -> Ints:
        given = np.asarray(positions, dtype=np.int64)
        phases = epoch_keys(given // self.n_samples, self.seed, stream=self.stream + 1) % np.uint64(self._n_phases)
        indices = sample_indices(given, self.n_samples, self.seed, stream=self.stream)
        return indices * self.sequence_length + (phases.astype(np.int64) + self.first)

    def gather(self, ids: Ints) -> Rows:
        tokens = self.split.windows(ids, self.sequence_length + 1)  # (batch, seq + 1)
        return Rows(tokens[:, :-1], tokens[:, 1:], None, NO_PLACES)

    def n_targets(self, ids: Ints) -> Ints:
        return np.full(ids.shape, self.sequence_length)


class PlannedRows(TrainingRows):
    """The n_samples rows of a plan from first_row on, in another order each epoch."""

    def __init__(
        self, split: TokenSplit, plan: SplitPlan, first_row: int, n_rows: int, seed: int, *, source: int = 0
    ) -> None:
        self.split = split
        self.plan = plan
        self.sequence_length = plan.sequence_length
        self.first_row = first_row
        self.n_samples = n_rows
        self.seed = seed
        self.stream = 2 * source

    def ids(self, positions: ArrayLike) -> Ints:
        return sample_indices(positions, self.n_samples, self.seed, stream=self.stream) + self.first_row

    def gather(self, ids: Ints) -> Rows:
        return _planned(self.split, self.plan, ids)

    def n_targets(self, ids: Ints) -> Ints:
        return self.plan.n_row_targets(ids)


class MixtureRows(TrainingRows):
    """Rows of several sources of one split, each in an order of its own, taken by turns as their shares say.

    An epoch has as many rows as those of the sources together; a source with a larger share than its size begins its
    next epoch early.
    """

    def __init__(self, sources: Sequence[TrainingRows], schedule: Schedule) -> None:
        self.sources = sources
        self.schedule = schedule
        self.n_samples = sum(source.n_samples for source in sources)
        self.sequence_length = sources[0].sequence_length
        self.row_targets = sources[0].row_targets

    def ids(self, positions: ArrayLike) -> Ints:
        given = np.asarray(positions, dtype=np.int64)
        numbers, own = self.schedule.locate(given.reshape(-1))
        ids = numbers << SOURCE_BITS
        for number, source in enumerate(self.sources):
            mine = np.flatnonzero(numbers == number)
            ids[mine] |= source.ids(own[mine])
        return ids.reshape(given.shape)

    def gather(self, ids: Ints) -> Rows:
        return self.sources[0].gather(ids & ID_MASK)  # they all lie in one token file

    def n_targets(self, ids: Ints) -> Ints:
        return self.sources[0].n_targets(ids & ID_MASK)


def training_rows(cache: TokenCache, data: CorpusConfig, seed: int) -> TrainingRows:
    """The rows that training on a corpus takes; DataError where there is too little of a source for one."""
    split = cache.splits["train"]
    shares = data.shares()
    plan = None if data.windows == "stream" else make_plan(cache, data.windows, data.sequence_length).splits["train"]
    sources: list[TrainingRows] = []
    for number, name in enumerate(shares):
        if plan is None:
            span = split.sources[name]
            first = span.start - 1  # the <eos> before its first document
            sources.append(StreamRows(split, first, span.stop, data.sequence_length, seed, source=number, name=name))
            continue
        rows = plan.sources[name]
        if not rows.n_rows:
            raise _no_text(name)
        sources.append(PlannedRows(split, plan, rows.first_row, rows.n_rows, seed, source=number))
    return sources[0] if len(sources) == 1 else MixtureRows(sources, Schedule(shares, seed))


class EvaluationRows(ABC):
    """Rows in a fixed order that predict each token of a split once. The last may be shorter than the others."""

    def __init__(self, split: TokenSplit, sequence_length: int, n_full: int, rest: int = 0) -> None:
        self.split = split
        self.sequence_length = sequence_length
        self.n_targets = split.n_tokens
        self.n_full = n_full
        """Rows of sequence_length tokens."""
        self.rest = rest
        """Tokens of the last row, where it is shorter; else 0."""
        self.n_rows = n_full + (rest > 0)

    def n_batches(self, batch_size: int, rank: int = 0, world_size: int = 1) -> int:
        """Batches that batches() yields."""
        total = -(-self.n_full // batch_size) + (self.rest > 0)
        return len(range(rank, total, world_size))

    def batches(self, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Ints]:
        """Numbers of the rows of each batch of a rank; all rows of a batch are equally long."""
        n_full_batches = -(-self.n_full // batch_size)
        for batch in range(rank, n_full_batches, world_size):
            yield np.arange(batch * batch_size, min((batch + 1) * batch_size, self.n_full))
        if self.rest and n_full_batches % world_size == rank:
            yield np.arange(self.n_full, self.n_rows)

    @abstractmethod
    def gather(self, numbers: Ints) -> Rows:
        """The rows with these numbers; all are equally long."""


class StreamEvaluation(EvaluationRows):
    """Windows side by side: row i reads from place i * sequence_length on, and predicts from one further on."""

    def __init__(self, split: TokenSplit, sequence_length: int) -> None:
        super().__init__(split, sequence_length, *divmod(split.n_tokens, sequence_length))

    def gather(self, numbers: Ints) -> Rows:
        starts = numbers * self.sequence_length
        length = self.sequence_length if int(numbers[0]) < self.n_full else self.rest
        tokens = self.split.windows(starts, length + 1)  # (batch, seq + 1)
        return Rows(tokens[:, :-1], tokens[:, 1:], None, starts[:, None] + np.arange(1, length + 1))


class PlannedEvaluation(EvaluationRows):
    """The rows of a plan."""

    def __init__(self, split: TokenSplit, plan: SplitPlan) -> None:
        super().__init__(split, plan.sequence_length, plan.n_rows)
        self.plan = plan

    def gather(self, numbers: Ints) -> Rows:
        return _planned(self.split, self.plan, numbers)


def evaluation_rows(cache: TokenCache, split_name: str, windows: str, sequence_length: int) -> EvaluationRows:
    """The rows that predict each token of a split once."""
    split = cache.splits[split_name]
    if windows == "stream":
        return StreamEvaluation(split, sequence_length)
    return PlannedEvaluation(split, make_plan(cache, windows, sequence_length).splits[split_name])


def n_training_windows(n_tokens: int, sequence_length: int, source: str = "") -> int:
    """Rows in an epoch of a stream of so many tokens and the <eos> before them: as many as fit after any phase, and
    one where there are just enough tokens. source: its name in a mixture.
    """
    if n_tokens == 0:
        raise _no_text(source)
    if n_tokens < sequence_length:
        of = f" of data.parts.{source}" if source else ""
        raise DataError(
            f"data.sequence_length={sequence_length} needs at least {sequence_length:,} training tokens{of}, "
            f"found {n_tokens:,}; use data.sequence_length={max(1, n_tokens // 2)} or smaller, or more text"
        )
    return max(1, (n_tokens + 1 - sequence_length) // sequence_length)


def _no_text(source: str) -> DataError:
    option = f"data.parts.{source}" if source else "data"
    return DataError(
        f"{option} has no training documents, expected at least one; add text, or hold less of it out with "
        f"{option}.validation_fraction and {option}.test_fraction"
    )


def _planned(split: TokenSplit, plan: SplitPlan, numbers: Ints) -> Rows:
    """Rows of a plan; what no document fills is a segment of <eos>."""
    shape = (numbers.size, plan.sequence_length)
    starts, lengths = plan.pieces(numbers)
    ends = np.cumsum(lengths)
    begins = ends - lengths  # of each piece in the rows, laid end to end
    padding = np.flatnonzero(starts < 0)
    starts[padding] = 0  # an <eos>
    everywhere = np.arange(shape[0] * shape[1])
    places = everywhere + np.repeat(starts - begins + 1, lengths)
    positions = everywhere - np.repeat(begins, lengths) if plan.several else None
    for begin, end in zip(begins[padding].tolist(), ends[padding].tolist(), strict=True):
        places[begin:end] = 0
    targets = split.tokens[places].astype(np.int64)
    tokens = np.empty_like(targets)
    tokens[1:] = targets[:-1]  # within a piece, the target before is the token
    tokens[begins] = split.tokens[starts]
    for begin, end in zip(begins[padding].tolist(), ends[padding].tolist(), strict=True):
        targets[begin:end] = IGNORE
    return Rows(
        tokens.reshape(shape),
        targets.reshape(shape),
        None if positions is None else positions.reshape(shape),
        places.reshape(shape),
    )
