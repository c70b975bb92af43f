"""Where documents come from: text files, and the source of the Python standard library."""

from __future__ import annotations

import glob
import os
import sysconfig
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from lmexp.errors import DataError
from lmexp.plugins import did_you_mean

EXAMPLE = "data.path=book.txt, data.path=books or data.path='books/**/*.txt'"

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


class Documents(ABC):
    """The documents of a corpus in a fixed order, none blank; read anew each time they are iterated."""

    where: str
    """What an error calls the corpus, e.g. the option that chose it."""
    n_skipped: int = 0
    """Files left out of the last complete iteration because they aren't UTF-8 text."""

    @abstractmethod
    def __iter__(self) -> Iterator[str]: ...


class FileDocuments(Documents):
    """Files as documents, or their lines."""

    def __init__(self, where: str, paths: list[Path], *, lines: bool = False, skip_undecodable: bool = False) -> None:
        self.where = where
        self.paths = paths
        self.lines = lines
        self.skip_undecodable = skip_undecodable

    def __iter__(self) -> Iterator[str]:
        n_skipped = 0
        for path in self.paths:
            try:
                for text in _lines(path) if self.lines else _whole(path):
                    if text and not text.isspace():
                        yield text
            except OSError as error:
                raise DataError(f"{self.where}: can't read {path}: {error.strerror or error}") from error
            except DataError:
                if not self.skip_undecodable:
                    raise
                n_skipped += 1
        self.n_skipped = n_skipped


def stdlib() -> Documents:
    """The modules of the Python standard library, by path; its tests and other packages are left out."""
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
    return FileDocuments("data=stdlib", found, skip_undecodable=True)


def text_files(path: str, *, pattern: str, lines: bool) -> Documents:
    """The files that path stands for: a file, a folder (its files that match pattern) or a glob; sorted."""
    if not path:
        raise DataError(f"data.path is not set; say which text to read, e.g. {EXAMPLE}")
    return FileDocuments(f"data.path={path}", _find(path, pattern), lines=lines)


def _find(given: str, pattern: str) -> list[Path]:
    path = Path(given).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        names = sorted(found.relative_to(path).as_posix() for found in path.rglob(pattern) if found.is_file())
        chosen = [path / name for name in names if not any(part.startswith(".") for part in name.split("/"))]
        if not chosen:
            raise DataError(
                f"data.path={given}: no file in this folder matches data.pattern={pattern}{_suffixes(path)}; "
                f"set data.pattern to what your files are called"
            )
        return chosen
    if glob.has_magic(given):
        chosen = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if os.path.isfile(name)]
        if not chosen:
            raise DataError(f"data.path={given}: no file matches this glob (the current folder is {Path.cwd()})")
        return chosen
    raise DataError(f"data.path={given}: expected a file, a folder or a glob, but {_missing(path)}")


def _missing(path: Path) -> str:
    """Which part of a path doesn't exist, and what is there that is called alike."""
    path = Path(os.path.abspath(path))
    while not path.parent.exists():
        path = path.parent
    if not path.parent.is_dir():
        return f"{path.parent} is a file, not a folder"
    siblings = os.listdir(path.parent) if os.access(path.parent, os.R_OK) else []
    return f"there is no {path.name} in {path.parent}{did_you_mean(path.name, siblings)}"


def _suffixes(folder: Path) -> str:
    """' (there are *.md, *.rst)' for the folder's own files."""
    found = sorted({f"*{path.suffix}" for path in folder.rglob("*") if path.is_file() and path.suffix})
    return f" (there are {', '.join(found[:8])})" if found else " (it has no files with a suffix)"


def _whole(path: Path) -> Iterator[str]:
    yield _decode(path.read_bytes(), path, 0)


def _lines(path: Path) -> Iterator[str]:
    offset = 0
    with path.open("rb") as file:
        for raw in file:
            yield _decode(raw, path, offset).removesuffix("\n").removesuffix("\r")
            offset += len(raw)


def _decode(raw: bytes, path: Path, offset: int) -> str:
    """raw as text; offset: where in the file it begins."""
    nul = raw.find(b"\0")
    if nul >= 0:
        raise DataError(
            f"{path}: expected UTF-8 text, but byte {offset + nul:,} is NUL: a binary file, or UTF-16 text; "
            f"leave it out (data.path, data.pattern) or convert it: iconv -f utf16 -t utf8"
        )
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: expected UTF-8 text, but byte {offset + error.start:,} is 0x{raw[error.start]:02x} "
            f"({error.reason}); leave it out (data.path, data.pattern) or convert it: iconv -f latin1 -t utf8"
        ) from None
