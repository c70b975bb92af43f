"""Which files make up a corpus, and the units in which they are read."""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmexp.data.config import FilesConfig
from lmexp.data.sources import base
from lmexp.data.sources.base import ALL, Bad, Source, Unit
from lmexp.data.sources.streams import is_compressed
from lmexp.errors import DataError
from lmexp.paths import expanded
from lmexp.plugins import did_you_mean

EXAMPLE = "data.path=book.txt, data.path=books or data.path='books/**/*.txt'"

EXPANSION = 3
"""About how many times larger compressed text becomes."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of the corpus, and what tells whether it has changed."""

    part: str
    """ALL, or the split it was given for."""
    path: str
    """As the user gave it."""
    size: int
    """Bytes on disk."""
    mtime_ns: int
    """Time of the last change."""

    @property
    def n_bytes(self) -> int:
        """Bytes of what it holds; for a compressed file a guess."""
        return self.size * EXPANSION if is_compressed(self.path) else self.size


class FileSource(Source):
    """Documents in files."""

    @abstractmethod
    def files(self) -> list[File]:
        """The files, in the order of the corpus."""

    @abstractmethod
    def read_file(self, path: str, start: int, stop: int | None) -> Iterator[str | Bad]:
        """The documents of a file, or of a range of bytes of it."""

    def divisible(self, file: File) -> bool:
        """Whether ranges of bytes of a plain file can be read by themselves."""
        return False

    def units(self) -> list[Unit]:
        try:
            return grouped(self.files(), self.divisible)
        except OSError as error:
            raise self._unreadable(str(error.filename), error) from error

    def read(self, unit: Unit) -> Iterator[str | Bad]:
        for path in unit.paths:
            try:
                yield from self.read_file(path, unit.start, unit.stop)
            except OSError as error:
                raise self._unreadable(path, error) from error

    def _unreadable(self, path: str, error: OSError) -> DataError:
        return DataError(f"{self.where}: can't read {path}: {error.strerror or error}")

    def identity(self) -> Any:
        files = self.files()
        relative = not all(os.path.isabs(file.path) for file in files)
        return {
            "folder": os.getcwd() if relative else None,
            "files": [[file.part, file.path, file.size, file.mtime_ns] for file in files],
        }


def grouped(files: list[File], divisible: Callable[[File], bool]) -> list[Unit]:
    """Units of about UNIT_BYTES: small files together, a large one in ranges of bytes where it is divisible."""
    units = []
    group: list[File] = []
    n_grouped = 0
    for file in files:
        if group and (group[0].part != file.part or n_grouped + file.n_bytes > base.UNIT_BYTES):
            units.append(_unit(group))
            group, n_grouped = [], 0
        if file.size > base.UNIT_BYTES and not is_compressed(file.path) and divisible(file):
            for start in range(0, file.size, base.UNIT_BYTES):
                stop = start + base.UNIT_BYTES
                n_bytes = min(stop, file.size) - start
                # the last range has no end: what the file holds when it is read
                units.append(Unit(file.part, (file.path,), start, stop if stop < file.size else None, n_bytes))
        else:
            group.append(file)
            n_grouped += file.n_bytes
    return [*units, _unit(group)] if group else units


def _unit(group: list[File]) -> Unit:
    return Unit(group[0].part, tuple(file.path for file in group), n_bytes=sum(file.n_bytes for file in group))


def find_files(config: FilesConfig) -> list[File]:
    """The files that data.path stands for: a file, a folder (its files that match data.pattern) or a glob; sorted,
    those of the corpus first, then those given for validation and for test."""
    given = config.path
    if not given:
        raise DataError(f"data.path is not set; say which text to read, e.g. {EXAMPLE}")
    path = expanded(given)
    if path.is_dir():
        return [file_at(part, path / name) for part, name in _parts(config, list(_below(path)))]
    for part in config.given_splits():
        if path.is_file() or glob.has_magic(given):
            raise DataError(
                f"data.path={given}: data.{part}_pattern chooses among the files of a folder, but this is no folder; "
                f"set data.path to the folder that holds them, or leave data.{part}_pattern out"
            )
    if path.is_file():
        return [file_at(ALL, path)]
    if glob.has_magic(given):
        found = sorted(name for name in set(glob.glob(str(path), recursive=True)) if os.path.isfile(name))
        # ** follows links to folders, also upwards: each file once, by the first of its paths
        places = {(os.path.realpath(os.path.dirname(name)), os.path.basename(name)): name for name in reversed(found)}
        chosen = sorted(places.values())
        if not chosen:
            raise DataError(f"data.path={given}: no file matches this glob (the current folder is {Path.cwd()})")
        return [file_at(ALL, Path(name)) for name in chosen]
    raise DataError(f"data.path={given}: expected a file, a folder or a glob, but {_missing(path)}")


