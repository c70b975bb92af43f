import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmexp.data.config import JsonLinesConfig, TextFilesConfig
from lmexp.data.sources.base import Unit
from lmexp.data.sources.files import find_files
from lmexp.errors import DataError


def names(path: object, **settings: object) -> list[str]:
    """part:path below the given folder of each file."""
    config = TextFilesConfig(path=str(path), **settings)
    return [f"{file.part}:{os.path.relpath(file.path, path)}" for file in config.source().files()]


def error_of(path: object = "", **settings: object) -> str:
    with pytest.raises(DataError) as caught:
        TextFilesConfig(path=str(path), **settings).source().units()
    return str(caught.value)


def plant(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def test_a_folder_is_read_by_pattern_at_any_depth_in_order(tmp_path: Path, read) -> None:
    plant(tmp_path, "b.txt", "a/z.txt", "a/b/c.txt", "a.md", ".hidden.txt", ".git/x.txt", "a/.git/x.txt")
    assert read(TextFilesConfig(path=str(tmp_path)))[0] == ["a/b/c.txt", "a/z.txt", "b.txt"]
    assert names(tmp_path, pattern="*.md") == ["all:a.md"]
    assert read(TextFilesConfig(path=str(tmp_path / "*.*")))[0] == ["a.md", "b.txt"]
    assert read(TextFilesConfig(path=str(tmp_path / "**" / "c.txt")))[0] == ["a/b/c.txt"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a/*.txt", ["all:a/z.txt", "all:c/a/z.txt"]),
        ("./a/*", ["all:a/z.txt", "all:c/a/z.txt"]),
        ("**/*.txt", ["all:a/b/c.txt", "all:a/z.txt", "all:b.txt", "all:c/a/z.txt"]),
        ("a/**/c.txt", ["all:a/b/c.txt"]),
        ("a/**/z.txt", ["all:a/z.txt", "all:c/a/z.txt"]),
        ("[ac]/?.txt", ["all:a/z.txt", "all:c/a/z.txt"]),
        ("c/*/z.txt", ["all:c/a/z.txt"]),
        ("b.txt", ["all:b.txt"]),
    ],
)
def test_a_pattern_may_have_folders(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    plant(tmp_path, "b.txt", "a/z.txt", "a/b/c.txt", "c/a/z.txt")
    assert names(tmp_path, pattern=pattern) == expected


@pytest.mark.parametrize("pattern", ["/a.txt", "../*.txt", "a/", "**"])
def test_a_pattern_that_can_match_no_file_is_refused(tmp_path: Path, pattern: str) -> None:
    plant(tmp_path, "a.txt")
    assert f"data.pattern is {pattern!r}; expected" in error_of(tmp_path, pattern=pattern)


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    plant(tmp_path, "elsewhere/a.txt", "data/b.txt")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "circle").symlink_to(tmp_path / "data")
    assert names(tmp_path / "data") == ["all:b.txt", "all:link/a.txt"]


def test_a_link_to_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to(tmp_path / "gone")
    assert "a.txt: No such file" in error_of(tmp_path)


def test_given_splits_are_no_training_text(tmp_path: Path) -> None:
    plant(tmp_path, "valid.txt", "train.txt", "test/a.txt", "test/b.txt")
    assert names(tmp_path, validation_pattern="valid.txt", test_pattern="test/*") == [
        "all:train.txt",
        "validation:valid.txt",
        "test:test/a.txt",
        "test:test/b.txt",
    ]
    assert names(tmp_path, test_pattern="test/*") == [
        "all:train.txt",
        "all:valid.txt",
        "test:test/a.txt",
        "test:test/b.txt",
    ]


