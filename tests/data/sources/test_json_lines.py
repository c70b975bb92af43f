import json
from pathlib import Path

import pytest

from lmexp.data.config import JsonLinesConfig
from lmexp.data.sources.base import Bad

RECORDS = [{"text": f"été {i}", "meta": {"title": f"T{i}", "n": i}} for i in range(50)]
TEXTS = [record["text"] for record in RECORDS]


def config(path: Path, **settings: object) -> JsonLinesConfig:
    return JsonLinesConfig(path=str(path), **settings)


@pytest.mark.parametrize("ascii_only", [True, False])
def test_an_object_a_line_is_a_document_each(tmp_path: Path, read, ascii_only: bool) -> None:
    lines = [json.dumps(record, ensure_ascii=ascii_only) for record in RECORDS]
    (tmp_path / "a.jsonl").write_text("\n\n \r\n".join(lines), encoding="utf-8")
    assert read(config(tmp_path)) == (TEXTS, [])
    expected = [f"T{i}: été {i}" for i in range(50)]
    assert read(config(tmp_path, template="{meta.title}: {text}")) == (expected, [])


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_or_an_object_in_a_file_is_read_as_such(tmp_path: Path, read, indent: int | None) -> None:
    (tmp_path / "a.json").write_text("\n " + json.dumps(RECORDS, indent=indent))
    (tmp_path / "b.json").write_text(json.dumps(RECORDS[0], indent=indent))
    (tmp_path / "c.json").write_text("\ufeff" + json.dumps(RECORDS[:2], indent=indent), encoding="utf-8")
    (tmp_path / "d.json").write_text("[]")
    assert read(config(tmp_path)) == ([*TEXTS, TEXTS[0], *TEXTS[:2]], [])


@pytest.mark.parametrize("size", [1, 10, 1000, 1 << 24])
def test_documents_are_the_same_in_units_of_any_size(tmp_path: Path, read, set_unit_bytes, size: int) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in RECORDS) + "broken")
    (tmp_path / "b.json").write_text(json.dumps(RECORDS, indent=2))
    (tmp_path / "c.json").write_text("{\n" + json.dumps(RECORDS[0]))
    set_unit_bytes(size)
    documents, bad = read(config(tmp_path))
    assert documents == [*TEXTS, *TEXTS, TEXTS[0]]
    assert [(b.kind, Path(b.file).name, b.line) for b in bad] == [
        ("not JSON", "a.jsonl", 51),
        ("not JSON", "c.json", 1),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": 1}', "wrong type: text is a number; expected text or a list of texts"),
        ('{"text": null}', "wrong type: text is null"),
        ('{"text": ["a", null]}', "wrong type: text is a list"),
        ('"text"', "wrong type: the record is a text; expected an object"),
        ('["text"]', "wrong type: the record is a list; expected an object"),
        ("3", "wrong type: the record is a number"),
        ('{"texts": "a", "id": 3}', "no field: expected text (data.field), found texts, id; did you mean texts?"),
        ("{}", "no field: expected text (data.field), found none"),
        ('{"text": "  "}', "empty document: "),
        ('{"text": []}', "empty document: "),
        (r'{"text": "a\u0000"}', "NUL byte: character 1"),
        (r'{"text": "a\ud800"}', r"lone surrogate: character 1 of the text is \ud800"),
        ('{"text": "a"', "not JSON: Expecting ',' delimiter at character 13"),
        ('{"text": "a"} {"text": "b"}', "not JSON: Extra data at character 15"),
        (f'{{"text": {"1" * 5000}}}', "not JSON: Exceeds the limit"),
        ("[" * 200_000, "not JSON: maximum recursion depth"),
    ],
)
def test_a_bad_record_says_why_and_the_others_are_kept(tmp_path: Path, read, line: str, reason: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "one"}}\n\n{line}\n{{"text": "two"}}\n')
    documents, [bad] = read(config(tmp_path))
    assert documents == ["one", "two"]
    assert (bad.file, bad.line) == (str(path), 3)
    assert bad.reason.startswith(reason)


def test_a_bad_record_of_an_array_has_its_number(tmp_path: Path, read) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": "one"}, {"text": 2}, "three", {"text": "four"}], indent=1))
    documents, bad = read(config(path))
    assert documents == ["one", "four"]
    assert [(b.kind, b.line) for b in bad] == [("wrong type", 2), ("wrong type", 3)]


def test_an_array_that_is_broken_or_too_long_is_one_bad_file(tmp_path: Path, read) -> None:
    path = tmp_path / "a.json"
    path.write_text('[\n{"text": "one"},\n{"text" "two"}\n]')
    assert read(config(path)) == ([], [Bad("not JSON: Expecting ':' delimiter at line 3, column 9", str(path))])
    path.write_text(json.dumps(RECORDS, indent=1))
    documents, [bad] = read(config(path, max_document_bytes=100))
    assert (documents, bad.kind, bad.line) == ([], "too long", None)


def test_arrays_and_broken_objects_at_the_head_of_lines_cost_one_line(tmp_path: Path, read) -> None:
    path = tmp_path / "a.jsonl"
    for head in ('["a list"]', '{"text": "brok', "garbage"):
        path.write_text(f'{head}\n{{"text": "one"}}\n')
        documents, [bad] = read(config(path))
        assert (documents, bad.line) == (["one"], 1)


def test_a_first_line_like_a_log_entry_costs_only_itself(tmp_path: Path, read) -> None:
    lines = ["[INFO] export", *(json.dumps(record) for record in RECORDS)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    texts, bad = read(config(tmp_path))
    assert texts == TEXTS
    assert [(item.kind, item.line) for item in bad] == [("not JSON", 1)]


def test_a_reason_quotes_no_more_of_a_record_than_can_be_shown(tmp_path: Path, read) -> None:
    records = [{"\ud800": 1}, {"k" * 1_000_000: 1}, RECORDS[0]]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(record) for record in records))
    texts, bad = read(config(tmp_path))
    assert texts == TEXTS[:1]
    assert [item.kind for item in bad] == ["no field", "no field"]
    assert all(len(item.reason.encode()) < 1000 for item in bad)
