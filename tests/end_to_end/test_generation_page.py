"""docs/generation.md: every command works as it is typed there, and prints in the form that is shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import lmexp
from lmexp.cli.main import main
from tests.end_to_end.command import ROOT, TINY, write_corpus

PAGE = (ROOT / "docs" / "generation.md").read_text(encoding="utf-8")
TEXT = re.compile(r'(?<="text": ").*(?=", "(seed|beam)")|^(?!--- |\{|error:|  ).*', re.MULTILINE)
"""What another model writes otherwise."""


def test_every_command_prints_what_is_shown_but_for_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path)
    (tmp_path / "prompts.txt").write_text("El\nJo\n", encoding="utf-8")
    small = ["trainer.max_steps=2", "trainer.val_every_n_steps=2", "evaluation=[]"]
    path = lmexp.train(lmexp.compose([*TINY, *small]), say=lambda _: None).path
    blocks = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    commands = [found for block in blocks for found in re.findall(r"^\$ lmexp (.*)\n((?:(?!\$ ).*\n)*)", block, re.M)]
    assert len(commands) == 5
    for command, shown in commands:
        words = shlex.split(command.replace("RUN", str(path)))
        more = ["stop=[' ','é']", "accelerator=cpu"]  # one line for each text
        assert main([*words, *more]) == (2 if "error:" in shown else 0), command
        printed = "".join(capsys.readouterr())
        assert _form(printed) == _form(shown)
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0], {"lmexp": lmexp, "path": path})
    assert capsys.readouterr().out.count("\n") >= 2


def _form(printed: str) -> list[str]:
    """Lines without the text, and without those that hold nothing else."""
    return [line for line in TEXT.sub("", printed).splitlines() if line]
