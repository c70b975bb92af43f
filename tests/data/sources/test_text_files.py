import gzip
from pathlib import Path

import pytest
import zstandard

from lmexp.data.cache import prepare
from lmexp.data.config import TextFilesConfig
from lmexp.data.sources.base import Bad
from lmexp.errors import ConfigError
from lmexp.tokenizers.config import ByteTokenizerConfig


def test_a_file_is_a_document_to_the_byte(tmp_path: Path, read) -> None:
    (tmp_path / "a.txt").write_bytes("one\r\ntwo\n\ntrès\n".encode())
    assert read(TextFilesConfig(path=str(tmp_path / "a.txt"))) == (["one\r\ntwo\n\ntrès\n"], [])


def test_lines_are_documents_and_blank_ones_are_left_out(tmp_path: Path, read) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\n\n  \n two\r\nlast")
    assert read(TextFilesConfig(path=str(tmp_path / "a.txt"), document="line")) == (["one", " two", "last"], [])


def test_blank_lines_are_documents_without_text_where_they_are_to_be_kept(tmp_path: Path, read) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\n\n  \n two\r\nlast")
    config = TextFilesConfig(path=str(tmp_path / "a.txt"), document="line", keep_blank_lines=True)
    assert read(config) == (["one", "", "", " two", "last"], [])
    with pytest.raises(ConfigError, match=r"set data\.document=line"):
        TextFilesConfig(path="a.txt", keep_blank_lines=True)


def test_kept_blank_lines_are_ends_of_documents_among_the_tokens(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"ab\n\nc\n \n")
    config = TextFilesConfig(
        path=str(tmp_path / "a.txt"),
        document="line",
        keep_blank_lines=True,
        sequence_length=3,
        validation_fraction=0,
        test_fraction=0,
    )
    cache = prepare(config, ByteTokenizerConfig(), cache_root=tmp_path / "cache")
    eos = cache.tokenizer.eos_id
    assert cache.splits["train"].n_documents == 4
    assert cache.splits["train"].tokens.tolist() == [eos, *b"ab", eos, eos, *b"c", eos, eos]


@pytest.mark.parametrize("document", ["file", "line"])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, read, document: str) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone")
    (tmp_path / "b.txt").write_bytes("two\ufeff".encode())
    assert read(TextFilesConfig(path=str(tmp_path), document=document)) == (["one", "two\ufeff"], [])


@pytest.mark.parametrize("document", ["file", "line"])
def test_compressed_text_is_the_plain_text(tmp_path: Path, lines_file: Path, read, document: str) -> None:
    raw = lines_file.read_bytes()
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(raw))
    (tmp_path / "a.txt.zst").write_bytes(zstandard.compress(raw))
    plain = read(TextFilesConfig(path=str(lines_file), document=document))
    assert len(plain[0]) == (1 if document == "file" else 60)
    for suffix in (".gz", ".zst"):
        assert read(TextFilesConfig(path=str(tmp_path / f"a.txt{suffix}"), document=document)) == plain


@pytest.mark.parametrize("size", [1, 7, 100, 1000, 1 << 24])
def test_documents_are_the_same_in_units_of_any_size(lines_file: Path, read, set_unit_bytes, size: int) -> None:
    config = TextFilesConfig(path=str(lines_file), document="line")
    set_unit_bytes(size)
    assert read(config)[0] == lines_file.read_text(encoding="utf-8").splitlines()


def test_what_is_no_text_is_set_aside_with_its_place(tmp_path: Path, read) -> None:
    (tmp_path / "a.txt").write_bytes(b"fine\n" * 1000 + "café\n".encode("latin1") + b"a\0\nlast\n")
    (tmp_path / "empty.txt").write_bytes(b" \n")
    (tmp_path / "good.txt").write_bytes(b"good")
    path = str(tmp_path / "a.txt")
    documents, bad = read(TextFilesConfig(path=str(tmp_path)))
    assert documents == ["good"]
    assert [(b.kind, Path(b.file).name, b.line) for b in bad] == [
        ("NUL byte", "a.txt", None),
        ("empty document", "empty.txt", None),
    ]
    documents, bad = read(TextFilesConfig(path=path, document="line"))
    assert documents == ["fine"] * 1000 + ["last"]
    assert [(b.kind, b.file, b.line) for b in bad] == [("not UTF-8", path, 1001), ("NUL byte", path, 1002)]
    assert bad[0].reason.startswith("not UTF-8: byte 3 is 0xe9")


def test_a_file_that_is_too_long_or_broken_is_one_bad_document(tmp_path: Path, read) -> None:
    (tmp_path / "a.txt").write_text("x" * 101)
    (tmp_path / "b.txt").write_text("x" * 100)
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"x" * 50)[:-3])
    documents, bad = read(TextFilesConfig(path=str(tmp_path), pattern="*", max_document_bytes=100))
    assert documents == ["x" * 100]
    assert bad == [
        Bad("too long: more than data.max_document_bytes=100; divide it, or raise that", str(tmp_path / "a.txt")),
        Bad(
            "truncated file: the compressed data ends too early; copy or download it again", str(tmp_path / "c.txt.gz")
        ),
    ]
