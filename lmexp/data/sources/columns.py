"""Documents in the columns of Arrow tables: what Parquet files and Hugging Face's data sets are read as."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]

from lmexp.data.sources.base import Bad
from lmexp.data.sources.documents import NoDocument, checked, decode
from lmexp.data.sources.template import RecordText
from lmexp.errors import DataError
from lmexp.plugins import did_you_mean

BATCH_BYTES = 1 << 22
"""About so many bytes of a table are held at once."""
BATCH_ROWS = 1 << 10

TEXT_TYPES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
)
LIST_TYPES = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


@dataclass(frozen=True, slots=True)
class Column:
    """What is read of a table for a field."""

    key: str
    """Its name in a record: the whole path, or where it leads through a list, the column's name."""
    path: tuple[str, ...]
    """Names of the column and of the struct fields in it."""


class ColumnText:
    """Makes the text of a table's rows, as RecordText makes that of records."""

    def __init__(self, field: str, template: str | None, max_bytes: int) -> None:
        self._text = RecordText(field, template)
        self._max_bytes = max_bytes
        self._has_alternatives = any(len(paths) > 1 for paths in self._text.fields.values())

    def columns(self, schema: Any, where: str) -> list[Column]:
        """What to read. DataError where the table has no such column, or one that can't hold text."""
        found = {}
        for field, paths in self._text.fields.items():
            present = [resolved for path in paths if (resolved := _resolve(schema, path, where))]
            if not present:
                raise DataError(
                    f"{where}: expected a column {field} ({self._text.option}), but the columns are "
                    f"{', '.join(schema.names) or 'none'}{did_you_mean(field, schema.names)}; set {self._text.option}"
                )
            for column, dtype in present:
                if not _holds_text(dtype):
                    raise DataError(
                        f"{where}: expected text in {field} ({self._text.option}), but it is {dtype}; set "
                        f"{self._text.option} to another of the columns {', '.join(schema.names)}"
                    )
                found[column.key] = column
        return list(found.values())

    def documents(
        self, batches: Iterable[Any], columns: list[Column], file: str, first_row: int
    ) -> Iterator[str | Bad]:
        """The documents of record batches. first_row: number of the first row, from 1."""
        row = first_row
        for batch in batches:
            values = [_values(batch, column) for column in columns]
            for i in range(batch.num_rows):
                try:
                    yield self._document({column.key: value[i] for column, value in zip(columns, values, strict=True)})
                except NoDocument as reason:
                    yield Bad(str(reason), file, row + i)
            row += batch.num_rows

    def _document(self, record: dict[str, Any]) -> str:
        if self._has_alternatives:  # a table has no other way to leave a field out
            record = {key: value for key, value in record.items() if value is not None}
        text = self._text({key: _decoded(value) for key, value in record.items()})
        most = self._max_bytes
        if len(text) * 4 > most and (n := len(text.encode())) > most:
            raise NoDocument(
                f"too long: {n:,} bytes; data.max_document_bytes={most} quarantines it; divide it, or raise that"
            )
        return checked(text)


def rows_per_batch(n_bytes: int, n_rows: int) -> int:
    """How many rows of a table make about BATCH_BYTES."""
    return max(1, min(BATCH_ROWS, BATCH_BYTES * n_rows // max(1, n_bytes)))


def _resolve(schema: Any, path: str, where: str) -> tuple[Column, Any] | None:
    """The column that a path leads to, and the type at its end."""
    if schema.names.count(path) > 1:
        raise DataError(
            f"{where}: expected one column {path}, but {schema.names.count(path)} have this name; rename them"
        )
    if path in schema.names:
        return Column(path, (path,)), schema.field(path).type
    name, *rest = path.split(".")
    if name not in schema.names:
        return None
    dtype, through_list = schema.field(name).type, False
    for part in rest:
        if pa.types.is_struct(dtype) and dtype.get_field_index(part) >= 0:
            dtype = dtype.field(part).type
        elif _is_any(dtype, LIST_TYPES) and part.isdecimal():
            dtype, through_list = dtype.value_type, True
        else:
            return None
    return Column(name, (name,)) if through_list else Column(path, (name, *rest)), dtype


def _is_any(dtype: Any, kinds: Any) -> bool:
    return any(kind(dtype) for kind in kinds)


def _holds_text(dtype: Any) -> bool:
    """Whether a type is text (bytes too, as some tools leave the mark of text out), a list of texts, or only nulls."""
    if pa.types.is_dictionary(dtype) or _is_any(dtype, LIST_TYPES):
        dtype = dtype.value_type
    if pa.types.is_dictionary(dtype):
        dtype = dtype.value_type
    return _is_any(dtype, TEXT_TYPES) or bool(pa.types.is_null(dtype))


def _values(batch: Any, column: Column) -> list[Any]:
    """A column's values as Python objects, text as bytes: Arrow doesn't check that it is UTF-8."""
    name, *inner = column.path
    array = batch.column(name)
    for part in inner:
        array = pc.struct_field(array, part)
    dtype = _undecoded(array.type)
    values: list[Any] = (array if dtype == array.type else array.cast(dtype)).to_pylist()
    return values


def _undecoded(dtype: Any) -> Any:
    """A type with bytes in place of text."""
    if pa.types.is_dictionary(dtype):
        return _undecoded(dtype.value_type)
    if _is_any(dtype, TEXT_TYPES):
        return pa.large_binary()
    if pa.types.is_list(dtype):
        return pa.list_(_undecoded(dtype.value_type))
    if pa.types.is_large_list(dtype):
        return pa.large_list(_undecoded(dtype.value_type))
    if pa.types.is_fixed_size_list(dtype):
        return pa.list_(_undecoded(dtype.value_type), dtype.list_size)
    if pa.types.is_struct(dtype):
        return pa.struct([field.with_type(_undecoded(field.type)) for field in dtype])
    return dtype


def _decoded(value: Any) -> Any:
    """A value with text in place of bytes. NoDocument where it isn't UTF-8."""
    if isinstance(value, bytes):
        return decode(value)
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if isinstance(value, dict):
        return {key: _decoded(item) for key, item in value.items()}
    return value
