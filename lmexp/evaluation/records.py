"""Rows of benchmark files, each with its place. A row that can't be read is an error: no item may be lost unseen."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]

from lmexp.data.sources.base import Bad
from lmexp.data.sources.csv_files import QuotedRows, Rows
from lmexp.data.sources.documents import NoDocument, decode
from lmexp.data.sources.json_lines import is_whole, parse
from lmexp.data.sources.parquet import DAMAGE, open_table
from lmexp.data.sources.streams import Lines, read_whole
from lmexp.data.sources.template import describe
from lmexp.errors import DataError
from lmexp.paths import expanded
from lmexp.plugins import did_you_mean
from lmexp.reading import open_file

FORMATS = {
    ".jsonl": "json",
    ".json": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
"""Suffix, before .gz or .zst, -> how a file is read. .arrow is what datasets' save_to_disk writes."""

MOST_ROW_BYTES = 1 << 26
MOST_BYTES = 1 << 28
"""Of the rows of an evaluation, as they stand in their files."""
BATCH_ROWS = 1 << 8
SHOWN = 3
"""Bad rows that an error quotes."""


@dataclass(frozen=True, slots=True)
class Record:
    """A row of a file."""

    fields: dict[str, Any]
    """Name -> value, of the types of JSON."""
    file: str
    """Path as the user gave it."""
    place: int
    """Line of the file, or number of the row, from 1."""
    number: int
    """Of the row in its file, from 1."""
    id: str
    """The number as text; "name.jsonl-17" where a folder holds several files."""

    @property
    def where(self) -> str:
        """FILE:PLACE, as an error begins."""
        return f"{self.file}:{self.place}"


def read_records(option: str, path: str, pattern: str = "*") -> list[Record]:
    """The rows of a file, or of the files of a folder that match a pattern, sorted by name.

    option: what an error calls the path, e.g. "evaluation.csqa.path". DataError where anything can't be read.
    """
    folder, names = find(option, path, pattern)
    records: list[Record] = []
    bad: list[Bad] = []
    n_bytes = 0
    for name in names:
        file = os.path.join(folder, name)
        for number, (place, found, size) in enumerate(_read(file), 1):
            n_bytes += size
            if n_bytes > MOST_BYTES:
                raise DataError(f"{option}={path}: its rows hold more than {MOST_BYTES:,} bytes; give a part of them")
            if isinstance(found, Bad):
                bad.append(found)
            else:
                records.append(
                    Record(found, file, place, number, f"{name}-{number}" if len(names) > 1 else str(number))
                )
    if bad:
        shown = "\n".join(f"  {one.file}:{one.line or 1}: {_reason(one)}" for one in bad[:SHOWN])
        more = f"\n  and {len(bad) - SHOWN:,} more" if len(bad) > SHOWN else ""
        raise DataError(f"{option}={path}: {len(bad):,} rows can't be read; mend them or take them out\n{shown}{more}")
    if not records:
        raise DataError(f"{option}={path}: there are no rows")
    return records


def read_lines(option: str, path: str) -> list[str]:
    """The lines of a text file, without their ends, up to the last that isn't blank."""
    _check_file(option, path)
    lines: list[str] = []
    for line in Lines(path, MOST_ROW_BYTES):
        if isinstance(line, Bad):
            raise DataError(f"{option}: {path}:{line.line or 1}: {_reason(line)}")
        lines.append(line.strip())
    while lines and not lines[-1]:
        lines.pop()
    return lines


def find(option: str, path: str, pattern: str) -> tuple[str, list[str]]:
    """Folder and names of the files that are read; DataError where there are none."""
    if not path:
        raise DataError(f"{option} is not set; say which file or folder holds the items, e.g. {option}=items.jsonl")
    given = expanded(path)
    if not given.is_dir():
        _check_file(option, str(given))
        _format(option, str(given))
        return str(given.parent), [given.name]
    there = sorted(entry.name for entry in os.scandir(given) if entry.is_file() and not entry.name.startswith("."))
    names = [name for name in there if fnmatchcase(name, pattern)]
    if not names:
        shown = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "")
        raise DataError(
            f"{option}={path}: no file in this folder matches {option.rpartition('.')[0]}.pattern={pattern}; "
            f"found {shown or 'no files'}"
        )
    for name in names:
        _format(option, name)
    return str(given), names


def digest_of(parts: list[Any]) -> str:
    """SHA-256 of values of JSON, one a line."""
    total = hashlib.sha256()
    for part in parts:
        line = json.dumps(part, ensure_ascii=False, separators=(",", ":"))
        total.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return total.hexdigest()


