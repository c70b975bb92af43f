"""Row plans: which pieces of documents stand together in the rows of packed and padded windows.

<cache>/plans/<windows>-<sequence_length>/
    plan.json          {"format": "lmexp.plan", "version": 1, "fingerprint" of the cache, "windows", "sequence_length",
                        "splits": {split: {"n_rows", "n_pieces", "n_targets",
                                           "sources": {name: {"first_row", "n_rows", "n_targets"}}}}}
    <split>.rows       int64 (n_rows + 1): first piece of each row, and at last n_pieces
    <split>.starts     int64 (n_pieces): position of a piece's first input in the token file; -1 is padding
    <split>.lengths    int32 (n_pieces): its tokens; those of a row sum to sequence_length

A document's inputs are the <eos> before it and its tokens, its targets its tokens and the <eos> after it. It is cut
into pieces of sequence_length, and a rest. packed: the pieces of a source are packed best-fit decreasing (the longest
first, each into the fullest row that still takes it), in blocks of the corpus so that memory stays bounded. padded: a
piece a row. Pieces of different sources never share a row. The rows of a block stand in the order of their first
documents.
"""

from __future__ import annotations

import json
import shutil
import uuid
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lmexp.data.writing import sync_all
from lmexp.errors import DataError
from lmexp.files import sync_folder
from lmexp.reading import read_object

if TYPE_CHECKING:
    from lmexp.data.cache import TokenCache, TokenSplit

Ints = NDArray[np.int64]

FORMAT = "lmexp.plan"
VERSION = 1
PLAN_JSON = "plan.json"
ARRAYS = {"rows": "<i8", "starts": "<i8", "lengths": "<i4"}
PADDING = -1

BLOCK_PIECES = 1 << 21
"""Pieces packed at once, but for those of one document."""


@dataclass(frozen=True, slots=True)
class SourceRows:
    """The rows of a source, one after another."""

    first_row: int
    n_rows: int
    n_targets: int


class SplitPlan:
    """The rows of a split; its arrays are memory-mapped."""

    def __init__(self, folder: Path, name: str, windows: str, sequence_length: int, facts: dict[str, Any]) -> None:
        self.sequence_length = sequence_length
        self.several = windows == "packed"
        """Whether a row may hold several pieces."""
        self.n_rows = int(facts["n_rows"])
        self.n_pieces = int(facts["n_pieces"])
        """With those of padding."""
        self.n_targets = int(facts["n_targets"])
        self.sources = {source: SourceRows(**rows) for source, rows in facts["sources"].items()}
        self.rows: Ints = _open(folder, name, "rows", self.n_rows + 1)
        self.starts: Ints = _open(folder, name, "starts", self.n_pieces)
        self.lengths: NDArray[np.int32] = _open(folder, name, "lengths", self.n_pieces)
        if self.rows[0] != 0 or self.rows[-1] != self.n_pieces:
            raise _damaged(folder, f"{name}.rows doesn't fit {name}.starts")

    @property
    def padding_share(self) -> float:
        """Share of the rows' places that predict nothing."""
        places = self.n_rows * self.sequence_length
        return 1 - self.n_targets / places if places else 0.0

    def pieces(self, rows: Ints) -> tuple[Ints, Ints]:
        """Start and length of each piece of some rows (n,), one row after another; a start of -1 is padding."""
        first = self.rows[rows]
        n_pieces = self.rows[rows + 1] - first
        ends = np.cumsum(n_pieces)
        pieces = np.repeat(first - ends + n_pieces, n_pieces) + np.arange(ends[-1])
        return self.starts[pieces], self.lengths[pieces].astype(np.int64)

    def n_row_targets(self, rows: Ints) -> Ints:
        """Targets of each row; any shape."""
        last = self.rows[rows + 1] - 1  # only the last piece may be padding
        return np.where(self.starts[last] == PADDING, self.sequence_length - self.lengths[last], self.sequence_length)


class Plan:
    """An opened plan. splits: those of the cache."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.path = folder
        self.windows: str = facts["windows"]
        self.sequence_length: int = facts["sequence_length"]
        self.splits = {
            name: SplitPlan(folder, name, self.windows, self.sequence_length, split)
            for name, split in facts["splits"].items()
        }


def make_plan(cache: TokenCache, windows: str, sequence_length: int) -> Plan:
    """The plan of a cache: opened if there is one, made if there isn't."""
    folder = _folder(cache, windows, sequence_length)
    if not folder.exists():
        _build(folder, cache, windows, sequence_length)
    for left in folder.parent.glob(f".{folder.name}-*"):  # by a process that was killed, or is slower than another
        shutil.rmtree(left, ignore_errors=True)
    return open_plan(cache, windows, sequence_length)