def test_given_splits_that_can_not_be_are_refused(tmp_path: Path) -> None:
    plant(tmp_path, "valid.txt", "train.txt")
    assert "valid.txt matches data.validation_pattern=v* and data.test_pattern=*d.txt; make them different" in error_of(
        tmp_path, validation_pattern="v*", test_pattern="*d.txt"
    )
    assert "matches data.test_pattern=*.csv (there are *.txt)" in error_of(tmp_path, test_pattern="*.csv")
    assert "no file in this folder that isn't one of the validation or test split" in error_of(
        tmp_path, validation_pattern="*"
    )
    for path in (tmp_path / "train.txt", tmp_path / "*.txt"):
        assert "chooses among the files of a folder, but this is no folder" in error_of(path, test_pattern="t*")


def test_paths_are_relative_to_the_current_folder_and_know_home(tmp_path, monkeypatch, read) -> None:
    plant(tmp_path, "a.txt")
    monkeypatch.chdir(tmp_path)
    for path in ("a.txt", "*.txt", "."):
        assert read(TextFilesConfig(path=path))[0] == ["a.txt"]
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("~/a.txt", "~/*.txt"):
        assert read(TextFilesConfig(path=path))[0] == ["a.txt"]


def test_a_file_called_like_a_glob_is_that_file(tmp_path: Path, read) -> None:
    plant(tmp_path, "a[1].txt")
    assert read(TextFilesConfig(path=str(tmp_path / "a[1].txt")))[0] == ["a[1].txt"]


def test_no_path_says_which_option_and_gives_an_example() -> None:
    assert "data.path is not set" in error_of()
    assert "data.path=book.txt" in error_of()


def test_a_missing_path_says_what_is_called_alike(tmp_path: Path) -> None:
    (tmp_path / "shakespeare").mkdir()
    message = error_of(tmp_path / "shakespear" / "input.txt")
    assert "expected a file, a folder or a glob, but there is no shakespear in" in message
    assert message.endswith(f"{tmp_path}; did you mean shakespeare?")


def test_a_path_through_a_file_is_told(tmp_path: Path) -> None:
    plant(tmp_path, "a.txt")
    assert f"{tmp_path / 'a.txt'} is a file, not a folder" in error_of(tmp_path / "a.txt" / "b.txt")


def test_a_pipe_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "a pipe can't be read twice" in error_of(tmp_path / "pipe")


def test_a_folder_without_a_match_says_what_there_is(tmp_path: Path) -> None:
    plant(tmp_path, "a.md", "b.txt.gz")
    assert "matches data.pattern=*.txt (there are *.md, *.txt.gz)" in error_of(tmp_path)
    assert "no file matches this glob" in error_of(tmp_path / "*.rst")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_or_folder_is_told(tmp_path: Path, read) -> None:
    plant(tmp_path, "a.txt", "b/c.txt")
    (tmp_path / "a.txt").chmod(0)
    for path in (tmp_path, tmp_path / "a.txt"):
        with pytest.raises(DataError, match=r"can't read .*a\.txt: Permission denied"):
            read(TextFilesConfig(path=str(path)))
    (tmp_path / "b").chmod(0)
    try:
        assert "can't read" in error_of(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o700)


def test_a_disk_that_fails_is_told(tmp_path: Path, monkeypatch, read, set_unit_bytes) -> None:
    def fail(path: str) -> None:
        raise OSError(5, "Input/output error", path)

    plant(tmp_path, "a.txt")
    monkeypatch.setattr("lmexp.data.sources.streams._plain", fail)
    with pytest.raises(DataError, match=r"^data\.path=.*: can't read .*a\.txt: Input/output error$"):
        read(TextFilesConfig(path=str(tmp_path)))
    set_unit_bytes(1)  # JSON is looked at before it is divided
    with pytest.raises(DataError, match=r"^data\.path=.*: can't read .*a\.txt: Input/output error$"):
        JsonLinesConfig(path=str(tmp_path), pattern="*.txt").source().units()


def test_a_file_that_vanishes_is_told(tmp_path: Path) -> None:
    plant(tmp_path, "a.txt")
    source = TextFilesConfig(path=str(tmp_path)).source()
    [unit] = source.units()
    (tmp_path / "a.txt").unlink()
    with pytest.raises(DataError, match=r"can't read .*a\.txt: No such file"):
        list(source.read(unit))


