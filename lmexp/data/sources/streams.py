"""Bytes of a file, plain or compressed, and its lines, in bounded memory."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from lmexp.data.sources.base import Bad
from lmexp.data.sources.documents import NoDocument, decode
from lmexp.errors import DataError

COMPRESSED = (".gz", ".zst")
"""Suffixes of what is decompressed while it is read."""

BOM = b"\xef\xbb\xbf"

BUFFER = 1 << 18
GZIP = 31
"""zlib's name for its own format with a header of gzip."""
GZIP_PIECE = 1 << 12
ZSTD_PIECE = 1 << 8
"""Compressed bytes fed at once: so few that even the most compressed text becomes only some megabytes of memory."""


class Damaged(Exception):  # noqa: N818 - a finding about the file
    """Why a compressed file can't be read on: the reason of a Bad."""


class _Expanded(io.RawIOBase):
    """What a compressed file holds: one frame or several behind one another, each complete or Damaged."""

    def __init__(self, path: str, decoder: Callable[[], Any], error: type[Exception], piece: int) -> None:
        self._file = _plain(path)
        self._new = decoder
        self._error = error
        self._piece = piece
        self._decoder = decoder()
        self._within = True  # an empty file is a truncated one
        self._ahead = b""
        self._expanded = memoryview(b"")
        self._broken: Damaged | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._broken is not None:
            raise self._broken
        n = 0
        while n < len(buffer):
            try:
                if not self._expanded and not self._expand():
                    break
            except Damaged as error:
                if not n:
                    raise
                self._broken = error  # for the next call: what came before is whole
                break
            m = min(len(buffer) - n, len(self._expanded))
            buffer[n : n + m] = self._expanded[:m]
            self._expanded = self._expanded[m:]
            n += m
        return n

    def _expand(self) -> bool:
        """Decompress the next piece; False at the end."""
        piece = self._ahead or self._file.read(self._piece)
        self._ahead = b""
        if not piece:
            if self._within:
                raise Damaged("truncated file: the compressed data ends too early; copy or download it again")
            return False
        if not self._within:
            piece = piece.lstrip(b"\0")  # padding, as tape drives leave it
            if not piece:
                return True
            self._decoder, self._within = self._new(), True
        try:
            self._expanded = memoryview(self._decoder.decompress(piece))
        except self._error as error:
            raise Damaged(f"damaged file: can't decompress it ({error}); copy or download it again") from None
        if self._decoder.eof:
            self._ahead, self._within = self._decoder.unused_data, False
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


def is_compressed(path: str) -> bool:
    """Whether a file is decompressed while it is read."""
    return path.lower().endswith(COMPRESSED)


def open_stream(path: str) -> io.BufferedReader:
    """What a file holds, decompressed; reading raises Damaged where it is broken. OSError where it can't be opened."""
    if not is_compressed(path):
        return _plain(path)
    if path.lower().endswith(".gz"):
        return io.BufferedReader(_Expanded(path, lambda: zlib.decompressobj(GZIP), zlib.error, GZIP_PIECE), BUFFER)
    try:
        import zstandard
    except ModuleNotFoundError:
        raise DataError(f'{path}: reading .zst needs zstandard: pip install "lmexp[zstd]"') from None
    # decompressobj, since stream_reader takes a truncated file for a whole one
    decompressor = zstandard.ZstdDecompressor()
    expanded = _Expanded(path, lambda: decompressor.decompressobj(write_size=1 << 16), zstandard.ZstdError, ZSTD_PIECE)
    return io.BufferedReader(expanded, BUFFER)


def _plain(path: str) -> io.BufferedReader:
    return io.BufferedReader(io.FileIO(path), BUFFER)


def read_whole(path: str, limit: int) -> bytes:
    """All that a file holds, at most limit bytes. NoDocument where there are more, or where it is damaged."""
    with open_stream(path) as stream:
        try:
            raw = stream.read(limit + 1)
        except Damaged as error:
            raise NoDocument(str(error)) from None
    if len(raw) > limit:
        raise NoDocument(f"too long: more than data.max_document_bytes={limit}; divide it, or raise that")
    return raw.removeprefix(BOM)


