"""The samples table: a row for each sample that was scored. Every figure derives from it, without the model.

evaluation/<name>/samples.parquet holds the columns of COLUMNS and those that its evaluation adds. Its metadata (key
"lmexp.samples") is the JSON of a Header: what was asked of which model, and which columns make which figure. So
whoever reads a table can compute its figures, and compare them with those of another model.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from numpy.typing import NDArray

from lmexp.errors import RunError
from lmexp.files import sync_file, sync_folder
from lmexp.reading import check_format, open_file, parse_object
from lmexp.redaction import redact_text, secret_values

FORMAT = "lmexp.samples"
VERSION = 1
SAMPLES_PARQUET = "samples.parquet"
STEP_PARQUET = re.compile(r"step-(\d{8,18})\.parquet", re.ASCII)
"""Tables made during training."""

MOST_BYTES = 1 << 33
"""Of a table in memory."""
BATCH_ROWS = 1 << 10
EXTENSION = b"ARROW:extension:name"
"""What marks a column of a type that another program defines."""

TEXT, COUNT, NUMBER = pa.string(), pa.int64(), pa.float64()
TEXTS, COUNTS, NUMBERS = pa.list_(TEXT), pa.list_(COUNT), pa.list_(NUMBER)

COLUMNS: dict[str, pa.DataType] = {
    "sample_id": TEXT,
    "cluster_id": TEXT,
    "slice": TEXT,
    "seed": COUNT,
    "prompt_id": TEXT,
    "perturbation": TEXT,
    "severity": NUMBER,
    "input": TEXT,
    "prediction": TEXT,
    "target": TEXT,
    "score": NUMBER,
    "logprob": NUMBER,
    "logprobs": NUMBERS,
    "n_tokens": COUNT,
    "n_bytes": COUNT,
    "latency": NUMBER,
}
"""Of every table, in this order; docs/evaluation.md says what they mean. None is ever null."""

DEFAULTS: dict[str, Any] = {
    "slice": "",
    "seed": 0,
    "prompt_id": "",
    "perturbation": "",
    "severity": 0.0,
    "input": "",
    "prediction": "",
    "target": "",
    "score": float("nan"),
    "logprob": float("nan"),
    "logprobs": [],
    "n_tokens": 0,
    "n_bytes": 0,
    "latency": 0.0,
}
"""Of the columns that an evaluation has no use for."""

TEXT_COLUMNS = ("input", "prediction", "target")
"""Columns that hold text of the corpus, of prompts and of the model."""

IDENTITY = ("sample_id", "seed", "prompt_id", "perturbation", "severity")
"""Columns that together name a row: two models are compared row by row where these are equal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """How a figure follows from the columns of a table: scale * sum(numerator) / sum(denominator), or exp of that."""

    name: str
    """Without the evaluation's own name: "acc"."""
    definition: str
    """What it is, without what was scored."""
    numerator: str
    """Column that is summed."""
    denominator: str | None = None
    """Column by whose sum it is divided; None is the number of samples."""
    scale: float = 1.0
    exp: bool = False
    """The figure is exp of the ratio."""
    binary: bool = False
    """The numerator is 0 or 1, and there is no denominator."""
    paired: bool = False
    """The numerator is a difference between two models, or two ways to use one, on the same sample."""
    unit: str = ""
    higher_is_better: bool | None = None
    counted: str | None = None
    """Column whose sum is the n of the row; None is the denominator's, or the number of samples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """What a table depends on: with an equal key it needn't be made again."""

    model: str
    """SHA-256 of the weights; "" where they aren't known, and nothing is ever taken over."""
    task: dict[str, Any]
    """What was asked: digests of items and prompts, and all that a comparison must keep equal. JSON types."""
    settings: dict[str, Any] = field(default_factory=dict)
    """How the model was run: what may change the scores though the task is the same. JSON types."""

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return digest(asdict(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What a table says of itself."""

    name: str
    """Of the evaluation in the config: "csqa"."""
    kind: str
    """Of the evaluation: "multiple_choice"."""
    split: str
    """Part of the data that was scored."""
    definition: str
    """What was scored, and how."""
    key: Key
    figures: tuple[Figure, ...] = ()
    """What a report shows of the table; the first is the main one."""
    cluster: str = "sample"
    """What the cluster_id stands for: document, window, question, ..."""

    def to_json(self) -> str:
        """As the metadata holds it."""
        body = {"format": FORMAT, "version": VERSION, **asdict(self)}
        return json.dumps(body, ensure_ascii=False, sort_keys=True, allow_nan=False)


class Samples:
    """A table and its header."""

    def __init__(self, header: Header, table: Any) -> None:
        self.header = header
        self.table = table
        """pyarrow.Table: COLUMNS, then the evaluation's own."""

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def numbers(self, column: str) -> NDArray[np.float64]:
        """A column of numbers, (n,) float64."""
        values: NDArray[np.float64] = self.table.column(column).to_numpy().astype(np.float64)
        return values

    def counts(self, column: str) -> NDArray[np.int64]:
        """A column of whole numbers, (n,) int64."""
        values: NDArray[np.int64] = self.table.column(column).to_numpy()
        return values

    def values(self, column: str) -> list[Any]:
        """A column as Python objects: text, lists."""
        values: list[Any] = self.table.column(column).to_pylist()
        return values

    def clusters(self) -> NDArray[np.int64]:
        """Number of each row's cluster, (n,), from 0 in order of first appearance."""
        encoded = self.table.column("cluster_id").combine_chunks().dictionary_encode()
        numbers: NDArray[np.int64] = encoded.indices.to_numpy().astype(np.int64)
        return numbers

    def identities(self) -> list[tuple[Any, ...]]:
        """What names each row, see IDENTITY."""
        return list(zip(*(self.values(name) for name in IDENTITY), strict=True))

    def where(self, mask: NDArray[np.bool_]) -> Samples:
        """Some of the rows."""
        return Samples(self.header, self.table.filter(pa.array(mask)))

    def equal_but_for_latency(self, other: Samples) -> bool:
        """Whether both hold the same, to the last bit."""
        one, two = (s.table.drop_columns(["latency"]) for s in (self, other))
        return (
            self.header == other.header
            and bool(one.schema.equals(two.schema))
            and all(_bits(a).equals(_bits(b)) for a, b in zip(one.columns, two.columns, strict=True))
        )


def _bits(column: Any) -> Any:
    """A column with its numbers as their bits: pyarrow takes no nan for equal to itself."""
    values = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if values.type == NUMBERS:
        return pa.ListArray.from_arrays(_offsets(values), values.flatten().view(COUNT))
    return values.view(COUNT) if values.type == NUMBER else values


def _offsets(lists: Any) -> Any:
    offsets = lists.offsets.to_numpy()
    return pa.array(offsets - offsets[0], pa.int32())


def columns_of(figure: Figure) -> list[str]:
    """The columns that a figure adds up."""
    return [name for name in (figure.numerator, figure.denominator, figure.counted) if name is not None]


def digest(facts: Mapping[str, Any]) -> str:
    """SHA-256 of JSON."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def make_table(columns: Mapping[str, Sequence[Any] | NDArray[Any]], extra: Mapping[str, Any]) -> Any:
    """A pyarrow.Table of the columns given, and the defaults of the others. extra: type of those not in COLUMNS."""
    types = {**COLUMNS, **extra}
    unknown = set(columns) - set(types)
    assert not unknown, f"no type for the columns {', '.join(sorted(unknown))}"
    n = len(columns["sample_id"])
    arrays = []
    for name, dtype in types.items():
        values = columns[name] if name in columns else [DEFAULTS[name]] * n
        arrays.append(values if isinstance(values, pa.Array) else pa.array(values, dtype, from_pandas=False))
    return pa.Table.from_arrays(arrays, schema=_schema(types))


def add_columns(table: Any, columns: Mapping[str, tuple[Any, Any]]) -> Any:
    """The table with more columns: name -> type and values."""
    for name, (dtype, values) in columns.items():
        array = values if isinstance(values, pa.Array) else pa.array(values, dtype, from_pandas=False)
        table = table.append_column(pa.field(name, dtype, nullable=False), array)
    return table


def lists_of(values: NDArray[Any], lengths: NDArray[np.int64]) -> Any:
    """A column of lists: consecutive pieces of values, of these lengths."""
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(values, COUNT if values.dtype.kind == "i" else NUMBER))


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


def _schema(types: Mapping[str, Any]) -> Any:
    return pa.schema([pa.field(name, dtype, nullable=False) for name, dtype in types.items()])


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
