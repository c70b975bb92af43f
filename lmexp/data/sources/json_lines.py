"""Records of JSON: an object a line, or a file that holds an array of objects or one object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from lmexp.data.config import JsonLinesConfig
from lmexp.data.sources.base import Bad
from lmexp.data.sources.documents import NoDocument, checked, decode
from lmexp.data.sources.files import File, FileSource, find_files
from lmexp.data.sources.streams import Lines, read_whole
from lmexp.data.sources.template import RecordText, describe


class JsonLinesSource(FileSource):
    """Files of JSON."""

    def __init__(self, config: JsonLinesConfig) -> None:
        self.config = config
        self.where = f"data.path={config.path}"
        self._text = RecordText(config.field, config.template)

    def files(self) -> list[File]:
        return find_files(self.config)

    def divisible(self, file: File) -> bool:
        return not is_whole(file.path, self.config.max_document_bytes)

    def read_file(self, path: str, start: int, stop: int | None) -> Iterator[str | Bad]:
        if not start and stop is None and is_whole(path, self.config.max_document_bytes):
            return self._whole(path)
        return self._lines(path, start, stop)

    def _lines(self, path: str, start: int, stop: int | None) -> Iterator[str | Bad]:
        lines = Lines(path, self.config.max_document_bytes, start, stop)
        for line in lines:
            if isinstance(line, Bad):
                yield line
            elif line and not line.isspace():
                try:
                    yield self._document(parse(line))
                except NoDocument as reason:
                    yield lines.bad(str(reason))

    def _whole(self, path: str) -> Iterator[str | Bad]:
        """A file that holds an array of records, or one; Bad.line is a record's number."""
        try:
            found = parse(decode(read_whole(path, self.config.max_document_bytes)))
        except NoDocument as reason:
            yield Bad(str(reason), path)
            return
        for number, record in enumerate(found if isinstance(found, list) else [found], 1):
            try:
                yield self._document(record)
            except NoDocument as reason:
                yield Bad(str(reason), path, number)

    def _document(self, record: Any) -> str:
        if not isinstance(record, dict):
            raise NoDocument(f"wrong type: the record is {describe(record)}; expected an object")
        return checked(self._text(record))


def is_whole(path: str, limit: int) -> bool:
    """Whether a file holds one JSON value instead of one a line: its first line begins an array of objects, or
    something that the file is as a whole. limit: bytes that a line, or such a file, may have."""
    for line in Lines(path, limit):
        if isinstance(line, Bad):
            return False
        begin = line.lstrip()[:1]
        if not begin:
            continue
        if begin not in ("[", "{"):
            return False
        if _is_json(line):  # all of an array in a line; or the first of many lines
            return begin == "[" and _file_parses(path, limit)
        opens_array = begin == "[" and line.lstrip()[1:].lstrip()[:1] in ("", "{")  # not "[INFO] a line of a log"
        return opens_array or _file_parses(path, limit)
    return False


def _file_parses(path: str, limit: int) -> bool:
    """Whether a file is JSON as a whole."""
    try:
        return _is_json(decode(read_whole(path, limit)))
    except NoDocument:
        return False


def parse(text: str) -> Any:
    """The JSON value that a text is. NoDocument where it is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"character {error.colno}"
        raise NoDocument(f"not JSON: {error.msg} at {where}") from None
    except (ValueError, RecursionError) as error:  # a number of more than 4,300 digits, or 1,000 levels
        raise NoDocument(f"not JSON: {error}") from None


def _is_json(text: str) -> bool:
    try:
        parse(text)
    except NoDocument:
        return False
    return True
