"""Runs from anybody can be compared: what is planted in one is refused with a message that names it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from lmexp.cli.main import main
from tests.evaluation.tables import samples, write_run

TABLE = Path("evaluation", "csqa", "samples.parquet")


def forge(run: Path, **header: Any) -> None:
    """Other words in the header of a table."""
    table = pq.read_table(run / TABLE)
    body = json.loads(table.schema.metadata[b"lmexp.samples"]) | header
    pq.write_table(table.replace_schema_metadata({"lmexp.samples": json.dumps(body)}), run / TABLE)


def figure(run: Path, **changes: Any) -> None:
    body = json.loads(pq.read_schema(run / TABLE).metadata[b"lmexp.samples"])
    forge(run, figures=[body["figures"][0] | changes])


def columns(run: Path, change: Callable[[Any], Any]) -> None:
    table = pq.read_table(run / TABLE)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), run / TABLE)


def link(path: Path, to: Path) -> None:
    path.unlink()
    path.symlink_to(to)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link out of the folder": (lambda run: link(run / TABLE, Path("/etc/passwd")), "symbolic link"),
    "a link to another table": (lambda run: link(run / TABLE, run.parent / "good" / TABLE), "symbolic link"),
    "a pipe": (lambda run: pipe(run / TABLE), "a pipe"),
    "no parquet": (lambda run: (run / TABLE).write_bytes(b"PAR1" + bytes(100) + b"PAR1"), "not a samples table"),
    "a table of somebody else": (lambda run: pq.write_table(pa.table({"x": [1]}), run / TABLE), "doesn't say"),
    "another version": (lambda run: forge(run, version=99), "version 99"),
    "another name": (lambda run: forge(run, name="../../x"), "it says that it is of"),
    "a column that isn't there": (lambda run: figure(run, numerator="secret"), "no column of numbers secret"),
    "a column of text": (lambda run: figure(run, numerator="target"), "no column of numbers target"),
    "an infinite scale": (lambda run: figure(run, scale=1e999), "no finite scale"),
    "figures that are none": (lambda run: forge(run, figures=[{"name": "acc"}]), "header is damaged"),
    "a task that is none": (lambda run: forge(run, key=[]), "header is damaged"),
    "empty cells": (
        lambda run: columns(run, lambda t: t.set_column(10, "score", pa.nulls(len(t), pa.float64()))),
        "empty cells",
    ),
    "rows that stand twice": (lambda run: columns(run, lambda t: pa.concat_tables([t, t])), "stand in it twice"),
    "run.json of another place": (lambda run: (run / "run.json").write_text("[]"), "run.json"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_planted_in_a_run_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    scores = np.random.default_rng(0).integers(0, 2, (2, 40))
    good, sent = (write_run(tmp_path / "x" / which, samples(scores[i])) for i, which in enumerate(("good", "sent")))
    plant, told = CASES[name]
    plant(sent)
    for order in ([good, sent], [sent, good]):
        assert main(["compare", *map(str, order)]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert str(sent) in error
        assert "Traceback" not in error
    assert not (tmp_path / "outputs").exists()


def test_a_receipt_that_is_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [write_run(tmp_path / "x" / name, samples([1, 0, 1] * 9)) for name in ("a", "b")]
    (runs[0] / "receipt.json").write_text('{"format": "lmexp.receipt", "version": 2, "packages": 3}')
    (runs[1] / "receipt.json").write_text(
        '{"format": "lmexp.receipt", "version": 2, "created": "", "earlier": [], "packages": 3, "code": {"lmexp": 4}}'
    )
    assert main(["compare", *map(str, runs)]) == 0
