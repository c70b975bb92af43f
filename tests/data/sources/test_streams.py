import gzip
import io
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from lmexp.data.sources.base import Bad
from lmexp.data.sources.documents import NoDocument
from lmexp.data.sources.streams import Damaged, Lines, open_stream, read_whole
from lmexp.errors import DataError

TEXT = "".join(f"line {i}: {random.Random(i).randbytes(20).hex()}\n" for i in range(3000)).encode()
COMPRESS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstandard.compress}
FORMATS = pytest.mark.parametrize("suffix", COMPRESS)


def planted(folder: Path, suffix: str, content: bytes) -> str:
    path = folder / f"a{suffix}"
    path.write_bytes(content)
    return str(path)


def content(path: str) -> bytes:
    with open_stream(path) as stream:
        return stream.read()


@FORMATS
def test_compressed_files_hold_what_was_put_in(tmp_path: Path, suffix: str) -> None:
    compress = COMPRESS[suffix]
    assert content(planted(tmp_path, suffix, compress(TEXT))) == TEXT
    assert content(planted(tmp_path, suffix.upper(), compress(TEXT))) == TEXT
    assert content(planted(tmp_path, suffix, compress(b""))) == b""
    several = compress(TEXT) + compress(b"") + compress(b"more\n")
    assert content(planted(tmp_path, suffix, several)) == TEXT + b"more\n"
    assert content(planted(tmp_path, suffix, several + bytes(5000))) == TEXT + b"more\n"


def test_zstd_files_written_as_a_stream_with_a_checksum_are_read(tmp_path: Path) -> None:
    written = io.BytesIO()
    compressor = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False, threads=2)
    with compressor.stream_writer(written, closefd=False) as writer:
        for _ in range(50):
            writer.write(TEXT)
    assert content(planted(tmp_path, ".zst", written.getvalue())) == TEXT * 50


@FORMATS
def test_every_truncation_is_noticed(tmp_path: Path, suffix: str) -> None:
    whole = COMPRESS[suffix](TEXT[:300])
    for n in range(len(whole)):
        with pytest.raises(Damaged, match=r"^truncated file: "):
            content(planted(tmp_path, suffix, whole[:n]))


@FORMATS
def test_all_lines_before_a_truncation_are_kept(tmp_path: Path, suffix: str) -> None:
    whole = COMPRESS[suffix](TEXT)
    decoder = zstandard.ZstdDecompressor().decompressobj() if suffix == ".zst" else None
    for n in (len(whole) - 1, len(whole) - 6, len(whole) // 2):
        if decoder is None:
            found = gzip.zlib.decompressobj(31).decompress(whole[:n])
        else:
            found = zstandard.ZstdDecompressor().decompressobj().decompress(whole[:n])
        lines = found.decode().split("\n")[:-1]
        path = planted(tmp_path, suffix, whole[:n])
        *read, bad = Lines(path, 1 << 20)
        assert read == lines
        assert bad == Bad(
            "truncated file: the compressed data ends too early; copy or download it again", path, len(lines) + 1
        )


@FORMATS
def test_damage_is_told_and_what_comes_before_is_kept(tmp_path: Path, suffix: str) -> None:
    compress = COMPRESS[suffix]
    broken = bytearray(compress(TEXT) + compress(TEXT))
    middle = len(broken) // 2
    broken[middle + 20 : middle + 60] = bytes(40)
    path = planted(tmp_path, suffix, bytes(broken))
    *read, bad = Lines(path, 1 << 20)
    assert bad.kind == "damaged file"
    assert 3000 <= len(read) < 6000
    assert read == (TEXT + TEXT).decode().split("\n")[: len(read)]
    with pytest.raises(NoDocument, match=r"^damaged file: "):
        read_whole(path, 1 << 20)
    assert [item.kind for item in Lines(planted(tmp_path, suffix, b"not compressed at all"), 10)] == ["damaged file"]


def test_a_wrong_checksum_is_told(tmp_path: Path) -> None:
    broken = bytearray(gzip.compress(TEXT))
    broken[-8] ^= 1
    *_, bad = Lines(planted(tmp_path, ".gz", bytes(broken)), 1 << 20)
    assert bad.kind == "damaged file"


def test_zst_without_zstandard_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(DataError, match=r'pip install "lmexp\[zstd\]"'):
        content(planted(tmp_path, ".zst", b""))


def test_a_whole_file_is_bounded_and_loses_its_byte_order_mark(tmp_path: Path) -> None:
    path = planted(tmp_path, "", b"\xef\xbb\xbfabc")
    assert read_whole(path, 6) == b"abc"
    with pytest.raises(NoDocument, match=r"^too long: more than data\.max_document_bytes=5"):
        read_whole(path, 5)


def reference(content: bytes, limit: int) -> list[tuple[int, str]]:
    """(number, line or kind of a Bad) of each line."""
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    found = []
    for number, line in enumerate(lines[:-1] if not lines[-1] else lines, 1):
        line = line.removesuffix(b"\r")
        if len(line) > limit:
            found.append((number, "too long"))
        elif b"\0" in line:
            found.append((number, "NUL byte"))
        else:
            try:
                found.append((number, line.decode()))
            except UnicodeDecodeError:
                found.append((number, "not UTF-8"))
    return found


def numbered(lines: Lines) -> list[tuple[int, str]]:
    return [(i.line, i.kind) if isinstance(i, Bad) else (lines.bad("").line, i) for i in lines]


@pytest.mark.parametrize("buffer", [4, 7, 1 << 18])
def test_lines_of_ranges_are_the_lines_of_the_file(tmp_path: Path, monkeypatch, buffer: int) -> None:
    monkeypatch.setattr("lmexp.data.sources.streams.BUFFER", buffer)
    draw = random.Random(0)
    pieces = [b"a", b"bc", b"\n", b"\n", b"\r\n", b"\r", "é".encode(), b"\xff", b"\0", b"x" * 30, b"\xef\xbb\xbf"]
    for _ in range(150):
        content = b"".join(draw.choices(pieces, k=draw.randrange(30)))
        path = planted(tmp_path, "", content)
        expected = reference(content, limit=20)
        for size in (1, 3, 10, 1000):
            ranges = [(start, start + size) for start in range(0, max(1, len(content)), size)]
            found = [item for start, stop in ranges for item in numbered(Lines(path, 20, start, stop))]
            assert found == expected, (content, size)
        assert numbered(Lines(path, 20)) == expected
        raw = [b"" if isinstance(i, Bad) else i for i in Lines(path, 20).raw()]
        assert len(raw) == len(expected)


@FORMATS
def test_a_line_that_is_too_long_is_left_out_in_bounded_memory(tmp_path: Path, suffix: str) -> None:
    path = planted(tmp_path, suffix, COMPRESS[suffix](b"a\n" + b"x" * 10_000_000 + b"\nb\n" + b"y" * 10_000_000))
    lines = Lines(path, 1000)
    assert numbered(lines) == [(1, "a"), (2, "too long"), (3, "b"), (4, "too long")]
    bad = [line for line in lines if isinstance(line, Bad)]
    assert bad[0].reason == (
        "too long: 10,000,001 bytes, more than data.max_document_bytes=1000; divide it, or raise that"
    )
