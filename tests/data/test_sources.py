import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmexp.data import sources
from lmexp.data.config import StdlibConfig, TextFilesConfig
from lmexp.errors import DataError


def read(path: object = "", **settings: object) -> list[str]:
    return list(TextFilesConfig(path=str(path), **settings).documents())


def error_of(path: object = "", **settings: object) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **settings)
    return str(caught.value)


def test_a_file_is_a_document_to_the_byte(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("one\r\ntwo\n\ntrès\n".encode())
    assert read(tmp_path / "a.txt") == ["one\r\ntwo\n\ntrès\n"]


def test_lines_are_documents_and_blank_ones_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\n\n  \n two\r\nlast")
    assert read(tmp_path / "a.txt", document="line") == ["one", " two", "last"]


def test_a_folder_is_read_by_pattern_at_any_depth_in_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/b/c.txt", "a.md", ".hidden.txt", ".git/x.txt", "empty.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("" if name == "empty.txt" else name)
    assert read(tmp_path) == ["a/b/c.txt", "a/z.txt", "b.txt"]
    assert read(tmp_path, pattern="*.md") == ["a.md"]
    assert read(tmp_path / "*.*") == ["a.md", "b.txt"]
    assert read(tmp_path / "**" / "c.txt") == ["a/b/c.txt"]


def test_paths_are_relative_to_the_current_folder_and_know_home(tmp_path, monkeypatch) -> None:
    (tmp_path / "a.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    assert read("a.txt") == read("*.txt") == read(".") == ["text"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read("~/a.txt") == read("~/*.txt") == ["text"]


def test_a_file_called_like_a_glob_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("text")
    assert read(tmp_path / "a[1].txt") == ["text"]


def test_documents_can_be_read_again(lines_file: Path) -> None:
    documents = TextFilesConfig(path=str(lines_file), document="line").documents()
    assert list(documents) == list(documents)
    assert len(list(documents)) == 60


def test_no_path_says_which_option_and_gives_an_example() -> None:
    assert "data.path is not set" in error_of()
    assert "data.path=book.txt" in error_of()


def test_a_missing_path_says_what_is_called_alike(tmp_path: Path) -> None:
    (tmp_path / "shakespeare").mkdir()
    message = error_of(tmp_path / "shakespear" / "input.txt")
    assert "expected a file, a folder or a glob, but there is no shakespear in" in message
    assert message.endswith(f"{tmp_path}; did you mean shakespeare?")


def test_a_path_through_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    assert f"{tmp_path / 'a.txt'} is a file, not a folder" in error_of(tmp_path / "a.txt" / "b.txt")


def test_a_folder_without_a_match_says_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("text")
    assert "matches data.pattern=*.txt (there are *.md)" in error_of(tmp_path)
    assert "no file matches this glob" in error_of(tmp_path / "*.rst")


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"abc\0def")
    assert "a.txt: expected UTF-8 text, but byte 3 is NUL" in error_of(tmp_path)


def test_other_encodings_are_refused_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"fine\n" * 1000 + "caf\u00e9".encode("latin1"))
    for document in ("file", "line"):
        assert "a.txt: expected UTF-8 text, but byte 5,003 is 0xe9" in error_of(tmp_path, document=document)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "a.txt").chmod(0)
    assert "can't read" in error_of(tmp_path)


def test_a_file_that_vanishes_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    documents = TextFilesConfig(path=str(tmp_path)).documents()
    (tmp_path / "a.txt").unlink()
    with pytest.raises(DataError, match=r"can't read .*a\.txt: No such file"):
        list(documents)


def test_stdlib_is_the_library_without_its_tests(monkeypatch, tmp_path: Path) -> None:
    documents = StdlibConfig().documents()
    assert isinstance(documents, sources.FileDocuments)
    names = [path.as_posix() for path in documents.paths]
    assert any(name.endswith("/argparse.py") for name in names)
    assert not [name for name in names if "-packages/" in name or "/test/" in name or "/idlelib/" in name]
    assert len(names) > 300


def test_stdlib_counts_the_files_it_skips(monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a = 1")
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "test_a.py").write_text("assert a == 1")
    monkeypatch.setattr(sources.sysconfig, "get_path", lambda name: str(tmp_path))
    documents = StdlibConfig().documents()
    assert list(documents) == ["a = 1"]
    assert documents.n_skipped == 1


def test_a_python_without_sources_is_told(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sources.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match=r"found none .* data=text_files"):
        StdlibConfig().documents()


def test_errors_come_without_torch(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from lmexp.data.cache import prepare\n"
        "from lmexp.data.config import TextFilesConfig\n"
        "from lmexp.tokenizers.config import BPETokenizerConfig\n"
        "from lmexp.errors import DataError\n"
        "path = sys.argv[1]\n"
        "for settings in ({}, {'path': path + 'b'}, {'path': path, 'split': 'tail'}):\n"
        "    cache_root = Path(path).with_name('cache')\n"
        "    try: prepare(TextFilesConfig(**settings), BPETokenizerConfig(), cache_root=cache_root)\n"
        "    except DataError as error: print(error)\n"
        "    else: raise AssertionError\n"
        "assert 'torch' not in sys.modules and 'pytorch_lightning' not in sys.modules\n"
    )
    (tmp_path / "a.txt").write_text("a short text " * 5)
    command = [sys.executable, "-c", script, str(tmp_path / "a.txt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "data.sequence_length=256 needs at least 257" in done.stdout
