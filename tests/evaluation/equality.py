"""Whether two samples tables are the same."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from lmexp.evaluation.samples import COUNT, NUMBER, NUMBERS, Samples


def equal_but_for_latency(one: Samples, other: Samples) -> bool:
    """Whether both hold the same, to the last bit."""
    tables = [samples.table.drop_columns(["latency"]) for samples in (one, other)]
    columns = zip(*(table.columns for table in tables), strict=True)
    return (
        one.header == other.header
        and tables[0].schema.equals(tables[1].schema)
        and all(_bits(a).equals(_bits(b)) for a, b in columns)
    )


def _bits(column: Any) -> Any:
    """A column with its numbers as their bits: pyarrow takes no nan for equal to itself."""
    values = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if values.type == NUMBERS:
        offsets = values.offsets.to_numpy()
        return pa.ListArray.from_arrays(pa.array(offsets - offsets[0], pa.int32()), values.flatten().view(COUNT))
    return values.view(COUNT) if values.type == NUMBER else values
