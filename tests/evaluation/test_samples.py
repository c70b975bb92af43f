"""The samples table: what is written is read, and what others wrote is refused with a message."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmexp.errors import RunError
from lmexp.evaluation import samples_file
from lmexp.evaluation.samples import (
    COLUMNS,
    COUNTS,
    FORMAT,
    NUMBER,
    NUMBERS,
    TEXTS,
    Figure,
    Header,
    Key,
    Samples,
    add_columns,
    lists_of,
    make_table,
)
from lmexp.evaluation.samples_file import read_header, read_samples, write_samples
from tests.evaluation.choices import choice_samples
from tests.evaluation.equality import equal_but_for_latency

KEY = Key(model="1" * 64, task={"items": "ab", "deep": {"list": [1, None, "é"]}}, settings={"precision": "32-true"})
HEADER = Header(
    name="mine",
    kind="numbers",
    split="test",
    definition="numbers, “quoted”",
    key=KEY,
    figures=(
        Figure(name="loss", definition="mean", numerator="logprob", denominator="n_tokens", scale=-1.0, exp=True),
        Figure(
            name="acc", definition="share", numerator="score", binary=True, higher_is_better=True, counted="n_tokens"
        ),
    ),
    cluster="question",
)


def make_samples(n: int = 5) -> Samples:
    table = make_table(
        {
            "sample_id": [f"q{i}" for i in range(n)],
            "cluster_id": [f"c{i // 2}" for i in range(n)],
            "target": ["é\x00\n"] * n,
            "score": [math.nan, *np.arange(n - 1) / 3],
            "logprob": -np.arange(n) / 7,
            "logprobs": [[-0.5, math.nan, -math.inf][: i % 4] for i in range(n)],
            "n_tokens": list(range(n)),
            "choices": [["a", ""]] * n,
            "counts": [[1 << 40]] * n,
        },
        {"choices": TEXTS, "counts": COUNTS},
    )
    return Samples(HEADER, table)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine" / "samples.parquet"


@pytest.mark.parametrize("n", [0, 1, 5, 3000])
def test_what_is_written_is_read(path: Path, n: int) -> None:
    samples = make_samples(max(n, 1)).where(np.ones(max(n, 1), np.bool_) if n else np.zeros(1, np.bool_))
    write_samples(path, samples)
    found = read_samples(path)
    assert found.header == read_header(path) == HEADER
    assert equal_but_for_latency(found, samples)
    assert found.table.schema.names[: len(COLUMNS)] == list(COLUMNS)
    assert len(found) == n
    assert [entry.name for entry in path.parent.iterdir()] == ["samples.parquet"]


def test_columns_that_are_not_given_have_their_defaults() -> None:
    samples = make_samples()
    assert samples.values("prompt_id") == [""] * 5
    assert samples.values("severity") == [0.0] * 5
    with pytest.raises(AssertionError, match="no type for the columns colour"):
        make_table({"sample_id": ["a"], "cluster_id": ["a"], "colour": ["red"]}, {})


def test_columns_as_numpy_and_python(path: Path) -> None:
    samples = make_samples()
    assert samples.numbers("n_tokens").dtype == np.float64
    assert samples.counts("n_tokens").tolist() == [0, 1, 2, 3, 4]
    assert samples.clusters().tolist() == [0, 0, 1, 1, 2]
    assert samples.identities()[3] == ("q3", 0, "", "", 0.0)
    assert samples.where(np.array([True, False] * 2 + [True])).values("sample_id") == ["q0", "q2", "q4"]
    more = add_columns(
        samples.table, {"x": (NUMBER, [1.0] * 5), "y": (NUMBERS, lists_of(np.arange(5.0), np.ones(5, int)))}
    )
    assert more.column("y").to_pylist() == [[0.0], [1.0], [2.0], [3.0], [4.0]]


def test_equal_tables_may_have_other_latencies_and_nothing_else() -> None:
    one = make_samples()
    assert equal_but_for_latency(one, make_samples())  # though there are nans

    def changed(name: str, values: Any) -> Samples:
        table = make_samples().table
        at = table.column_names.index(name)
        return Samples(
            HEADER, table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
        )

    assert equal_but_for_latency(one, changed("latency", [1.0] * 5))
    assert not equal_but_for_latency(one, changed("logprob", [0.0] * 5))
    assert not equal_but_for_latency(one, changed("logprobs", [[-0.5]] * 5))
    assert not equal_but_for_latency(one, changed("score", [0.0] * 5))
    assert not equal_but_for_latency(one, Samples(replace(HEADER, definition="other"), one.table))
    assert not equal_but_for_latency(one, one.where(np.arange(5) < 4))
    chunked = Samples(HEADER, pa.concat_tables([one.table.slice(0, 2), one.table.slice(2)]))
    assert equal_but_for_latency(one, chunked)


def test_a_key_changes_with_all_that_a_score_depends_on() -> None:
    assert KEY.digest == replace(KEY, task=dict(reversed(KEY.task.items()))).digest
    others = [replace(KEY, model="2" * 64), replace(KEY, task={}), replace(KEY, settings={"precision": "bf16-mixed"})]
    assert len({KEY.digest, *(key.digest for key in others)}) == 4
    assert KEY.task == others[0].task == others[2].task != others[1].task


def test_a_write_that_fails_leaves_the_table_before_and_no_trace(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_samples(path, make_samples())
    before = path.read_bytes()

    def full(*args: object, **kwargs: object) -> None:
        Path(args[1]).write_bytes(b"half")  # type: ignore[arg-type]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        write_samples(path, make_samples(3))
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["samples.parquet"]


# what somebody else may have sent


def with_metadata(path: Path, text: str | None) -> None:
    table = make_samples().table.replace_schema_metadata(None if text is None else {FORMAT: text})
    pq.write_table(table, path)


def with_header(path: Path, **changes: Any) -> None:
    with_metadata(path, json.dumps(json.loads(HEADER.to_json()) | changes))


def without(path: Path, *keys: str) -> None:
    body = json.loads(HEADER.to_json())
    at = body
    for key in keys[:-1]:
        at = at[key]
    del at[keys[-1]]
    with_metadata(path, json.dumps(body))


def with_table(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(make_samples().table).replace_schema_metadata({FORMAT: HEADER.to_json()}), path)


def with_column(path: Path, name: str, values: Any) -> None:
    def change(table: pa.Table) -> pa.Table:
        if name not in table.column_names:
            return table.append_column(name, values)
        return table.set_column(table.column_names.index(name), name, values)

    with_table(path, change)


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def flip(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    for place in range(int(len(content) * at), int(len(content) * at) + 40):
        content[place] ^= 0xFF
    path.write_bytes(content)


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def huge_footer(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-8] + (0x7FFFFFF0).to_bytes(4, "little") + b"PAR1")


def bomb(path: Path) -> None:
    """Half a gigabyte of the same text in a file of kB."""
    n = 1 << 13
    table = make_table({"sample_id": ["q"] * n, "cluster_id": ["c"] * n, "input": ["x" * (1 << 16)] * n}, {})
    pq.write_table(table.replace_schema_metadata({FORMAT: HEADER.to_json()}), path, compression="zstd")


def extension(path: Path) -> None:
    """Where old versions of pyarrow opened a pickle (CVE-2023-47248)."""
    marks = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": b"cos\nsystem\n(S'exit'\ntR.",
    }

    def change(table: pa.Table) -> pa.Table:
        return table.append_column(pa.field("extra", pa.string(), metadata=marks), pa.array(["x"] * 5))

    with_table(path, change)


def nulls(path: Path) -> None:
    with_column(path, "target", pa.array([None] * 5, pa.string()))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing in it": (lambda path: path.write_bytes(b""), "not a samples table"),
    "no parquet": (lambda path: path.write_bytes(b"PAR1" + b"x" * 300 + b"PAR1"), "not a samples table"),
    "cut in half": (lambda path: cut(path, 0.5), "not a samples table"),
    "last byte missing": (lambda path: cut(path, 0.9999), "not a samples table"),
    "footer of 2 GB": (huge_footer, "not a samples table"),
    "a link": (link, "link"),
    "a pipe": (pipe, "it is a pipe; expected a file"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "expected a file"),
    "a terabyte": (sparse, "not a samples table|bytes"),
    "a bomb": (bomb, "it holds more than 100,000,000 bytes"),
    "another program's parquet": (lambda path: with_metadata(path, None), "doesn't say that it is one"),
    "header is no JSON": (lambda path: with_metadata(path, "{"), "samples.parquet"),
    "header is a list": (lambda path: with_metadata(path, "[]"), "samples.parquet"),
    "header is deep": (lambda path: with_metadata(path, "[" * 100_000), "samples.parquet"),
    "header is not UTF-8": (
        lambda path: pq.write_table(make_samples().table.replace_schema_metadata({FORMAT: b"\xff"}), path),
        "samples.parquet",
    ),
    "another format": (lambda path: with_header(path, format="other"), "expected format"),
    "another version": (lambda path: with_header(path, version=99), "version"),
    "unknown key": (lambda path: with_header(path, colour="red"), "its header is damaged"),
    "figures are no list": (lambda path: with_header(path, figures=3), "its header is damaged"),
    "figures of text": (lambda path: with_header(path, figures=["x"]), "its header is damaged"),
    "name is a number": (lambda path: with_header(path, name=3), "its header is damaged: name is 3|name is 3"),
    "key is a list": (lambda path: with_header(path, key=[]), "its header is damaged"),
    "no split": (lambda path: without(path, "split"), "its header is damaged"),
    "no model": (lambda path: without(path, "key", "model"), "its header is damaged"),
    "column missing": (lambda path: with_table(path, lambda t: t.drop_columns(["slice"])), "expected the columns"),
    "columns in another order": (
        lambda path: with_table(path, lambda t: t.select(t.column_names[::-1])),
        "expected the columns",
    ),
    "text where numbers are": (lambda path: with_column(path, "score", pa.array(["1"] * 5)), "expected the columns"),
    "float32": (lambda path: with_column(path, "score", pa.array([1.0] * 5, pa.float32())), "expected the columns"),
    "lists of lists": (lambda path: with_column(path, "extra", pa.array([[[1]]] * 5)), "expected the columns"),
    "bytes": (lambda path: with_column(path, "extra", pa.array([b"x"] * 5)), "expected the columns"),
    "a dictionary": (
        lambda path: with_column(path, "extra", pa.array(["x"] * 5).dictionary_encode()),
        "expected the columns",
    ),
    "extension type": (extension, "expected the columns"),
    "empty cells": (nulls, "it has empty cells"),
    "the same column twice": (
        lambda path: with_table(path, lambda t: t.append_column("score", t.column("score"))),
        "twice",
    ),
    "figure of a column that isn't there": (
        lambda path: with_header(path, figures=[json.loads(HEADER.to_json())["figures"][0] | {"numerator": "x"}]),
        "no column of numbers x",
    ),
    "figure of a column of text": (
        lambda path: with_header(path, figures=[json.loads(HEADER.to_json())["figures"][0] | {"denominator": "slice"}]),
        "no column of numbers slice",
    ),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", DAMAGE)
def test_what_lmexp_did_not_write_is_refused_with_a_message(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(samples_file, "MOST_BYTES", 100_000_000)
    write_samples(path, make_samples())
    damage, message = DAMAGE[name]
    damage(path)
    with pytest.raises(RunError, match=message) as error:
        read_samples(path)
    assert "samples.parquet" in str(error.value)
    assert len(str(error.value)) < 1500


@pytest.mark.parametrize("at", np.arange(0.02, 0.98, 0.06).tolist())
def test_flipped_bytes_are_refused_or_change_nothing_but_values(path: Path, at: float) -> None:
    write_samples(path, make_samples(300))
    flip(path, at)
    try:
        found = read_samples(path)
    except RunError:
        return
    assert found.table.schema.names[: len(COLUMNS)] == list(COLUMNS)


def test_a_missing_table_is_missing(path: Path) -> None:
    for read in (read_samples, read_header):
        with pytest.raises(FileNotFoundError):
            read(path)


def test_secrets_in_texts_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = choice_samples([[0, 1], [1, 0]], [0, 0])
    texts = pa.array(["my key is canary-5f0c7d, says he", "nothing"])
    samples.table = samples.table.set_column(
        samples.table.schema.get_field_index("input"), samples.table.schema.field("input"), texts
    )
    write_samples(tmp_path / "open.parquet", samples)
    assert read_samples(tmp_path / "open.parquet").values("input") == texts.to_pylist()
    monkeypatch.setenv("HF_TOKEN", "canary-5f0c7d")
    write_samples(tmp_path / "samples.parquet", samples)
    hidden, kept = read_samples(tmp_path / "samples.parquet").values("input")
    assert "canary" not in hidden and "says he" in hidden
    assert kept == "nothing"
