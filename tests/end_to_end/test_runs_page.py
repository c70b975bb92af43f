"""docs/runs.md: every command works as it is typed there, and prints what is shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import lmexp
from lmexp.cli.main import main
from tests.end_to_end.command import ROOT, only_run

PAGE = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")
LINE = "A line of text number {}, about the weather, the sea and the road to the next town; "


def commands() -> list[tuple[str, list[str]]]:
    """Each command and the lines that the page shows below it."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        for command, output in re.findall(r"^\$ lmexp (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            found.append((command, output.splitlines()))
    return found


def pattern(line: str) -> re.Pattern[str]:
    """What a shown line matches: `...` is anything."""
    return re.compile(".*".join(map(re.escape, line.split("..."))))


@pytest.mark.timeout(600)
def test_every_command_prints_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "books").mkdir()
    for i in range(300):
        (tmp_path / "books" / f"{i:03}.txt").write_text(LINE.format(i) * 9, encoding="utf-8")
    run = ""
    for command, output in commands():
        words = [word.replace("RUN", run) for word in shlex.split(command)]
        assert main(words) == (2 if "error:" in output else 0), command
        said = "".join(capsys.readouterr()).replace(f"{tmp_path}/", "")
        run = run or str(only_run(Path("outputs")))
        lines = said.replace(run, "RUN").splitlines()
        for shown in output:
            assert any(pattern(shown).fullmatch(line) for line in lines), f"{command}\n{shown}\n" + "\n".join(lines)
    assert len(commands()) > 7
    python = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0].replace("max_steps=60", "max_steps=41")
    scope = {"lmexp": lmexp, "path": run}
    exec(python.replace('1e-4"', '1e-4", "trainer.max_steps=2"'), scope)
    assert scope["run"].metrics()[-1]["step"] == 41  # type: ignore[attr-defined]
    assert scope["other"].config.optimizer.lr == 1e-4  # type: ignore[attr-defined]
