import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmexp.data.config import JsonLinesConfig, ParquetConfig
from lmexp.data.sources import base, columns
from lmexp.data.sources.base import ALL, Bad, Source, Unit
from lmexp.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"text": "plain", "n": 1, "meta": {"title": "A"}, "parts": ["one", "two"]},
    {"text": "naïve 日本語 🙂\n\r\nline", "n": 2, "meta": {"title": "B"}, "parts": ["one"]},
    {"text": " kept ", "n": 3, "meta": {"title": "\u2028"}, "parts": ["", "x", "y"]},
    {"text": "", "n": 4, "meta": {"title": "D"}, "parts": [""]},
    {"text": "nul \0 byte", "n": 5, "meta": {"title": "E"}, "parts": ["\0"]},
    {"text": "last", "n": 6, "meta": {"title": "F"}, "parts": ["f"]},
]


def source(path: Path | str, **settings: Any) -> Source:
    return ParquetConfig(path=str(path), **settings).source()


def read(source: Source) -> list[str | Bad]:
    return [found for unit in source.units() for found in source.read(unit)]


def documents(source: Source) -> list[str]:
    return [found for found in read(source) if isinstance(found, str)]


def quarantine(source: Source) -> list[tuple[str, int | None]]:
    return [(found.kind, found.line) for found in read(source) if isinstance(found, Bad)]


def write(path: Path, table: Any, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), path, **options)
    return path


def write_json_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "UNIT_BYTES", 2000)
    monkeypatch.setattr(columns, "BATCH_BYTES", 300)


RECORDS = [
    {"field": "text"},
    {"field": "meta.title"},
    {"field": "parts"},
    {"field": "parts.0"},
    {"field": "nothing|text"},
    {"template": "{meta.title}: {text}\\n{parts.0}"},
]


@pytest.mark.parametrize("settings", RECORDS, ids=str)
def test_the_same_rows_as_json_lines_give_the_same(settings: dict[str, Any], tmp_path: Path) -> None:
    parquet = source(write(tmp_path / "rows.parquet", pa.Table.from_pylist(ROWS), row_group_size=2), **settings)
    json_lines = JsonLinesConfig(path=str(write_json_lines(tmp_path / "rows.jsonl", ROWS)), **settings).source()
    assert documents(parquet) == documents(json_lines)
    assert len(documents(parquet)) >= 3
    assert quarantine(parquet) == quarantine(json_lines)


