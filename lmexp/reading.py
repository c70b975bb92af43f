"""Reading files that somebody else may have made: nothing hangs, leads elsewhere or fills the memory.

Only regular files are opened: no symbolic links, pipes or devices. JSON is an object in UTF-8, of bounded size and
depth, with each key once. What is refused raises the error that the caller names; a file that is missing is a
FileNotFoundError.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from fnmatch import fnmatch
from io import BufferedReader
from pathlib import Path
from typing import Any

from lmexp.errors import UserError

MOST_JSON_BYTES = 1 << 26
MOST_LINE_BYTES = 1 << 20
MOST_DEPTH = 100
"""Levels of JSON arrays and objects in each other. Ours have about ten."""

KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}


def open_file(path: Path, error: type[UserError], *, follow: bool = False) -> BufferedReader:
    """A regular file, open for reading. follow: a symbolic link will do, for a path that the user typed."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)  # a pipe doesn't wait
    try:
        descriptor = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError) as found:
        raise FileNotFoundError(found.errno, found.strerror, str(path)) from None
    except OSError as found:
        if found.errno == errno.ELOOP and not follow:
            raise error(f"{path}: it is a symbolic link; expected a file: put a copy in its place") from None
        raise error(f"{path}: can't be read: {found.strerror or found}") from found
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise error(f"{path}: it is {KINDS[stat.S_IFMT(mode)]}; expected a file")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, error: type[UserError], *, most: int = MOST_JSON_BYTES, follow: bool = False) -> bytes:
    """The content of a regular file of `most` bytes at most."""
    with open_file(path, error, follow=follow) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise error(f"{path}: it has {size:,} bytes; expected {most:,} at most, so it isn't what its name says")
        return file.read(most)


def read_object(path: Path, error: type[UserError], *, most: int = MOST_JSON_BYTES, follow: bool = False) -> Any:
    """The JSON object in a file."""
    return parse_object(read_bytes(path, error, most=most, follow=follow), path, error)


def read_format(path: Path, error: type[UserError], name: str, version: int) -> dict[str, Any]:
    """The JSON object in a file that says {"format": name, "version": version, ...}."""
    body: dict[str, Any] = read_object(path, error)
    check_format(body, path, error, name, version)
    return body


def lines_of(file: BufferedReader, path: Path, error: type[UserError]) -> Iterator[bytes]:
    """The lines of a file, with their line breaks, of MOST_LINE_BYTES each at most."""
    for number, line in enumerate(iter(lambda: file.readline(MOST_LINE_BYTES + 1), b""), start=1):
        if len(line) > MOST_LINE_BYTES:
            raise error(f"{path}:{number}: the line is longer than {MOST_LINE_BYTES:,} bytes; the file is damaged")
        yield line


def parse_object(content: bytes, where: Path | str, error: type[UserError]) -> dict[str, Any]:
    """The JSON object that a text holds."""
    try:
        body = json.loads(content.decode("utf-8"), object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as found:
        raise error(f"{where}: not JSON ({found}); the file is damaged, or isn't what its name says") from None
    if not isinstance(body, dict):
        raise error(f"{where}: expected a JSON object, got a {type(body).__name__}; the file is damaged")
    if _is_deeper(body, MOST_DEPTH):
        raise error(f"{where}: not JSON that lmexp wrote (more than {MOST_DEPTH} levels); the file is damaged")
    return body


def check_format(body: dict[str, Any], where: Path | str, error: type[UserError], name: str, version: int) -> None:
    """The error unless the object is of this format and version."""
    found = (body.get("format"), body.get("version"))
    if found != (name, version) or isinstance(found[1], bool):
        raise error(
            f"{where}: expected format {name!r} version {version}, got {found[0]!r} version {found[1]!r}; "
            f"another version of lmexp wrote it, or something else did"
        )


def check_folder(
    folder: Path,
    error: type[UserError],
    *,
    files: Collection[str] = (),
    folders: Collection[str] = (),
    links: Collection[str] = (),
) -> None:
    """The error where something leads out of a folder, or isn't what its name says: for what is written there too.

    The folder itself may lie behind a symbolic link. files, folders: names of its entries; others are left alone.
    links: patterns of paths in it that may be links to anywhere, since nothing of ours reads or writes through them.
    """
    home = os.path.realpath(folder)
    waiting = [home]
    while waiting:
        at = waiting.pop()
        for entry in _entries(at):
            if at == home and entry.name not in files and entry.name not in folders:
                continue
            inside = os.path.relpath(entry.path, home)
            shown, mode = folder / inside, _mode(entry)
            if mode == stat.S_IFLNK and any(fnmatch(inside, pattern) for pattern in links):
                continue
            if mode == stat.S_IFLNK and not os.path.realpath(entry.path).startswith(home + os.sep):
                raise error(
                    f"{shown}: it is a symbolic link to {os.readlink(entry.path)}, out of its folder; expected what it "
                    f"points to: if that is yours, put a copy in its place"
                )
            fits = {stat.S_IFREG, stat.S_IFDIR}
            if at == home:
                fits = {stat.S_IFREG} if entry.name in files else {stat.S_IFDIR}
            if mode not in fits | {stat.S_IFLNK}:
                expected = " or ".join(KINDS[one] for one in sorted(fits))
                raise error(f"{shown}: it is {KINDS.get(mode, 'of an unknown kind')}; expected {expected}: delete it")
            if mode == stat.S_IFDIR:
                waiting.append(entry.path)


def _entries(folder: str) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:  # removed in the meantime, or not for us: whoever reads in it says so
        return ()


def _mode(entry: os.DirEntry[str]) -> int:
    """S_IFREG and so on, of the entry itself; S_IFREG where it is gone by now."""
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    try:
        return stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return stat.S_IFREG


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; ValueError where a key stands in it twice, for readers differ in which one they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} stands twice in one object")
    return found


def _is_deeper(body: Any, levels: int) -> bool:
    nested = [body]
    for _ in range(levels):
        nested = [
            child
            for node in nested
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not nested:
            return False
    return True
