from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmexp.errors import ConfigError, DataError
from lmexp.evaluation import records
from lmexp.evaluation.records import Record, read_lines, read_records
from lmexp.evaluation.templates import Template

ROWS = [{"q": f"été {i}", "n": i, "options": ["a", "b"]} for i in range(3)]
OPTION = "evaluation.it.path"


def write(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def record(**fields: object) -> Record:
    return Record(dict(fields), "items.jsonl", 7, 7, "7")


def test_the_same_rows_in_any_format(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, tmp_path / "rows.parquet")
    with pa.ipc.new_stream(str(tmp_path / "rows.arrow"), table.schema) as writer:
        writer.write_table(table)
    paths = [
        write(tmp_path / "rows.jsonl", lines(ROWS)),
        write(tmp_path / "rows.json", json.dumps(ROWS, indent=1)),
        write(tmp_path / "rows.jsonl.gz", gzip.compress(lines(ROWS).encode())),
        write(tmp_path / "rows.jsonl.zst", zstandard.ZstdCompressor().compress(lines(ROWS).encode())),
        str(tmp_path / "rows.parquet"),
        str(tmp_path / "rows.arrow"),
    ]
    for path in paths:
        found = read_records(OPTION, path)
        assert [one.fields for one in found] == ROWS, path
        assert [one.id for one in found] == ["1", "2", "3"], path


def test_tables_have_text_and_know_their_lines(tmp_path: Path) -> None:
    found = read_records(OPTION, write(tmp_path / "t.csv", 'q,a\n"one\ntwo",x\n\nthree,"y,z"\n'))
    assert [one.fields for one in found] == [{"q": "one\ntwo", "a": "x"}, {"q": "three", "a": "y,z"}]
    assert [(one.place, one.number) for one in found] == [(2, 1), (5, 2)]
    found = read_records(OPTION, write(tmp_path / "t.tsv", 'q\ta\n"one\tx\n'))
    assert found[0].fields == {"q": '"one', "a": "x"}


def test_a_folder_is_read_in_the_order_of_its_names_and_its_rows_are_named_by_file(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", ".hidden.jsonl", "README.md"):
        write(tmp_path / name, lines(ROWS[:2]))
    found = read_records(OPTION, str(tmp_path), "*.jsonl")
    assert [one.id for one in found] == ["a.jsonl-1", "a.jsonl-2", "b.jsonl-1", "b.jsonl-2"]
    with pytest.raises(
        DataError, match=r"no file in this folder matches evaluation\.it\.pattern=\*\.csv; found README"
    ):
        read_records(OPTION, str(tmp_path), "*.csv")
    with pytest.raises(
        DataError, match=r"README\.md is of no known format; expected .*evaluation\.it\.pattern chooses"
    ):
        read_records(OPTION, str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", '{"a": 1}\n{"a": \n', r"x\.jsonl:2: not JSON"),
        ("x.jsonl", b'{"a": "\xff"}\n', r"x\.jsonl:1: not UTF-8: byte \d+ is 0xff"),
        ("x.jsonl", "[1]\n", r"x\.jsonl:1: wrong type: the row is a number; expected an object"),
        ("x.jsonl", "\n\n", "there are no rows"),
        ("x.csv", "a,b\n1,2,3\n", r"x\.csv:2: wrong number of columns: 3; the header names 2"),
        ("x.csv", 'a,b\n"1,2\n', r"x\.csv:2: unclosed quote: [^=]*; close it$"),
        ("x.csv", "a,a\n1,2\n", "the header names 'a' 2 times"),
        ("x.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:-12], r"truncated file|damaged file"),
        ("x.parquet", b"PAR1 nothing", r"damaged file: .*copy or download it again"),
        ("x.arrow", b"nothing", r"damaged file"),
        ("x.txt", "text", "of no known format"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_file_and_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_records(OPTION, write(tmp_path / name, content))


def test_many_bad_rows_are_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"5 rows can't be read; .*(?s:.*)and 2 more"):
        read_records(OPTION, write(tmp_path / "x.jsonl", '{"a": 1}\n' + "nothing\n" * 5))


def test_a_wrong_path_is_refused_with_what_is_there(tmp_path: Path) -> None:
    write(tmp_path / "valid.jsonl", "{}")
    with pytest.raises(DataError, match=r"there is no such file; did you mean valid\.jsonl\?; the current folder is"):
        read_records(OPTION, str(tmp_path / "valid.json"))
    with pytest.raises(DataError, match="there is no folder"):
        read_records(OPTION, str(tmp_path / "no" / "valid.jsonl"))
    with pytest.raises(DataError, match=r"evaluation\.it\.path is not set; .*evaluation\.it\.path=items\.jsonl"):
        read_records(OPTION, "")
    with pytest.raises(DataError, match="it is a device; expected a file"):
        read_records(OPTION, "/dev/null")


def test_too_many_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_BYTES", 50)
    with pytest.raises(DataError, match="its rows hold more than 50 bytes"):
        read_records(OPTION, write(tmp_path / "x.jsonl", lines(ROWS)))


def test_lines_end_with_the_last_that_is_not_blank(tmp_path: Path) -> None:
    assert read_lines(OPTION, write(tmp_path / "x.lst", "1\n\n0 \n\n")) == ["1", "", "0"]


def test_templates_take_fields_paths_lists_numbers_and_escapes() -> None:
    row = record(q="why", a={"b": [{"c": 1}, {"c": 2.5}]}, yes=True, **{"x.y": "dots"})
    assert Template("o", r"{{{q}}}\n{a.b.0.c} {yes} {x.y}").one(row) == "{why}\n1 true dots"
    assert Template("o", "{q}: {a.b.*.c}").all(row) == ["why: 1", "why: 2.5"]
    assert Template("o", "A").all(row) == ["A"]
    assert Template("o", "{*}?").one(row, listed="A. x") == "A. x?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{qq}", r"items\.jsonl:7: no field qq, which o='{qq}' names; the row has q, a; did you mean q\?"),
        ("{a}", r"a, which o='{a}' names, is a list; expected text or a number; for its entries write {a\.\*}"),
        ("{q.*}", r"no field q\.\*"),
        ("{a.5}", r"no field a\.5"),
        ("{*}", "is for prompts only"),
    ],
)
def test_a_wrong_template_is_refused_with_file_and_line(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Template("o", text).all(record(q="why", a=["x"]))


def test_a_template_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the \{ at character 2 has no partner"):
        Template("o", "a {b")
    with pytest.raises(DataError, match="expected one text"):
        Template("o", "{a.*}").one(record(a=["x"]))
    with pytest.raises(DataError, match="different lengths"):
        Template("o", "{a.*}{b.*}").all(record(a=["x"], b=[]))