def test_small_files_share_a_unit_and_large_ones_are_divided_by_lines(tmp_path: Path, set_unit_bytes) -> None:
    for name, size in {"a.txt": 40, "b.txt": 50, "c.txt": 20, "d.txt": 250, "e.txt": 10, "v.txt": 10}.items():
        (tmp_path / name).write_bytes(b"x\n" * (size // 2))
    set_unit_bytes(100)
    a, b, c, d, e, v = (str(tmp_path / f"{name}.txt") for name in "abcdev")
    ends = [Unit("all", (a, b), n_bytes=90), Unit("all", (e,), n_bytes=10), Unit("validation", (v,), n_bytes=10)]
    whole = [Unit("all", (c,), n_bytes=20), Unit("all", (d,), n_bytes=250)]
    ranges = [Unit("all", (d,), 0, 100, 100), Unit("all", (d,), 100, 200, 100), Unit("all", (d,), 200, None, 50)]
    settings = {"path": str(tmp_path), "validation_pattern": "v.txt"}
    assert TextFilesConfig(**settings).source().units() == [ends[0], *whole, *ends[1:]]
    lines = TextFilesConfig(**settings, document="line").source().units()
    assert sorted(lines, key=lambda unit: unit.paths) == sorted([*ends, whole[0], *ranges], key=lambda unit: unit.paths)
    assert [unit.part for unit in lines] == ["all"] * 6 + ["validation"]


def test_identity_changes_with_the_files_and_with_the_folder(tmp_path: Path, monkeypatch) -> None:
    for folder in ("one", "two"):
        plant(tmp_path, f"{folder}/a.txt", f"{folder}/b.txt")
        for name in ("a.txt", "b.txt"):
            os.utime(tmp_path / folder / name, ns=(1, 1))
    monkeypatch.chdir(tmp_path / "one")
    config = TextFilesConfig(path=".")
    first = config.source().identity()
    assert config.source().identity() == first
    monkeypatch.chdir(tmp_path / "two")
    assert config.source().identity() != first
    monkeypatch.chdir(tmp_path / "one")
    os.utime("a.txt", ns=(1, 2))
    assert config.source().identity() != first
    os.utime("a.txt", ns=(1, 1))
    assert config.source().identity() == first
    os.rename("b.txt", "c.txt")
    assert config.source().identity() != first
    absolute = TextFilesConfig(path=str(tmp_path / "one")).source()
    before = absolute.identity()
    monkeypatch.chdir(tmp_path)
    assert absolute.identity() == before


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from lmexp.data.config import *\n"
        "for config in (TextFilesConfig(path=sys.argv[1]), StdlibConfig(), CsvConfig(path=sys.argv[1]),\n"
        "               JsonLinesConfig(path=sys.argv[1])):\n"
        "    source = config.source()\n"
        "    print(len(list(source.read(source.units()[0]))) > 0)\n"
        "assert not {'torch', 'numpy', 'pytorch_lightning'} & set(sys.modules)\n"
    )
    (tmp_path / "a.txt").write_text('"text"\n')
    command = [sys.executable, "-c", script, str(tmp_path / "a.txt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "True\nTrue\nFalse\nTrue\n"


def test_other_formats_tell_of_their_own_pattern(tmp_path: Path) -> None:
    plant(tmp_path, "a.txt")
    with pytest.raises(DataError, match=r"matches data\.pattern=\*\.json\*"):
        JsonLinesConfig(path=str(tmp_path)).source().units()


def test_a_glob_that_follows_a_link_upwards_finds_each_file_once(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("text")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    found = find_files(TextFilesConfig(path=f"{tmp_path}/**/*.txt"))
    assert [file.path for file in found] == [str(tmp_path / "sub" / "a.txt")]
