"""Tables as text: a record a document."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator

from lmexp.data.config import CsvConfig
from lmexp.data.sources.base import Bad
from lmexp.data.sources.documents import NoDocument, checked, decode
from lmexp.data.sources.files import File, FileSource, find_files
from lmexp.data.sources.streams import Lines
from lmexp.data.sources.template import RecordText
from lmexp.errors import ConfigError, DataError
from lmexp.plugins import did_you_mean


class CsvSource(FileSource):
    """Files of comma-, tab- or otherwise separated values."""

    def __init__(self, config: CsvConfig) -> None:
        self.config = config
        self.where = f"data.path={config.path}"
        self._text = RecordText(config.field, config.template)
        if not config.header:
            for field in self._text.fields:
                if not field.isdecimal():
                    raise ConfigError(
                        f"{self._text.option} has {field!r}, but with data.header=false columns are numbered; "
                        f"expected 0 for the first, 1 for the second, ..."
                    )

    def files(self) -> list[File]:
        return find_files(self.config)

    def divisible(self, file: File) -> bool:
        return self.config.quote is None  # a quoted value may hold line ends, so that a line is no beginning

    def read_file(self, path: str, start: int, stop: int | None) -> Iterator[str | Bad]:
        rows = self._rows(path, start, stop)
        records = iter(rows)
        names = None
        if self.config.header:
            head = next(iter(self._rows(path, 0, None)) if start else records, None)
            if head is None:
                return
            names = self._names(path, head)
        columns = self._columns(path, names)
        for row in records:
            if isinstance(row, Bad):
                yield row
                continue
            try:
                yield self._document(row, columns, names)
            except NoDocument as reason:
                yield rows.bad(str(reason))

    def _rows(self, path: str, start: int, stop: int | None) -> Rows | QuotedRows:
        lines = Lines(path, self.config.max_document_bytes, start, stop)
        if self.config.quote is None:
            return Rows(lines, self.config.delimiter)
        return QuotedRows(lines, self.config.delimiter, self.config.quote)

    def _document(self, row: list[str], columns: dict[str, int], names: list[str] | None) -> str:
        if names is not None and len(row) != len(names):
            raise NoDocument(f"wrong number of columns: {len(row)}; the header names {len(names)}")
        if names is None and len(row) <= max(columns.values()):
            raise NoDocument(
                f"wrong number of columns: {len(row)}; {self._text.option} needs at least {max(columns.values()) + 1}"
            )
        return checked(self._text({name: row[column] for name, column in columns.items()}))

    def _names(self, path: str, head: list[str] | Bad) -> list[str]:
        """Names of the columns; DataError where the header can't be read, since then no row can."""
        if isinstance(head, Bad):
            raise DataError(f"{self.where}: the header of {path} (line {head.line}) can't be read: {head.reason}")
        return head

    def _columns(self, path: str, names: list[str] | None) -> dict[str, int]:
        """Field -> number of its column."""
        if names is None:
            return {field: int(field) for field in self._text.fields}
        columns = {}
        for field, alternatives in self._text.fields.items():
            chosen = next((name for name in alternatives if name in names), None)
            if chosen is not None and names.count(chosen) > 1:
                raise DataError(
                    f"{self.where}: {path} has {names.count(chosen)} columns called {chosen!r}; choose one by its "
                    f"number, {self._text.option}={names.index(chosen)} (the first is 0)"
                )
            if chosen is not None:
                columns[chosen] = names.index(chosen)
            elif field.isdecimal() and int(field) < len(names):
                columns[field] = int(field)
            else:
                raise DataError(
                    f"{self.where}: {path} has no column {field!r} ({self._text.option}); its header names "
                    f"{', '.join(names)}{did_you_mean(field, names)}; without a header: data.header=false"
                )
        return columns


