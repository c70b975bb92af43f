"""The samples table: a row for each sample that was scored. Every figure derives from it, without the model.

evaluation/<name>/samples.parquet holds the columns of COLUMNS and those that its evaluation adds. Its metadata (key
"lmexp.samples") is the JSON of a Header: what was asked of which model, and which columns make which figure. So
whoever reads a table can compute its figures, and compare them with those of another model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray

FORMAT = "lmexp.samples"
VERSION = 1

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


def _schema(types: Mapping[str, Any]) -> Any:
    return pa.schema([pa.field(name, dtype, nullable=False) for name, dtype in types.items()])
