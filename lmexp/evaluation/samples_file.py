"""A samples table as a file: format lmexp.samples, written whole or not at all, and refused where it isn't one."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from lmexp.errors import RunError
from lmexp.evaluation.samples import (
    COLUMNS,
    COUNT,
    COUNTS,
    FORMAT,
    NUMBER,
    NUMBERS,
    TEXT,
    TEXT_COLUMNS,
    TEXTS,
    VERSION,
    Figure,
    Header,
    Key,
    Samples,
    columns_of,
)
from lmexp.files import sync_file, sync_folder
from lmexp.reading import check_format, open_file, parse_object
from lmexp.redaction import redact_text, secret_values

STEP_PARQUET = re.compile(r"step-(\d{8,18})\.parquet", re.ASCII)
"""Tables made during training."""

MOST_BYTES = 1 << 33
"""Of a table in memory."""
BATCH_ROWS = 1 << 10
EXTENSION = b"ARROW:extension:name"
"""What marks a column of a type that another program defines."""


def write_samples(path: Path, samples: Samples, *, owner: str = "") -> None:
    """Write a table, complete or not at all. owner: what the name of the unfinished file begins with."""
    temporary = path.with_name(f".{owner or path.name}.{secrets.token_hex(4)}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    table = _without_secrets(samples.table).replace_schema_metadata({FORMAT: samples.header.to_json()})
    try:
        pq.write_table(table, temporary, compression="zstd")
        sync_file(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _without_secrets(table: Any) -> Any:
    """The same with every secret in its text replaced: the table goes to W&B too."""
    for name in TEXT_COLUMNS if secret_values() else ():
        texts = table.column(name).to_pylist()
        if (clean := [redact_text(text) for text in texts]) != texts:
            field = table.schema.field(name)
            table = table.set_column(table.schema.get_field_index(name), field, pa.array(clean, TEXT))
    return table


def step_table(step: int) -> str:
    """The name of a table that was made during training: step-00000100.parquet."""
    return f"step-{step:08d}.parquet"


def cut_back_tables(folder: Path, step: int | None) -> None:
    """Delete the tables of steps after this one (None: all) from evaluation/ before a run goes on from there."""
    for path in folder.glob("*/step-*.parquet"):
        found = STEP_PARQUET.fullmatch(path.name)
        if found and (step is None or int(found[1]) > step):
            path.unlink()


def read_samples(path: Path) -> Samples:
    """A table that write_samples wrote. RunError where it is damaged or of another format or version; FileNotFoundError
    where there is none."""
    with open_file(path, RunError) as file:
        try:
            opened = pq.ParquetFile(file)
            header = _header(opened.schema_arrow.metadata or {}, path)
            _check_schema(opened.schema_arrow, path)
            _check_figures(header.figures, opened.schema_arrow, path)
            return Samples(header, read_bounded(opened, path))
        except RunError:
            raise
        except (OSError, ValueError, pa.ArrowException) as error:  # what pyarrow raises for damaged files
            reason = str(error).partition("\n")[0][:200]
            raise RunError(f"{path}: not a samples table ({reason}); delete it, and evaluate again") from None


def read_header(path: Path) -> Header:
    """What a table says of itself, its rows unread."""
    with open_file(path, RunError) as file:
        try:
            return _header(pq.read_schema(file).metadata or {}, path)
        except RunError:
            raise
        except (OSError, ValueError, pa.ArrowException) as error:
            reason = str(error).partition("\n")[0][:200]
            raise RunError(f"{path}: not a samples table ({reason}); delete it, and evaluate again") from None


def _check_schema(schema: Any, path: Path) -> None:
    known = (TEXT, COUNT, NUMBER, TEXTS, COUNTS, NUMBERS)
    expected = list(COLUMNS.items())
    found = [(column.name, column.type) for column in schema]
    plain = all(column.type in known and EXTENSION not in (column.metadata or {}) for column in schema)
    if found[: len(expected)] != expected or not plain:
        raise RunError(
            f"{path}: expected the columns {', '.join(COLUMNS)} and others of text and numbers, got "
            f"{', '.join(f'{name} ({dtype})' for name, dtype in found)[:500]}; lmexp didn't write it"
        )
    twice = {name for name in schema.names if schema.names.count(name) > 1}
    if twice:
        raise RunError(f"{path}: it has columns twice ({', '.join(sorted(twice))[:200]}); lmexp didn't write it")


def _check_figures(figures: Sequence[Figure], schema: Any, path: Path) -> None:
    numbers = {column.name for column in schema if column.type in (COUNT, NUMBER)}
    for figure in figures:
        for name in columns_of(figure):
            if name not in numbers:
                raise RunError(
                    f"{path}: it has no column of numbers {name[:80]}, of which its header makes the figure "
                    f"{figure.name[:80]}; lmexp didn't write it"
                )
        if not np.isfinite(figure.scale):
            raise RunError(f"{path}: the figure {figure.name[:80]} has no finite scale; lmexp didn't write it")


def read_bounded(opened: Any, path: Path) -> Any:
    """All rows; RunError where they take more memory than a table of ours would."""
    batches, size = [], 0
    for batch in opened.iter_batches(batch_size=BATCH_ROWS):
        size += batch.nbytes
        if size > MOST_BYTES:
            raise RunError(f"{path}: it holds more than {MOST_BYTES:,} bytes; expected a samples table")
        if any(column.null_count for column in batch.columns):
            raise RunError(f"{path}: it has empty cells, which lmexp doesn't write; delete it, and evaluate again")
        batches.append(batch)
    table = pa.Table.from_batches(batches, schema=opened.schema_arrow)
    table.validate(full=True)
    return table.replace_schema_metadata(None)


def _header(metadata: Mapping[bytes, bytes], path: Path) -> Header:
    content = metadata.get(FORMAT.encode())
    if content is None:
        raise RunError(f"{path}: expected a samples table of lmexp, but it doesn't say that it is one")
    body = parse_object(content, path, RunError)
    check_format(body, path, RunError, FORMAT, VERSION)
    given = {name: value for name, value in body.items() if name not in ("format", "version")}
    try:
        given["key"] = Key(**_typed(given["key"], KEY_TYPES))
        given["figures"] = tuple(Figure(**_typed(figure, FIGURE_TYPES)) for figure in given["figures"])
        return Header(**_typed(given, HEADER_TYPES))
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: its header is damaged ({error}); delete it, and evaluate again") from None


def _typed(given: Any, types: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ValueError(f"it has {repr(given)[:80]}, expected an object")
    if given.keys() != types.keys():
        raise ValueError(f"it has {', '.join(map(str, given))[:200]}; expected {', '.join(types)}")
    for name, kinds in types.items():
        if not isinstance(given[name], kinds):
            raise ValueError(f"{name} is {repr(given[name])[:80]}")
    return dict(given)


KEY_TYPES: dict[str, tuple[type, ...]] = {"model": (str,), "task": (dict,), "settings": (dict,)}
FIGURE_TYPES: dict[str, tuple[type, ...]] = {
    **{f.name: (str,) for f in fields(Figure)},
    **dict.fromkeys(("denominator", "counted"), (str, type(None))),
    **dict.fromkeys(("exp", "binary", "paired"), (bool,)),
    "scale": (float, int),
    "higher_is_better": (bool, type(None)),
}
HEADER_TYPES: dict[str, tuple[type, ...]] = {
    **{f.name: (str,) for f in fields(Header)},
    "key": (Key,),
    "figures": (tuple,),
}
