import csv
import gzip
import random
from pathlib import Path

import pytest
import zstandard

from lmexp.data.config import CsvConfig
from lmexp.errors import ConfigError, DataError

NASTY = ["plain", 'a "quoted" word', "two\nlines\n", "win\r\ndows", "com,ma", "tab\there", "été", '"', "  spaces ", "'"]


def config(path: Path, **settings: object) -> CsvConfig:
    return CsvConfig(path=str(path), **settings)


def write(path: Path, rows: list[list[str]], **settings: object) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, **settings).writerows(rows)
    return path


@pytest.mark.parametrize("settings", [{}, {"delimiter": ";"}, {"quotechar": "'"}, {"lineterminator": "\n"}])
def test_what_the_csv_module_wrote_is_read(tmp_path: Path, read, settings: dict[str, str]) -> None:
    path = write(tmp_path / "a.csv", [["id", "text"], *([str(i), text] for i, text in enumerate(NASTY))], **settings)
    options = {"delimiter": settings.get("delimiter", ","), "quote": settings.get("quotechar", '"')}
    assert read(config(path, **options)) == (NASTY, [])
    assert read(config(path, template="{id}: {text}", **options))[0] == [f"{i}: {t}" for i, t in enumerate(NASTY)]
    assert read(config(path, field="1", **options))[0] == NASTY
    assert read(config(path, header=False, field="1", **options))[0] == ["text", *NASTY]


def test_compressed_tables_and_byte_order_marks_are_read(tmp_path: Path, read) -> None:
    raw = b"\xef\xbb\xbf" + write(tmp_path / "a.csv", [["text"], *([text] for text in NASTY)]).read_bytes()
    (tmp_path / "a.csv").write_bytes(raw)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(raw))
    (tmp_path / "a.csv.zst").write_bytes(zstandard.compress(raw))
    assert read(config(tmp_path, pattern="a.csv*")) == (NASTY * 3, [])


def test_a_value_may_be_long(tmp_path: Path, read) -> None:
    long = "x" * 300_000
    assert read(config(write(tmp_path / "a.csv", [["text"], [long], ["short"]]))) == ([long, "short"], [])


@pytest.mark.parametrize("size", [1, 10, 100, 1 << 24])
@pytest.mark.parametrize("header", [True, False])
def test_without_quotes_a_line_is_a_row_in_units_of_any_size(
    tmp_path: Path, read, set_unit_bytes, size: int, header: bool
) -> None:
    rows = [("id", "text")] * header + [(str(i), f'{i} "stray {"é" * (i % 9)}') for i in range(40)]
    (tmp_path / "a.tsv").write_text("".join("\t".join(row) + "\r\n" for row in rows) + "\n40 only", encoding="utf-8")
    settings = {"pattern": "*.tsv", "delimiter": "\t", "quote": None, "header": header}
    set_unit_bytes(size)
    documents, [bad] = read(config(tmp_path, field="1", **settings))
    assert documents == [text for _, text in rows[header:]]
    assert (bad.kind, bad.line) == ("wrong number of columns", 42 + header)


def test_columns_that_are_not_there_are_told_at_once(tmp_path: Path, read) -> None:
    path = write(tmp_path / "a.csv", [["id", "text"], ["1", "one"]])
    with pytest.raises(
        DataError, match=r"a\.csv has no column 'txt' \(data\.field\); .* id, text; did you mean text\?"
    ):
        read(config(path, field="txt"))
    with pytest.raises(DataError, match=r"no column '2'"):
        read(config(path, field="2"))
    with pytest.raises(DataError, match=r"no column 'body' \(data\.template\)"):
        read(config(path, template="{id}{body}"))
    with pytest.raises(DataError, match=r"2 columns called 'text'; choose one by its number, data\.field=0"):
        read(config(write(tmp_path / "b.csv", [["text", "text"]])))
    with pytest.raises(ConfigError, match=r"data\.field has 'text', but with data\.header=false columns are numbered"):
        read(config(path, header=False))
    (tmp_path / "c.csv").write_bytes(b"id,caf\xe9,text\n")
    with pytest.raises(DataError, match=r"the header of .*c\.csv \(line 1\) can't be read: not UTF-8: "):
        read(config(tmp_path / "c.csv"))


