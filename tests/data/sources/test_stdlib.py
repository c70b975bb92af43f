from pathlib import Path

import pytest

from lmexp.data.config import StdlibConfig
from lmexp.data.sources import stdlib
from lmexp.errors import DataError


def test_stdlib_is_the_library_without_its_tests(read) -> None:
    names = [Path(file.path).as_posix() for file in StdlibConfig().source().files()]
    assert any(name.endswith("/argparse.py") for name in names)
    assert not [name for name in names if "-packages/" in name or "/test/" in name or "/idlelib/" in name]
    documents, bad = read(StdlibConfig())
    assert 300 < len(documents) <= len(names)
    assert not bad


def test_files_that_are_no_text_are_set_aside_and_empty_ones_left_out(monkeypatch, tmp_path: Path, read) -> None:
    (tmp_path / "a.py").write_text("a = 1")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "test_a.py").write_text("assert a == 1")
    monkeypatch.setattr(stdlib.sysconfig, "get_path", lambda name: str(tmp_path))
    documents, bad = read(StdlibConfig())
    assert documents == ["a = 1"]
    assert [(b.kind, b.file) for b in bad] == [("not UTF-8", str(tmp_path / "latin.py"))]


def test_a_python_without_sources_is_told(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stdlib.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match=r"found none .* data=text_files"):
        StdlibConfig().source().units()
