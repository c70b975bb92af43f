"""Text files as documents, or their lines."""

from __future__ import annotations

from collections.abc import Iterator

from lmexp.data.config import TextFilesConfig
from lmexp.data.sources.base import Bad
from lmexp.data.sources.documents import NoDocument, checked, decode
from lmexp.data.sources.files import File, FileSource, find_files
from lmexp.data.sources.streams import Lines, read_whole


class TextFilesSource(FileSource):
    """Files of UTF-8 text."""

    def __init__(self, config: TextFilesConfig) -> None:
        self.config = config
        self.where = f"data.path={config.path}"

    def files(self) -> list[File]:
        return find_files(self.config)

    def divisible(self, file: File) -> bool:
        return self.config.document == "line"

    def read_file(self, path: str, start: int, stop: int | None) -> Iterator[str | Bad]:
        if self.config.document == "file":
            yield whole_file(path, self.config.max_document_bytes)
            return
        for line in Lines(path, self.config.max_document_bytes, start, stop):
            if isinstance(line, Bad) or (line and not line.isspace()):
                yield line
            elif self.config.keep_blank_lines:
                yield ""


def whole_file(path: str, limit: int) -> str | Bad:
    """A file as a document of at most limit bytes."""
    try:
        return checked(decode(read_whole(path, limit)))
    except NoDocument as reason:
        return Bad(str(reason), path)