def _check_file(option: str, path: str) -> None:
    """DataError unless this is a regular file that can be read."""
    try:
        open_file(Path(path), DataError, follow=True).close()
    except FileNotFoundError:
        parent = Path(path).absolute().parent
        siblings = os.listdir(parent) if os.access(parent, os.R_OK | os.X_OK) else []
        hint = did_you_mean(Path(path).name, siblings) if parent.is_dir() else f" (there is no folder {parent})"
        raise DataError(f"{option}={path}: there is no such file{hint}; the current folder is {Path.cwd()}") from None


def _format(option: str, path: str) -> str:
    name = path.lower().removesuffix(".gz").removesuffix(".zst")
    found = FORMATS.get(os.path.splitext(name)[1])
    if found is None or (found in ("parquet", "arrow") and name != path.lower()):
        raise DataError(
            f"{option}: {path} is of no known format; expected a name that ends with {', '.join(FORMATS)}, all but the "
            f"last two also with .gz or .zst after it; in a folder, {option.rpartition('.')[0]}.pattern chooses"
        )
    return found


def _read(path: str) -> Iterator[tuple[int, dict[str, Any] | Bad, int]]:
    """Place, content and about the bytes of each row."""
    kind = _format("", path)
    if kind == "json":
        yield from _json_rows(path)
    elif kind in ("csv", "tsv"):
        yield from _table_rows(path, "," if kind == "csv" else "\t", '"' if kind == "csv" else None)
    else:
        yield from _arrow_rows(path, kind)


def _json_rows(path: str) -> Iterator[tuple[int, dict[str, Any] | Bad, int]]:
    if is_whole(path, MOST_ROW_BYTES):
        try:
            raw = read_whole(path, MOST_ROW_BYTES)
            found = parse(decode(raw))
        except NoDocument as reason:
            yield 1, Bad(str(reason), path), 0
            return
        for number, value in enumerate(found if isinstance(found, list) else [found], 1):
            yield number, _object(value, path, number), len(raw) if number == 1 else 0
        return
    lines = Lines(path, MOST_ROW_BYTES)
    for number, line in enumerate(lines, 1):
        if isinstance(line, Bad):
            yield line.line or number, line, 0
        elif line and not line.isspace():
            try:
                yield number, _object(parse(line), path, number), len(line)
            except NoDocument as reason:
                yield number, Bad(str(reason), path, number), len(line)


def _object(value: Any, path: str, number: int) -> dict[str, Any] | Bad:
    if isinstance(value, dict):
        return value
    return Bad(f"wrong type: the row is {describe(value)}; expected an object", path, number)


def _table_rows(path: str, delimiter: str, quote: str | None) -> Iterator[tuple[int, dict[str, Any] | Bad, int]]:
    lines = Lines(path, MOST_ROW_BYTES)
    rows = Rows(lines, delimiter) if quote is None else QuotedRows(lines, delimiter, quote)
    names: list[str] | None = None
    for row in rows:
        if isinstance(row, Bad):
            yield row.line or 1, row, 0
            continue
        place = rows.bad("").line or 1
        if names is None:
            names = row
            if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
                raise DataError(f"{path}:{place}: the header names {twice[0]!r} {names.count(twice[0])} times; rename")
            continue
        size = sum(map(len, row))
        if len(row) != len(names):
            reason = f"wrong number of columns: {len(row)}; the header names {len(names)}"
            yield place, Bad(reason, path, place), size
        else:
            yield place, dict(zip(names, row, strict=True)), size


def _arrow_rows(path: str, kind: str) -> Iterator[tuple[int, dict[str, Any] | Bad, int]]:
    number = 0
    with open_file(Path(path), DataError, follow=True) as file:
        try:
            if kind == "parquet":
                batches = open_table(file).iter_batches(BATCH_ROWS, use_threads=False)
            else:
                batches = pa.ipc.open_stream(file)
            for batch in batches:
                batch.validate(full=True)
                rows = batch.to_pylist()
                for i, row in enumerate(rows):
                    number += 1
                    yield number, row, batch.nbytes if i == 0 else 0
        except (*DAMAGE, UnicodeDecodeError) as error:
            text = str(error).partition("\n")[0][:200]
            yield number + 1, Bad(f"damaged file: {text}; copy or download it again", path, number + 1), 0


def _reason(bad: Bad) -> str:
    """A reason that was written for a corpus, in words that fit here."""
    limit = f"more than data.max_document_bytes={MOST_ROW_BYTES}; divide it, or raise that"
    words = bad.reason.replace(limit, f"more than {MOST_ROW_BYTES:,}")
    return words.replace("leave it out (data.path, data.pattern) or convert", "convert").replace(
        ", or set data.quote=null where quotes mean nothing", ""
    )