@given(texts=st.lists(st.text() | st.none(), min_size=1))
@settings(deadline=None, max_examples=40)
def test_any_texts_are_those_of_json_lines(texts: list[str | None], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("any")
    write(folder / "rows.parquet", {"text": pa.array(texts, pa.string())})
    write_json_lines(folder / "rows.jsonl", [{"text": text} for text in texts])
    expected = JsonLinesConfig(path=str(folder / "rows.jsonl")).source()
    assert [f if isinstance(f, str) else (f.kind, f.line) for f in read(source(folder))] == [
        f if isinstance(f, str) else (f.kind, f.line) for f in read(expected)
    ]


@pytest.mark.parametrize("value", ["text", "struct", "list"])
def test_text_that_is_not_utf8_is_set_aside_with_its_row(value: str, tmp_path: Path) -> None:
    raw = pa.array([b"good", b"caf\xe9", b"fine"] * 3, pa.binary()).view(pa.string())
    offsets = pa.array(range(10), pa.int32())
    arrays: dict[str, tuple[Any, str]] = {
        "text": (raw, "c"),
        "struct": (pa.StructArray.from_arrays([raw, raw], ["a", "b"]), "c.a"),
        "list": (pa.ListArray.from_arrays(offsets, raw), "c"),
    }
    array, field = arrays[value]
    found = source(write(tmp_path / "a.parquet", {"c": array}, row_group_size=4), field=field)
    assert documents(found) == ["good", "fine"] * 3
    assert quarantine(found) == [("not UTF-8", 2), ("not UTF-8", 5), ("not UTF-8", 8)]
    assert "byte 3 is 0xe9" in next(bad.reason for bad in read(found) if isinstance(bad, Bad))


def test_bad_text_beside_the_field_does_no_harm(tmp_path: Path) -> None:
    raw = pa.array([b"\xff"]).view(pa.string())
    struct = pa.StructArray.from_arrays([pa.array(["good"]), raw], ["a", "b"])
    write(tmp_path / "a.parquet", {"c": struct, "other": raw})
    assert documents(source(tmp_path, field="c.a")) == ["good"]


@pytest.mark.parametrize(
    "dtype",
    [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()],
    ids=str,
)
def test_every_type_that_holds_text_is_read(dtype: Any, tmp_path: Path) -> None:
    texts = ["é", "b" * 40, None]
    values = pa.array([None if t is None else t.encode() for t in texts], pa.binary())
    array = pa.array(texts, pa.string()) if "string" in str(dtype) else values
    found = source(write(tmp_path / "a.parquet", {"text": array.cast(dtype)}))
    assert documents(found) == texts[:2]
    assert quarantine(found) == [("wrong type", 3)]


def test_categories_and_lists_of_all_kinds_are_read(tmp_path: Path) -> None:
    lists = [["a", "b"], ["c", "d"]]
    table = {
        "category": pa.array(["a", "b"]).dictionary_encode(),
        "large": pa.array(lists, pa.large_list(pa.large_string())),
        "fixed": pa.array(lists, pa.list_(pa.string(), 2)),
        "structs": pa.array([[{"t": "x"}], []]),
    }
    path = write(tmp_path / "a.parquet", table)
    assert documents(source(path, field="category")) == ["a", "b"]
    assert documents(source(path, field="large")) == documents(source(path, field="fixed")) == ["a\nb", "c\nd"]
    assert documents(source(path, field="structs.0.t")) == ["x"]
    assert quarantine(source(path, field="structs.0.t")) == [("no field", 2)]


def test_only_what_the_text_needs_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", pa.Table.from_pylist(ROWS))
    asked = []
    original: Callable[..., Any] = pq.ParquetFile.iter_batches

    def iter_batches(self: Any, *args: Any, **options: Any) -> Any:
        asked.append(sorted(options["columns"]))
        return original(self, *args, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    documents(source(path))
    documents(source(path, template="{meta.title} {parts.1}"))
    assert asked == [["text"], ["meta.title", "parts"]]


def test_a_column_with_dots_in_its_name_comes_before_a_path(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"meta.title": ["whole"], "meta": [{"title": "part"}]})
    assert documents(source(tmp_path, field="meta.title")) == ["whole"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"field": "txt"},
            "expected a column txt (data.field), but the columns are text, n, meta, parts; did you mean",
        ),
        ({"field": "meta.titel"}, "expected a column meta.titel"),
        ({"template": "{text}{body}"}, "expected a column body (data.template)"),
        ({"field": "n"}, "expected text in n (data.field), but it is int64"),
        ({"field": "meta"}, "but it is struct<title: string>"),
        ({"field": "a|n"}, "but it is int64"),
    ],
)
@pytest.mark.parametrize("when", ["units", "read"])
def test_a_column_without_text_is_an_error_at_once(
    settings: dict[str, Any], message: str, when: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.parquet", pa.Table.from_pylist(ROWS))
    found = source(path, **settings)
    with pytest.raises(DataError) as caught:
        found.units() if when == "units" else list(found.read(Unit(ALL, (str(path),))))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_second_alternative_stands_in_for_nulls(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"a": ["one", None, None], "b": ["x", "two", None]})
    assert documents(source(tmp_path, field="a|b")) == ["one", "two"]
    assert quarantine(source(tmp_path, field="a|b")) == [("no field", 3)]


def test_a_column_of_nulls_is_set_aside_row_by_row(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"text": pa.nulls(2)})
    assert quarantine(source(tmp_path)) == [("wrong type", 1), ("wrong type", 2)]


def test_texts_that_are_too_long_are_set_aside(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"text": ["short", "é" * 51, "é" * 50, "x" * 101]})
    found = source(tmp_path, max_document_bytes=100)
    assert documents(found) == ["short", "é" * 50]
    assert quarantine(found) == [("too long", 2), ("too long", 4)]


