"""Reading files that somebody else may have made: nothing hangs, leads elsewhere or fills the memory.

Only regular files are opened: no symbolic links, pipes or devices. JSON is an object in UTF-8, of bounded size and
depth, with each key once. What is refused raises the error that the caller names; a missing file is a FileNotFoundError.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from lmexp.errors import UserError

MOST_JSON_BYTES = 1 << 26
MOST_DEPTH = 100
"""Levels of JSON arrays and objects in each other. Ours have about ten."""

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}


def open_file(path: Path, error: type[UserError], *, follow: bool = False) -> BinaryIO:
    """A regular file, open for reading. follow: a symbolic link will do, for a path that the user typed."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)  # a pipe doesn't wait
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as found:
        if found.errno == errno.ELOOP and not follow:
            raise error(f"{path}: it is a symbolic link; expected a regular file: put a copy in its place") from None
        raise error(f"{path}: can't be read: {found.strerror or found}") from found
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise error(f"{path}: can't be read: Is {KINDS[stat.S_IFMT(mode)]}; expected a regular file")
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


def parse_object(content: bytes, where: Path | str, error: type[UserError]) -> dict[str, Any]:
    """The JSON object that a text holds."""
    try:
        body = json.loads(content.decode("utf-8"), object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as found:
        raise error(f"{where}: not JSON ({found}); the file is damaged") from None
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


def check_links(folder: Path, error: type[UserError], names: Collection[str] | None = None) -> None:
    """The error where anything in a folder leads out of it, or is neither file nor folder.

    The folder itself may lie behind a symbolic link. names: of the entries that are looked at, all unless given.
    """
    home = os.path.realpath(folder)
    folders = [home]
    while folders:
        at = folders.pop()
        for entry in _entries(at):
            if at == home and names is not None and entry.name not in names:
                continue
            shown = folder / os.path.relpath(entry.path, home)
            if entry.is_symlink():
                to = os.path.realpath(entry.path)
                if not to.startswith(home + os.sep):
                    raise error(
                        f"{shown}: a symbolic link out of {folder}, to {to}; expected what it points to: if you trust "
                        f"that, put a copy in its place"
                    )
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif not entry.is_file(follow_symlinks=False):
                kind = KINDS.get(stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode), "of an unknown kind")
                raise error(f"{shown}: it is {kind}; expected files and folders only: delete it")


def _entries(folder: str) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:  # removed in the meantime, or not for us: whoever reads in it says so
        return ()


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
