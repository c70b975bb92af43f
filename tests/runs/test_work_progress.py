"""What is said while long work goes on."""

from __future__ import annotations

import contextlib
import os
import pty
import sys

import pytest

from lmexp.data.progress import Progress
from lmexp.runs import work_progress
from lmexp.runs.work_progress import Lines, counted, shown
from tests.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(work_progress, "time", clock)
    return clock


def test_a_log_gets_a_line_each_ten_seconds_at_most(clock: Clock) -> None:
    said: list[str] = []
    lines = Lines(said.append)
    lines.say("tokenizing train: 5 documents")
    for second in range(61):
        clock.now = 1000.0 + second
        lines.advance("tokenizing", second * 1_000_000, 60_000_000)
    assert said[0] == "tokenizing train: 5 documents"
    assert said[1] == "tokenizing: 5.0 of 60.0 MB  ETA 0:00:55"
    assert 5 <= len(said[1:]) <= 6
    assert not [line for line in said if "60.0 of 60.0" in line]


def test_short_work_is_not_counted(clock: Clock) -> None:
    said: list[str] = []
    lines = Lines(said.append)
    for what in ("reading", "tokenizing"):
        for done in range(5):
            clock.now += 0.5
            lines.advance(what, done, 4)
    assert said == []


def test_where_nobody_looks_there_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with shown(print) as progress:
        assert isinstance(progress, Lines)
        progress.say("[b]x[/b]")
    assert capsys.readouterr().out == "[b]x[/b]\n"


class Terminal:
    """Standard output as a terminal; what it showed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._read, write = pty.openpty()
        self._file = os.fdopen(write, "w")
        monkeypatch.setattr(sys, "stdout", self._file)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.delenv("NO_COLOR", raising=False)

    def seen(self) -> str:
        """All of it; the terminal is closed then."""
        self._file.close()
        seen = ""
        with open(self._read, "rb", buffering=0) as screen, contextlib.suppress(OSError):  # EIO is a terminal's end
            while part := screen.read(1 << 16):
                seen += part.decode(errors="replace")
        return seen


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    with shown(print) as progress:
        assert type(progress) is not Progress
        progress.say("[b]x[/b]")
        progress.advance("tokenizing", 2_500_000, 5_000_000)
        progress.advance("tokenizing", 5_000_000, 5_000_000)
    seen = terminal.seen()
    assert "[b]x[/b]" in seen
    assert "tokenizing" in seen
    assert "5.0/5.0 MB" in seen
    assert "ETA" in seen


def test_work_in_parts_is_counted_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    with counted() as progress:
        progress.advance("perplexity", 1, 1200)
        progress.advance("perplexity", 1200, 1200)
    seen = terminal.seen()
    assert "perplexity" in seen
    assert "1200/1200" in seen
    assert "ETA" in seen


def test_work_in_parts_is_counted_in_a_log(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with counted() as progress:
        for second in range(11):
            clock.now = 1000.0 + second
            progress.advance("perplexity", second * 500, 30_000)
    assert capsys.readouterr().out == "perplexity: 2,500 of 30,000  ETA 0:00:55\n"
    with counted(first=False) as progress:
        clock.now += 100
        progress.advance("perplexity", 1, 2)
        clock.now += 100
        progress.advance("perplexity", 1, 2)
    assert capsys.readouterr().out == ""


def test_a_bar_is_only_for_print() -> None:
    said: list[str] = []
    with shown(said.append) as progress:
        progress.say("x")
    assert said == ["x"]