def test_a_table_without_rows_has_no_documents(tmp_path: Path, read) -> None:
    (tmp_path / "empty.csv").write_text("")
    write(tmp_path / "header.csv", [["text"]])
    assert read(config(tmp_path)) == ([], [])


@pytest.mark.parametrize("quote", ['"', None])
def test_bad_rows_are_set_aside_with_their_first_line(tmp_path: Path, read, quote: str | None) -> None:
    rows = [
        b"id,text",
        b"1,one",
        b"2",
        b"",
        b"3,",
        b"4,four,more",
        b"5,caf\xe9",
        b"6,a\0",
        b"7," + b"x" * 200,
        b"8,eight",
    ]
    (tmp_path / "a.csv").write_bytes(b"\n".join(rows))
    documents, bad = read(config(tmp_path, quote=quote, max_document_bytes=100))
    assert documents == ["one", "eight"]
    assert [(b.kind, b.line) for b in bad] == [
        ("wrong number of columns", 3),
        ("empty document", 5),
        ("wrong number of columns", 6),
        ("not UTF-8", 7),
        ("NUL byte", 8),
        ("too long", 9),
    ]


def test_lines_within_quotes_are_counted(tmp_path: Path, read) -> None:
    (tmp_path / "a.csv").write_bytes(b'text\n"a\nb"\n"c\n\xff\nd"\n"e\n"\n""\n')
    documents, bad = read(config(tmp_path))
    assert documents == ["a\nb", "e\n"]
    assert [(b.kind, b.line) for b in bad] == [("not UTF-8", 4), ("empty document", 9)]


@pytest.mark.parametrize("n", [1, 100])
def test_an_unclosed_quote_costs_one_line(tmp_path: Path, read, n: int) -> None:
    (tmp_path / "a.csv").write_text('id,text\n1,one\n2,"two\n' + "3,three\n" * n)
    documents, bad = read(config(tmp_path, max_document_bytes=200))
    assert documents == ["one", *["three"] * n]
    assert [(b.kind, b.line) for b in bad] == [("unclosed quote", 3)]


def test_an_unclosed_quote_before_a_long_line_costs_one_line(tmp_path: Path, read) -> None:
    (tmp_path / "a.csv").write_text('id,text\n2,"two\n3,three\n' + "4," + "x" * 300 + "\n5,five\n")
    documents, bad = read(config(tmp_path, max_document_bytes=200))
    assert documents == ["three", "five"]
    assert [(b.kind, b.line) for b in bad] == [("unclosed quote", 2), ("too long", 4)]


def test_a_table_that_breaks_off_has_one_bad_row(tmp_path: Path, read) -> None:
    draw = random.Random(0)
    rows = [["text"], *([f"{draw.random()}\n{draw.random()}"] for _ in range(2000))]
    raw = gzip.compress(write(tmp_path / "a", rows).read_bytes())
    whole = gzip.zlib.decompressobj(31).decompress(raw[: len(raw) // 2])
    (tmp_path / "a.csv.gz").write_bytes(raw[: len(raw) // 2])
    documents, [bad] = read(config(tmp_path / "a.csv.gz"))
    assert documents == [row[0] for row in rows[1 : 1 + len(documents)]]
    assert len(documents) == whole.count(b'"\r\n') > 500
    assert (bad.kind, bad.line) == ("truncated file", whole.count(b"\n") + 1)


def test_old_line_ends_are_told(tmp_path: Path, read) -> None:
    (tmp_path / "a.csv").write_bytes(b"text\nmac\rlines\nlast\n")
    documents, [bad] = read(config(tmp_path))
    assert (documents, bad.kind, bad.line) == (["last"], "not CSV", 2)
