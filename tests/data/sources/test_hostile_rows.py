"""Everything that real files have and documents don't, in one file: counted exactly, the rest unchanged, in bounded
memory."""

import gzip
import json
import random
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from lmexp.data.config import JsonLinesConfig

HOSTILE = {
    b'{"text": "caf\xe9"}': "not UTF-8",
    b'{"text": "a\0b"}': "NUL byte",
    b'{"text": "a\\u0000b"}': "NUL byte",
    b'{"text": ""}': "empty document",
    b'{"text": " \\n "}': "empty document",
    b'{"text": 3.5}': "wrong type",
    b'{"text": null}': "wrong type",
    b'{"text": {"a": "b"}}': "wrong type",
    b"[1, 2]": "wrong type",
    b'{"title": "none"}': "no field",
    b'{"text": "broken': "not JSON",
    b"not even close": "not JSON",
    b'{"text": "half \\ud83d"}': "lone surrogate",
}


def compressed_gz(raw: bytes) -> bytes:
    return gzip.compress(raw, 1)


def expanded_gz(raw: bytes) -> bytes:
    return zlib.decompressobj(31).decompress(raw)


def expanded_zst(raw: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(raw)


FORMATS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    ".gz": (compressed_gz, expanded_gz),
    ".zst": (zstandard.compress, expanded_zst),
}


def lines_of(n: int, long: bytes) -> tuple[list[bytes], list[str], list[tuple[int, str]]]:
    """Lines of a file, its good documents, and (line, kind) of what is none; blank lines are neither."""
    draw = random.Random(0)
    lines, documents, bad = [], [], []
    planted = [*HOSTILE, *HOSTILE, long]
    places = dict(zip(draw.sample(range(2, n), len(planted)), planted, strict=True))
    for number in range(1, n + 1):
        if number in places:
            line = places[number]
            bad.append((number, HOSTILE.get(line, "too long")))
        elif number % 17 == 0:
            line = b" \t"
        else:
            documents.append(f"good {number}: é\n{draw.random()} \U0001f600")
            line = json.dumps({"id": number, "text": documents[-1]}, ensure_ascii=bool(number % 2)).encode()
        lines.append(line)
    return lines, documents, bad


@pytest.mark.parametrize("size", [100, 1000, 1 << 24])
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_hostile_rows_are_counted_and_good_ones_are_unchanged(
    tmp_path: Path, read, set_unit_bytes, suffix: str, size: int
) -> None:
    lines, documents, bad = lines_of(300, long=b'{"text": "' + b"x" * 5000 + b'"}')
    raw = b"\r\n".join(lines)
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(FORMATS[suffix][0](raw) if suffix else raw)
    set_unit_bytes(size)
    found, set_aside = read(JsonLinesConfig(path=str(path), max_document_bytes=4000))
    assert found == documents
    assert [(b.line, b.kind) for b in set_aside] == bad
    assert {b.file for b in set_aside} == {str(path)}
    assert Counter(b.kind for b in set_aside) == {
        **{k: 2 * n for k, n in Counter(HOSTILE.values()).items()},
        "too long": 1,
    }


@pytest.mark.parametrize("suffix", FORMATS)
def test_hostile_rows_before_a_truncation_are_the_same(tmp_path: Path, read, suffix: str) -> None:
    lines, documents, bad = lines_of(2000, long=b"x" * 5000)
    compress, expand = FORMATS[suffix]
    raw = compress(b"\n".join(lines))[:-200]
    n_whole = expand(raw).count(b"\n")
    assert n_whole > 0
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(raw)
    found, set_aside = read(JsonLinesConfig(path=str(path), max_document_bytes=4000))
    assert found == documents[: len(found)]
    assert len(found) + len(set_aside) - 1 + sum(line == b" \t" for line in lines[:n_whole]) == n_whole
    assert [(b.line, b.kind) for b in set_aside] == [
        *(item for item in bad if item[0] <= n_whole),
        (n_whole + 1, "truncated file"),
    ]


READ = """
import json, re, sys
from pathlib import Path
from lmexp.data.config import JsonLinesConfig
from lmexp.data.sources.base import Bad

def peak():  # resource.getrusage would count the parent's too
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])

small, large = (JsonLinesConfig(path=path, max_document_bytes=1 << 20).source() for path in sys.argv[1:])
def found(source):
    return [i if isinstance(i, str) else [i.kind, i.line] for unit in source.units() for i in source.read(unit)]
found(small)
before = peak()
print(json.dumps([found(large), peak() - before]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_line_of_100_mb_takes_no_memory(tmp_path: Path, suffix: str) -> None:
    small = b'{"text": "one"}\n'
    compress = FORMATS[suffix][0] if suffix else bytes
    paths = [tmp_path / f"{name}.jsonl{suffix}" for name in ("small", "large")]
    paths[0].write_bytes(compress(small))
    paths[1].write_bytes(compress(small + b"x" * 100_000_000 + b"\n" + small))
    done = subprocess.run(
        [sys.executable, "-c", READ, *map(str, paths)], capture_output=True, text=True, timeout=60, check=True
    )
    found, kilobytes = json.loads(done.stdout)
    assert found == ["one", ["too long", 2], "one"]
    assert kilobytes < 40_000