@pytest.mark.usefixtures("small_units")
def test_units_are_ranges_of_row_groups_or_several_files(tmp_path: Path) -> None:
    texts = [f"document {i} " * 8 for i in range(300)]
    write(tmp_path / "a.parquet", {"text": texts[:3]})
    write(tmp_path / "b.parquet", {"text": texts[3:6]})
    write(tmp_path / "c.parquet", {"text": texts[6:290]}, row_group_size=10, use_dictionary=False)
    write(tmp_path / "d.parquet", {"text": texts[290:]})
    found = source(tmp_path)
    units = found.units()
    assert len(units) > 10
    assert [Path(path).name for path in units[0].paths] == ["a.parquet", "b.parquet"]
    assert all(unit.n_bytes <= 2000 for unit in units)
    assert documents(found) == texts
    shuffled = {unit: list(found.read(unit)) for unit in reversed(units)}
    assert [text for unit in units for text in shuffled[unit]] == texts


@pytest.mark.usefixtures("small_units")
def test_rows_are_numbered_through_all_units_of_a_file(tmp_path: Path) -> None:
    texts = [None if i % 7 == 0 else f"document {i} " * 8 for i in range(1, 301)]
    write(tmp_path / "a.parquet", {"text": texts}, row_group_size=9)
    assert quarantine(source(tmp_path)) == [("wrong type", i) for i in range(7, 301, 7)]


def test_validation_files_are_a_part_of_their_own(tmp_path: Path) -> None:
    for name in ("train-0", "train-1", "validation"):
        write(tmp_path / f"{name}.parquet", {"text": [name]})
    found = source(tmp_path, validation_pattern="validation.*")
    assert [(unit.part, len(unit.paths)) for unit in found.units()] == [(ALL, 2), ("validation", 1)]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all", b"PAR1" + b"x" * 100 + b"PAR1"])
def test_a_damaged_file_is_set_aside_and_the_others_are_read(content: bytes, tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"text": ["one"]})
    (tmp_path / "b.parquet").write_bytes(content)
    write(tmp_path / "c.parquet", {"text": ["two"]})
    found = read(source(tmp_path))
    assert (found[0], found[2]) == ("one", "two")
    bad = found[1]
    assert isinstance(bad, Bad)
    assert (bad.kind, bad.file, bad.line) == ("damaged file", str(tmp_path / "b.parquet"), None)


@pytest.mark.usefixtures("small_units")
def test_a_damaged_row_group_is_set_aside_and_the_others_are_read(tmp_path: Path) -> None:
    texts = [f"document {i} " * 8 for i in range(100)]
    options = {"row_group_size": 10, "use_dictionary": False, "write_page_checksum": True}
    path = write(tmp_path / "a.parquet", {"text": texts}, **options)
    chunk = pq.ParquetFile(path).metadata.row_group(3).column(0)
    raw = bytearray(path.read_bytes())
    raw[chunk.data_page_offset + chunk.total_compressed_size - 3] ^= 0xFF
    path.write_bytes(raw)
    assert quarantine(source(path)) == [("damaged file", 31)]
    assert documents(source(path)) == texts[:30] + texts[40:]


def test_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": ["one"]})
    found = source(tmp_path)
    (unit,) = found.units()
    os.remove(path)
    with pytest.raises(DataError, match=r"can't read .*a\.parquet: No such file"):
        list(found.read(unit))


def test_only_a_few_rows_are_held_at_once(tmp_path: Path) -> None:
    texts = [f"{i} " + "x" * 100_000 for i in range(600)]
    write(tmp_path / "a.parquet", {"text": texts}, compression="zstd", write_batch_size=8)
    found = source(tmp_path)
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    peak = 0
    for unit in found.units():
        for _ in found.read(unit):
            peak = max(peak, pool.bytes_allocated() - before)
    assert peak < 30e6  # of 60 MB


def test_two_columns_of_one_name_are_told(tmp_path: Path) -> None:
    array = pa.array(["a", "b"])
    write(tmp_path / "a.parquet", pa.Table.from_arrays([array, array], names=["text", "text"]))
    with pytest.raises(DataError, match="expected one column text, but 2 have this name"):
        read(source(tmp_path / "a.parquet"))
