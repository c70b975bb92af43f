"""Parquet files; a document a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from lmexp.data.config import ParquetConfig
from lmexp.data.sources import base
from lmexp.data.sources.base import Bad, Unit
from lmexp.data.sources.columns import Column, ColumnText, rows_per_batch
from lmexp.data.sources.files import File, FileSource, find_files
from lmexp.errors import DataError

BUFFER_BYTES = 1 << 20
"""Read ahead in each column; without it pyarrow reads all of a row group's column at once. Of the pages in it, about
1 MB each as most writers make them, it then holds one or two."""

DAMAGE = (OSError, pa.ArrowException)
"""What pyarrow raises for damaged files."""


class ParquetSource(FileSource):
    """Rows of Parquet files. A unit is a range of a file's row groups, or several small files."""

    def __init__(self, config: ParquetConfig) -> None:
        self.config = config
        self.where = f"data.path={config.path}"
        self._text = ColumnText(config.field, config.template, config.max_document_bytes)

    def files(self) -> list[File]:
        return find_files(self.config)

    def units(self) -> list[Unit]:
        units: list[Unit] = []
        for file in self.files():
            for unit in self._units(file):
                last = units[-1] if units else None
                n_bytes = unit.n_bytes + (last.n_bytes if last else 0)
                whole = last is not None and last.stop is None and unit.stop is None
                if last and whole and last.part == unit.part and n_bytes <= base.UNIT_BYTES:
                    units[-1] = Unit(unit.part, last.paths + unit.paths, n_bytes=n_bytes)
                else:
                    units.append(unit)
        return units

    def read_file(self, path: str, start: int, stop: int | None) -> Iterator[str | Bad]:
        with open(path, "rb") as file:
            try:
                table = open_table(file)
            except DAMAGE as error:
                yield _bad(error, path)
                return
            columns = self._text.columns(table.schema_arrow, path)
            groups = [table.metadata.row_group(i) for i in range(table.num_row_groups)]
            row = 1 + sum(group.num_rows for group in groups[:start])
            for number in range(start, len(groups) if stop is None else stop):
                yield from self._read_row_group(table, number, columns, path, row)
                row += groups[number].num_rows

    def _units(self, file: File) -> list[Unit]:
        """The units of a file: the file as a whole, or ranges of its row groups."""
        try:
            sizes = self._sizes(file.path)
        except OSError as error:
            raise DataError(f"{self.where}: can't read {file.path}: {error.strerror or error}") from error
        if sizes is None:
            return [Unit(file.part, (file.path,), n_bytes=file.size)]
        if sum(sizes) <= base.UNIT_BYTES:
            return [Unit(file.part, (file.path,), n_bytes=sum(sizes))]
        units, start = [], 0
        for i in range(1, len(sizes) + 1):
            if i == len(sizes) or sum(sizes[start : i + 1]) > base.UNIT_BYTES:
                units.append(Unit(file.part, (file.path,), start, i, sum(sizes[start:i])))
                start = i
        return units

    def _sizes(self, path: str) -> list[int] | None:
        """Bytes of each row group, in the columns that are read; None where the file is damaged, as read_file tells."""
        with open(path, "rb") as stream:
            try:
                table = open_table(stream)
            except DAMAGE as error:
                _bad(error, path)
                return None
            paths = [column.path for column in self._text.columns(table.schema_arrow, path)]
            return [_size(table.metadata.row_group(i), paths) for i in range(table.num_row_groups)]

    def _read_row_group(
        self, table: Any, number: int, columns: list[Column], path: str, row: int
    ) -> Iterator[str | Bad]:
        group = table.metadata.row_group(number)
        names = [".".join(column.path) for column in columns]
        n_rows = rows_per_batch(_size(group, [column.path for column in columns]), group.num_rows)
        batches = table.iter_batches(n_rows, row_groups=[number], columns=names, use_threads=False)
        while True:
            try:
                batch = next(batches, None)
            except DAMAGE as error:
                yield _bad(error, path, row)
                return
            if batch is None:
                return
            yield from self._text.documents([batch], columns, path, row)
            row += batch.num_rows


def open_table(file: BinaryIO) -> Any:
    """A pyarrow.ParquetFile that holds little of the file in memory."""
    return pq.ParquetFile(
        file,
        buffer_size=BUFFER_BYTES,
        pre_buffer=False,
        page_checksum_verification=True,
        arrow_extensions_enabled=False,
    )


def _bad(error: Exception, path: str, row: int | None = None) -> Bad:
    """What to set aside where Arrow can't read on: the rest of a row group from a row on, or the whole file."""
    if isinstance(error, OSError) and error.errno is not None:  # the disk's, not Arrow's
        raise error
    lost = "it can't be read as Parquet" if row is None else "the rest of this row group can't be read"
    return Bad(f"damaged file: {lost} ({str(error).splitlines()[0]}); copy or download it again", path, row)


def _size(group: Any, paths: list[tuple[str, ...]]) -> int:
    """Uncompressed bytes of some columns of a row group."""
    names = [".".join(path) for path in paths]
    chunks = [group.column(i) for i in range(group.num_columns)]
    return sum(
        chunk.total_uncompressed_size
        for chunk in chunks
        if any(f"{chunk.path_in_schema}.".startswith(f"{name}.") for name in names)
    )