class Rows:
    """Rows without quoting: a line each. Blank lines are left out."""

    def __init__(self, lines: Lines, delimiter: str) -> None:
        self._lines = lines
        self._delimiter = delimiter

    def __iter__(self) -> Iterator[list[str] | Bad]:
        for line in self._lines:
            if isinstance(line, Bad):
                yield line
            elif line and not line.isspace():
                yield line.split(self._delimiter)

    def bad(self, reason: str) -> Bad:
        """A Bad for the last row."""
        return self._lines.bad(reason)


class QuotedRows:
    """Rows as the csv module reads them; a record may have several lines. Blank lines are left out."""

    def __init__(self, lines: Lines, delimiter: str, quote: str) -> None:
        self._lines = lines
        self._feed = _Feed(lines)
        self._reader = csv.reader(self._feed, delimiter=delimiter, quotechar=quote)

    def __iter__(self) -> Iterator[list[str] | Bad]:
        csv.field_size_limit(max(csv.field_size_limit(), self._lines.limit))
        feed = self._feed
        while True:
            feed.begin()
            try:
                row = next(self._reader)
            except StopIteration:
                return
            except _Broken as broken:
                yield broken.bad
            except _Unclosed as reason:
                bad = self.bad(str(reason))
                feed.rewind()
                yield bad
            except csv.Error as error:
                yield self.bad(feed.flaw or f"not CSV: {error}")
            else:
                if feed.flaw is not None:
                    yield self.bad(feed.flaw)
                elif row and not (len(feed.record) == 1 and feed.record[0][1].isspace()):
                    yield row

    def bad(self, reason: str) -> Bad:
        """A Bad for the last record, by its first line."""
        return self._lines.bad(reason, self._feed.record[0][0])


class _Unclosed(Exception):  # noqa: N818 - a finding about the file
    """A quote that was opened and has no end."""


class _Broken(Exception):  # noqa: N818 - a finding about the file
    """A line that can't be read."""

    def __init__(self, bad: Bad) -> None:
        super().__init__(bad.reason)
        self.bad = bad


class _Feed:
    """Lines as the csv module asks for them; it asks within a record only where a quote is open."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._iterator: Iterator[bytes | Bad] | None = None
        self._again: deque[tuple[int, bytes | Bad]] = deque()
        self.record: list[tuple[int, bytes]] = []
        """Numbers and lines of the record so far."""
        self.flaw: str | None = None
        """What is wrong with its text."""
        self._n_bytes = 0

    def begin(self) -> None:
        """A new record begins."""
        self.record = []
        self.flaw = None
        self._n_bytes = 0

    def rewind(self) -> None:
        """Read the record's lines after its first one again, as records of their own."""
        self._again.extendleft(reversed(self.record[1:]))

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        number, raw = self._next()
        self._n_bytes += len(raw)
        self.record.append((number, raw))
        if self._n_bytes > self._lines.limit + 2 and len(self.record) > 1:
            raise _Unclosed(
                f"unclosed quote: the record that begins here is longer than data.max_document_bytes="
                f"{self._lines.limit}; close it, or set data.quote=null where quotes mean nothing"
            )
        try:
            return decode(raw)
        except NoDocument as reason:
            self.flaw = self.flaw or str(reason)
            return raw.decode(errors="surrogateescape")

    def _next(self) -> tuple[int, bytes]:
        if self._iterator is None:
            self._iterator = self._lines.raw()
        if self._again:
            number, raw = self._again.popleft()
        else:
            following = next(self._iterator, None)
            if following is None and self.record:
                raise _Unclosed(
                    "unclosed quote: the file ends within the record that begins here; close it, or set "
                    "data.quote=null where quotes mean nothing"
                )
            if following is None:
                raise StopIteration
            number, raw = self._lines.number, following
        if isinstance(raw, bytes):
            return number, raw
        if self.record and raw.kind == "too long":
            self._again.appendleft((number, raw))
            raise _Unclosed(
                "unclosed quote: a line that is too long follows within the record that begins here; close it, or "
                "set data.quote=null where quotes mean nothing"
            )
        raise _Broken(raw)
