"""The source of the Python standard library."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from lmexp.data.config import StdlibConfig
from lmexp.data.sources.base import ALL, Bad
from lmexp.data.sources.files import File, FileSource, file_at
from lmexp.data.sources.text_files import whole_file
from lmexp.errors import DataError

NOT_LIBRARY = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "turtledemo",
    "_bundled",
    "__pycache__",
}
"""Folders below the standard library that don't belong to the corpus."""
OF_THIS_MACHINE = ("_sysconfigdata", "sitecustomize", "usercustomize")
"""Modules that differ from one installation to the next."""


class StdlibSource(FileSource):
    """The modules of the Python standard library, by path; its tests and other packages are left out."""

    where = "data=stdlib"

    def __init__(self, config: StdlibConfig) -> None:
        self.config = config

    def files(self) -> list[File]:
        root = Path(sysconfig.get_path("stdlib"))
        found = []
        for folder, below, names in os.walk(root):
            below[:] = [name for name in below if name not in NOT_LIBRARY]  # os.walk enters what is left
            found += [Path(folder, n) for n in names if n.endswith(".py") and not n.startswith(OF_THIS_MACHINE)]
        if not found:
            raise DataError(
                f"data=stdlib: expected the standard library's .py files in {root}, found none (this Python "
                f"has no source); use text of your own: data=text_files data.path=FILE, FOLDER or GLOB"
            )
        found.sort(key=lambda path: path.relative_to(root).as_posix())
        return [file_at(ALL, path) for path in found]

    def read_file(self, path: str, start: int, stop: int | None) -> Iterator[str | Bad]:
        document = whole_file(path, self.config.max_document_bytes)
        if not (isinstance(document, Bad) and document.kind == "empty document"):  # an __init__.py is often empty
            yield document
