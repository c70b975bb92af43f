"""Scoring samples, batch by batch and shared among processes, into a table that survives an interruption.

Which samples make up a batch depends on the evaluation alone, never on who scores it or what was scored before. So an
evaluation that was killed, or that several processes share, ends with the same table as one that nobody disturbed, to
the last bit. What has been scored is written now and then as evaluation/<name>/parts-<key>/*.parquet.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from lmexp.errors import RunError
from lmexp.evaluation.samples import Header, Samples, columns_of, digest
from lmexp.evaluation.samples_file import read_bounded, read_header, read_samples, step_table, write_samples
from lmexp.files import write_atomically
from lmexp.paths import SAMPLES_PARQUET
from lmexp.reading import open_file

if TYPE_CHECKING:
    from lmexp.evaluation.context import EvaluationContext

SECONDS = 20.0
"""Between parts: what a kill loses at most, and the batch in hand."""

ORDER, BATCH = "order", "batch"
"""Columns of parts that a table doesn't have: the place of a row in the table, and the batch it was scored in."""


def finished(context: EvaluationContext, header: Header) -> Samples | None:
    """The table of an earlier evaluation with the same key, on every process; None where there is none.

    All processes must call this.
    """
    path = None
    if context.rank == 0 and context.folder is not None and header.key.model:
        folder = context.folder / header.name
        path = find_table(folder, header.key.digest)
    path = context.gather(path)[0]
    if path is None:
        return None
    samples = read_samples(path)
    if not set(chain(*map(columns_of, header.figures))) <= set(samples.table.column_names):
        return None  # another version of lmexp made it, when there were fewer figures
    if context.rank == 0 and path.name != SAMPLES_PARQUET:
        publish(context, samples)
    return Samples(header, samples.table)  # what figures say may have changed since


def find_table(folder: Path, key_digest: str) -> Path | None:
    """The file of the table with this key in evaluation/<name>/; None where there is none."""
    for path in (folder / SAMPLES_PARQUET, _aside(folder, key_digest)):
        try:
            if read_header(path).key.digest == key_digest:
                return path
        except (FileNotFoundError, RunError):  # a damaged one is none
            continue
    return None


def publish(context: EvaluationContext, samples: Samples) -> None:
    """Make this the table of its evaluation; another one there is kept as samples-<key>.parquet. For one process.

    During training it is the table of a step, and nothing else is touched.
    """
    if context.folder is None:
        return
    folder = context.folder / samples.header.name
    if context.step is not None:
        write_samples(folder / step_table(context.step), samples)
        return
    path = folder / SAMPLES_PARQUET
    try:
        earlier = read_header(path)
        if earlier.key.digest != samples.header.key.digest:
            path.replace(_aside(folder, earlier.key.digest))
    except (FileNotFoundError, RunError):  # a damaged one is replaced
        pass
    write_samples(path, samples, owner=context.request)


def collect(
    context: EvaluationContext,
    header: Header,
    batches: Sequence[Any],
    score: Callable[[Any], Any],
    *,
    schema: Mapping[str, Any],
    batching: Mapping[str, Any],
    finish: Callable[[Any], Any],
) -> Samples:
    """The table of an evaluation: taken over, gone on with, or scored. All processes must call this.

    batches: what each call of score gets, the same on every process.
    score: columns of one batch as a pyarrow.Table of schema and ORDER.
    batching: what decides which samples are scored together, e.g. the batch size. JSON types.
    finish: makes the table's columns from all rows in order, on every process.
    """
    found = finished(context, header)
    if found is not None:
        return found
    parts = Parts(context, header, {**schema, ORDER: pa.int64(), BATCH: pa.int64()}, batching)
    earlier = parts.read() if context.rank == 0 else []
    done = context.gather(sorted({n for part in earlier for n in part.column(BATCH).unique().to_pylist()}))[0]
    mine = [n for n in range(len(batches)) if n not in set(done)][context.rank :: context.world_size]
    try:
        for i, number in enumerate(mine):
            context.progress(header.name, i, len(mine))
            parts.add(number, score(batches[number]))
    finally:
        parts.flush()
    context.progress(header.name, len(mine), len(mine))
    tables = [table for gathered in context.gather([*earlier, *parts.added]) for table in gathered]
    rows = pa.concat_tables([parts.schema.empty_table(), *tables]).sort_by(ORDER)
    samples = Samples(header, finish(rows.drop_columns([ORDER, BATCH])))
    if context.rank == 0:
        publish(context, samples)
        parts.remove()
    context.gather(None)  # nobody goes on before the table is there
    return samples


class Parts:
    """What one process has scored of a table that isn't complete."""

    def __init__(
        self, context: EvaluationContext, header: Header, types: Mapping[str, Any], batching: Mapping[str, Any]
    ) -> None:
        self.schema = pa.schema(list(types.items()))
        self.added: list[Any] = []
        self._unwritten = 0
        self._written = time.monotonic()
        self.folder: Path | None = None
        if context.folder is not None and header.key.model:
            key = digest({"key": header.key.digest, "batching": dict(batching), "schema": str(self.schema)})
            self.folder = context.folder / header.name / f"parts-{key[:16]}"

    def add(self, batch: int, table: Any) -> None:
        """Keep the rows of a batch, and write them when it is time."""
        numbers = pa.array([batch] * table.num_rows, pa.int64())
        self.added.append(table.append_column(BATCH, numbers).select(self.schema.names).cast(self.schema))
        if time.monotonic() - self._written > SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what isn't written yet."""
        new = self.added[self._unwritten :]
        if self.folder is not None and new:
            self.folder.mkdir(parents=True, exist_ok=True)
            buffer = BytesIO()
            pq.write_table(pa.concat_tables(new), buffer, compression="zstd")
            write_atomically(self.folder / f"{secrets.token_hex(8)}.parquet", buffer.getvalue())
        self._unwritten, self._written = len(self.added), time.monotonic()

    def read(self) -> list[Any]:
        """What was scored before; each batch once. Damaged files are scored again."""
        found, seen = [], set()
        for path in sorted(self.folder.glob("*.parquet")) if self.folder is not None else ():
            try:
                with open_file(path, RunError) as file:
                    table = read_bounded(pq.ParquetFile(file), path)
                if table.schema.names != self.schema.names:
                    continue
                table = table.cast(self.schema)
            except (RunError, OSError, ValueError, pa.ArrowException):
                continue
            for number in table.column(BATCH).unique().to_pylist():
                if number not in seen:
                    seen.add(number)
                    found.append(table.filter(pc.equal(table.column(BATCH), number)))
        return found

    def remove(self) -> None:
        """Delete the files: the table holds it all."""
        if self.folder is not None and self.folder.is_dir():
            shutil.rmtree(self.folder)


def _aside(folder: Path, key_digest: str) -> Path:
    return folder / f"samples-{key_digest[:16]}.parquet"
