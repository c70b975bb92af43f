"""docs/hugging_face.md: every command works as it is typed there, and prints what is shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lmexp.cli.main import main
from tests.end_to_end.command import ROOT
from tests.hugging_face import write_model

PAGE = (ROOT / "docs" / "hugging_face.md").read_text(encoding="utf-8")
LINE = "A line of text number {}, about the weather, the sea and the road to the next town; "


def shown() -> list[tuple[str, list[str]]]:
    """Each command and the lines that the page shows below it."""
    blocks = "".join(re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL))
    found = re.findall(r"^\$ lmexp (.*)\n((?:(?!\$ ).*\n)*)", blocks, re.MULTILINE)
    return [(command, output.splitlines()) for command, output in found]


def pattern(line: str) -> re.Pattern[str]:
    """What a shown line matches: `...` is anything, and so are figures of the model, which is another one here."""
    return re.compile(".*".join(map(re.escape, line.split("..."))).replace(re.escape("37,728"), r"[\d,]+"))


@pytest.mark.slow
def test_every_command_prints_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "books").mkdir()
    for i in range(100):
        (tmp_path / "books" / f"{i:03}.txt").write_text(LINE.format(i) * 9, encoding="utf-8")
    write_model(tmp_path / "my_gpt2", "gpt2", max_position_embeddings=64)
    write_model(tmp_path / "my_llama", "llama", max_position_embeddings=64)
    runs: dict[str, str] = {}
    for command, output in shown():
        typed = re.sub("RUN|LORA", lambda name: runs[name[0]], command)
        assert main(shlex.split(typed)) == (2 if "error:" in output else 0), command
        said = "".join(capsys.readouterr()).replace(f"{tmp_path}/", "")
        named = re.search(r"^run: (\S+)$", said, re.MULTILINE)
        if named and "error:" not in output:
            runs["LORA" if "hf_lora" in command else "RUN"] = named[1]
        for name, run in runs.items():
            said = said.replace(run, name)
        for line in output:
            assert any(pattern(line).fullmatch(one) for one in said.splitlines()), f"{command}\n{line}\n{said}"
    assert len(shown()) == 6