def open_plan(cache: TokenCache, windows: str, sequence_length: int) -> Plan:
    """The plan that was made for a cache; DataError where it is damaged or another cache's."""
    folder = _folder(cache, windows, sequence_length)
    try:
        facts = read_object(folder / PLAN_JSON, DataError)
    except (OSError, DataError) as error:
        raise _damaged(folder, f"{PLAN_JSON} can't be read ({error})") from error
    wanted = _head(cache, windows, sequence_length)
    for key, value in wanted.items():
        found = facts.get(key)
        if found != value:
            raise _damaged(folder, f"{PLAN_JSON} has {key} {found!r}, expected {value!r}")
    try:
        if facts["splits"].keys() != cache.splits.keys():
            raise KeyError("other splits than the cache")
        return Plan(folder, facts)
    except DataError:
        raise
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(folder, f"{PLAN_JSON} lacks what it should have ({error!r})") from error


def cut(document_starts: Ints, sequence_length: int) -> tuple[Ints, Ints]:
    """First input and length of each piece of some documents, in their order.

    document_starts: the place of each document's first token, and at last that of the next document's.

    >>> cut(np.array([1, 4, 13]), 4)
    (array([ 0,  3,  7, 11]), array([3, 4, 4, 1]))
    """
    n_tokens = np.diff(document_starts)
    n_pieces = -(-n_tokens // sequence_length)
    ends = np.cumsum(n_pieces)
    numbers = np.arange(ends[-1]) - np.repeat(ends - n_pieces, n_pieces)  # 0, 1, ... in each document
    offsets = numbers * sequence_length
    lengths = np.minimum(np.repeat(n_tokens, n_pieces) - offsets, sequence_length)
    return np.repeat(document_starts[:-1] - 1, n_pieces) + offsets, lengths


def best_fit(lengths: Ints, capacity: int) -> Ints:
    """Row of each piece, packed best-fit decreasing; rows are numbered by their first pieces.

    Pieces of one length are placed together. Where the fullest row that takes a piece is the fullest again after it,
    it takes the next one too: so each row with the least room r >= length takes r // length of them at once.

    >>> best_fit(np.array([3, 5, 3, 2, 2]), 8)
    array([0, 0, 1, 1, 1])
    """
    rows = np.empty(lengths.size, np.int64)
    order = np.argsort(-lengths, kind="stable")
    values, counts = np.unique(lengths, return_counts=True)
    open_rows: dict[int, list[Ints]] = {}  # room -> rows with so much, in the order in which they came to have it
    rooms: list[int] = []  # the keys, sorted
    n_rows = begin = 0
    for length, count in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
        pieces = order[begin : begin + count]
        begin += count
        while pieces.size:
            place = bisect_left(rooms, length)
            if place < len(rooms):
                room = rooms.pop(place)
                found = np.concatenate(open_rows.pop(room))
            else:
                room = capacity
                found = np.arange(n_rows, n_rows - (-pieces.size // (capacity // length)))
                n_rows += found.size
            each = room // length
            n_full = min(found.size, pieces.size // each)
            taken = np.repeat(found[:n_full], each)
            rows[pieces[: taken.size]] = taken
            pieces = pieces[taken.size :]
            _put(open_rows, rooms, room - each * length, found[:n_full])
            found = found[n_full:]
            if pieces.size and found.size:  # fewer than one row could take
                rows[pieces] = found[0]
                _put(open_rows, rooms, room - pieces.size * length, found[:1])
                found = found[1:]
                pieces = pieces[:0]
            _put(open_rows, rooms, room, found)
    return _by_first_piece(rows, n_rows)


def _put(open_rows: dict[int, list[Ints]], rooms: list[int], room: int, rows: Ints) -> None:
    """Note that rows have so much room."""
    if not room or not rows.size:
        return
    if room not in open_rows:
        open_rows[room] = []
        insort(rooms, room)
    open_rows[room].append(rows)


def _by_first_piece(rows: Ints, n_rows: int) -> Ints:
    first = np.empty(n_rows, np.int64)
    first[rows[::-1]] = np.arange(rows.size)[::-1]  # of several, the last one is kept
    numbers = np.empty(n_rows, np.int64)
    numbers[np.argsort(first)] = np.arange(n_rows)
    return numbers[rows]


def _folder(cache: TokenCache, windows: str, sequence_length: int) -> Path:
    return cache.path / "plans" / f"{windows}-{sequence_length}"


def _head(cache: TokenCache, windows: str, sequence_length: int) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": cache.fingerprint,
        "windows": windows,
        "sequence_length": sequence_length,
    }


def _build(folder: Path, cache: TokenCache, windows: str, sequence_length: int) -> None:
    """Make the plan beside folder, then rename it. If another process was faster, its plan is the same."""
    beside = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    try:
        beside.mkdir(parents=True)
        splits = {name: _write_split(beside, split, windows, sequence_length) for name, split in cache.splits.items()}
        body = {**_head(cache, windows, sequence_length), "splits": splits}
        (beside / PLAN_JSON).write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
        sync_all(beside)
        beside.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        if folder.is_dir():
            return  # another process was faster
        raise DataError(
            f"can't write the row plan in {folder.parent}: {error.strerror or error}; "
            f"choose another folder with data.cache_dir=FOLDER"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write_split(folder: Path, split: TokenSplit, windows: str, sequence_length: int) -> dict[str, Any]:
    """Write the arrays of a split; its facts."""
    n_rows = n_pieces = 0
    sources: dict[str, dict[str, int]] = {}
    with (
        (folder / f"{split.name}.rows").open("wb") as rows_file,
        (folder / f"{split.name}.starts").open("wb") as starts_file,
        (folder / f"{split.name}.lengths").open("wb") as lengths_file,
    ):
        _append(rows_file, np.zeros(1, np.int64), "rows")
        for name, source in split.sources.items():
            first_row = n_rows
            documents = split.document_starts[source.first_document : source.first_document + source.n_documents + 1]
            for block in _blocks(documents, sequence_length):
                starts, lengths = cut(block, sequence_length)
                rows = np.arange(starts.size) if windows == "padded" else best_fit(lengths, sequence_length)
                starts, lengths, row_ends = _fill_up(rows, starts, lengths, sequence_length)
                _append(rows_file, row_ends + n_pieces, "rows")
                _append(starts_file, starts, "starts")
                _append(lengths_file, lengths, "lengths")
                n_rows += row_ends.size
                n_pieces += starts.size
            sources[name] = asdict(SourceRows(first_row, n_rows - first_row, source.stop - source.start))
    n_targets = sum(source["n_targets"] for source in sources.values())
    return {"n_rows": n_rows, "n_pieces": n_pieces, "n_targets": n_targets, "sources": sources}


def _blocks(document_starts: Ints, sequence_length: int) -> Iterator[Ints]:
    """Documents, by their starts, that are packed at once."""
    first, n = 0, len(document_starts) - 1
    while first < n:
        block = np.asarray(document_starts[first : first + BLOCK_PIECES + 1])
        n_pieces = np.cumsum(-(-np.diff(block) // sequence_length))
        n_taken = max(1, int(np.searchsorted(n_pieces, BLOCK_PIECES, side="right")))
        yield block[: n_taken + 1]
        first += n_taken


def _fill_up(rows: Ints, starts: Ints, lengths: Ints, sequence_length: int) -> tuple[Ints, Ints, Ints]:
    """The pieces row by row, each row filled up with one of padding; and the number of pieces up to each row's end."""
    room = sequence_length - np.bincount(rows, weights=lengths).astype(np.int64)
    short = np.flatnonzero(room)
    all_rows = np.concatenate([rows, short])
    order = np.argsort(all_rows, kind="stable")
    all_starts = np.concatenate([starts, np.full(short.size, PADDING)])
    all_lengths = np.concatenate([lengths, room[short]])
    return all_starts[order], all_lengths[order], np.cumsum(np.bincount(all_rows))


def _append(file: BinaryIO, values: Ints, name: str) -> None:
    file.write(values.astype(ARRAYS[name]).tobytes())


def _open(folder: Path, split: str, name: str, n: int) -> NDArray[Any]:
    path = folder / f"{split}.{name}"
    dtype = np.dtype(ARRAYS[name])
    found = path.stat().st_size if path.exists() else None
    if found != n * dtype.itemsize:
        what = "is missing" if found is None else f"has {found:,} bytes, not {n * dtype.itemsize:,}"
        raise _damaged(folder, f"{path.name} {what}")
    if not n:
        return np.empty(0, dtype)  # nothing can't be mapped
    # A plain array over the mapped file: indexing a np.memmap costs several times as much.
    return np.asarray(np.memmap(path, dtype, mode="r"))


def _damaged(folder: Path, what: str) -> DataError:
    return DataError(f"row plan {folder} can't be used: {what}; delete this folder and it is made again")