class Lines:
    """Lines of a file as text, without their ends; a Bad where one is no text or too long, or the file breaks off.

    start, stop: bytes of a plain file; a line belongs to the range in which it begins.
    """

    def __init__(self, path: str, limit: int, start: int = 0, stop: int | None = None) -> None:
        self.path = path
        self.limit = limit
        """Bytes that a line may have."""
        self.number = 0
        """Number of the line read last, from 1 for the first of the range."""
        self._start = start
        self._stop = stop
        self._begin = 0
        self._n_before: int | None = None

    def __iter__(self) -> Iterator[str | Bad]:
        for block in self._blocks():
            if isinstance(block, Bad):
                yield block
                continue
            try:
                text = decode(block) if len(block) <= self.limit else None
            except NoDocument:
                text = None
            if text is None:
                yield from self._one_by_one(block)
                continue
            lines = text.removesuffix("\n").split("\n")
            if "\r" in text:
                lines = [line.removesuffix("\r") for line in lines]
            for line in lines:
                self.number += 1
                yield line

    def raw(self) -> Iterator[bytes | Bad]:
        """Lines as bytes with their ends."""
        for block in self._blocks():
            if isinstance(block, Bad):
                yield block
                continue
            for line in io.BytesIO(block):
                self.number += 1
                yield self._too_long(len(line)) if _length(line) > self.limit else line

    def bad(self, reason: str, number: int | None = None) -> Bad:
        """A Bad for the line read last, or for the one with a number."""
        if self._n_before is None:
            self._n_before = _count_lines(self.path, self._begin)
        return Bad(reason, self.path, self._n_before + (self.number if number is None else number))

    def _one_by_one(self, block: bytes) -> Iterator[str | Bad]:
        for line in io.BytesIO(block):
            self.number += 1
            if _length(line) > self.limit:
                yield self._too_long(len(line))
                continue
            try:
                yield decode(line).removesuffix("\n").removesuffix("\r")
            except NoDocument as reason:
                yield self.bad(str(reason))

    def _too_long(self, n_bytes: int) -> Bad:
        return self.bad(
            f"too long: {n_bytes:,} bytes, more than data.max_document_bytes={self.limit}; divide it, or raise that"
        )

    def _blocks(self) -> Iterator[bytes | Bad]:
        """Many whole lines at once, and what is none; the last may lack its end."""
        self.number, self._n_before = 0, None
        with open_stream(self.path) as stream:
            position = self._begin = self._seek(stream)  # of what is read next
            begun: list[bytes] = []  # pieces of a line whose end isn't read yet
            n_begun = 0
            try:
                while n_begun or self._stop is None or position < self._stop:
                    block = stream.read1(BUFFER)
                    if not block:
                        break
                    if not position and block.startswith(BOM):
                        position, block = len(BOM), block[len(BOM) :]
                    end = self._end(block, position)
                    position += len(block)
                    if end:
                        if n_begun > self.limit + 1:
                            first = block.index(b"\n") + 1
                            self.number += 1
                            yield self._too_long(n_begun + first)
                            block, end, begun = block[first:], end - first, []
                        if end:
                            yield b"".join([*begun, block[:end]])
                        begun, n_begun = [], 0
                        if self._stop is not None and position - len(block) + end >= self._stop:
                            return
                        block = block[end:]
                    n_begun += len(block)
                    if n_begun <= self.limit + 1:
                        begun.append(block)
                    else:
                        begun.clear()
                if n_begun > self.limit + 1:
                    self.number += 1
                    yield self._too_long(n_begun)
                elif n_begun:
                    yield b"".join(begun)
            except Damaged as error:
                self.number += 1
                yield self.bad(str(error))

    def _end(self, block: bytes, position: int) -> int:
        """Where the last line of a block ends that is whole and begins in the range; 0 where there is none."""
        last = block.rfind(b"\n") + 1
        if self._stop is None or position + last <= self._stop:
            return last
        return block.find(b"\n", max(0, self._stop - 1 - position)) + 1

    def _seek(self, stream: io.BufferedReader) -> int:
        """Go to the first line that begins in the range, or to the end of the range; its position."""
        if not self._start:
            return 0
        position = stream.seek(self._start - 1)
        while self._stop is None or position < self._stop:
            piece = stream.readline(BUFFER)
            position += len(piece)
            if not piece or piece.endswith(b"\n"):
                break
        return position


def _length(line: bytes) -> int:
    """Bytes of a line without its end."""
    return len(line.removesuffix(b"\n").removesuffix(b"\r"))


def _count_lines(path: str, stop: int) -> int:
    """Line ends in the first bytes of a plain file."""
    n = 0
    if stop:
        with open(path, "rb", buffering=0) as file:
            while stop > 0 and (block := file.read(min(stop, 1 << 20))):
                n += block.count(b"\n")
                stop -= len(block)
    return n