def file_at(part: str, path: Path) -> File:
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror or error}") from error
    return File(part, str(path), found.st_size, found.st_mtime_ns)


def _parts(config: FilesConfig, names: list[str]) -> list[tuple[str, str]]:
    """(part, name) of the files of a folder that belong to the corpus."""
    patterns = {ALL: config.pattern, "validation": config.validation_pattern, "test": config.test_pattern}
    parts: dict[str, list[str]] = {}
    for part, pattern in patterns.items():
        if pattern is not None:
            pieces = _pieces(part, pattern)
            parts[part] = [name for name in names if _matches(name, pieces)]
    validation, test = set(parts.get("validation", ())), set(parts.get("test", ()))
    if both := sorted(validation & test):
        raise DataError(
            f"data.path={config.path}: {both[0]} matches data.validation_pattern={config.validation_pattern} and "
            f"data.test_pattern={config.test_pattern}; make them different"
        )
    parts[ALL] = [name for name in parts[ALL] if name not in validation | test]
    for part, found in parts.items():
        if not found:
            option = "data.pattern" if part == ALL else f"data.{part}_pattern"
            left = " that isn't one of the validation or test split" if part == ALL and validation | test else ""
            raise DataError(
                f"data.path={config.path}: no file in this folder{left} matches {option}={patterns[part]}"
                f"{_suffixes(names)}; set {option} to what your files are called"
            )
    return [(part, name) for part, found in parts.items() for name in sorted(found)]


def _below(folder: Path) -> Iterator[str]:
    """Names of all files in a folder at any depth, links followed, hidden ones left out."""
    seen = set()

    def refuse(error: OSError) -> None:
        raise DataError(f"data.path={folder}: can't read {error.filename}: {error.strerror or error}") from error

    for path, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:  # links may go round in a circle
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(path).relative_to(folder)
        for name in names:
            if not name.startswith(".") and _is_document(os.path.join(path, name)):
                yield (below / name).as_posix()


def _is_document(path: str) -> bool:
    """Whether a path is a file, or a link to one that is gone, which an error tells later."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True


def _pieces(part: str, pattern: str) -> list[str]:
    """The folders and the name that a pattern is made of."""
    pieces = pattern.removeprefix("./").split("/")
    if not all(pieces) or ".." in pieces or pieces[-1] == "**":
        option = "data.pattern" if part == ALL else f"data.{part}_pattern"
        raise DataError(f"{option} is {pattern!r}; expected what files below data.path are called, e.g. '*.txt'")
    return pieces


def _matches(name: str, pieces: list[str]) -> bool:
    """Whether a name ends with what a glob stands for; ** is any number of folders."""
    *folders, last = name.split("/")
    return fnmatch.fnmatchcase(last, pieces[-1]) and (len(pieces) == 1 or _folders_match(folders, ["**", *pieces[:-1]]))


def _folders_match(folders: list[str], pieces: list[str]) -> bool:
    if not pieces:
        return not folders
    if pieces[0] == "**":
        return any(_folders_match(folders[i:], pieces[1:]) for i in range(len(folders) + 1))
    return bool(folders) and fnmatch.fnmatchcase(folders[0], pieces[0]) and _folders_match(folders[1:], pieces[1:])


def _missing(path: Path) -> str:
    """Which part of a path doesn't exist, and what is there that is called alike."""
    path = Path(os.path.abspath(path))
    if path.exists():
        return "it is something else (a pipe can't be read twice)"
    while not path.parent.exists():
        path = path.parent
    if not path.parent.is_dir():
        return f"{path.parent} is a file, not a folder"
    siblings = os.listdir(path.parent) if os.access(path.parent, os.R_OK) else []
    return f"there is no {path.name} in {path.parent}{did_you_mean(path.name, siblings)}"


def _suffixes(names: list[str]) -> str:
    """' (there are *.md, *.txt.gz)' for the folder's own files."""
    found = set()
    for name in names:
        suffixes = Path(name).suffixes
        if suffixes:
            found.add("*" + "".join(suffixes[-2:] if is_compressed(name) else suffixes[-1:]))
    return f" (there are {', '.join(sorted(found)[:8])})" if found else " (it has no files with a suffix)"
