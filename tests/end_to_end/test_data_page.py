"""docs/data.md: every command works as it is typed there, and prints what is shown."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmexp.cli.main import COMMANDS, main
from lmexp.config.compose import compose
from lmexp.config.schema import SCHEMAS
from tests.end_to_end.command import ROOT

PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
LINE = "A line of text number {}, about the weather, the sea and the road to the next town; "


def blocks() -> dict[str, str]:
    """Command -> what the page shows below it."""
    found = {}
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        for command, output in re.findall(r"^\$ lmexp (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            found[command] = output
    return found


def files() -> dict[str, str]:
    """Name -> content of every code block that follows a line naming its file."""
    return dict(re.findall(r"`([\w/]+\.yaml)`[^`\n]*:\n\n```yaml\n(.*?)```", PAGE, re.DOTALL))


def write_corpora(folder: Path) -> None:
    """Every file and folder that the page speaks of."""
    rows = [
        {"text": LINE.format(i) * 9, "title": f"Row {i}", "meta": {"body": LINE.format(-i) * 9}} for i in range(300)
    ]
    for i, row in enumerate(rows):
        for name in (
            "books",
            "own/train",
            *(("own/valid",) if i % 10 == 0 else ()),
            *(("own/test",) if i % 9 == 0 else ()),
        ):
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / f"{i:03}.txt").write_text(str(row["text"]), encoding="utf-8")
    lines = [json.dumps(row) for row in rows]
    lines[16], lines[40], lines[41] = '{"text": "cut off', '{"text": 7}', '{"txet": "misspelt"}'
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, delimiter in (("table.csv", ","), ("table.tsv", "\t")):
        quote = '"' if delimiter == "," else ""
        cells = [f"{row['title']}{delimiter}{quote}{row['text']}{quote}" for row in rows]
        (folder / name).write_text("\n".join([f"title{delimiter}body", *cells]) + "\n", encoding="utf-8")
    pq.write_table(pa.table({"body": [row["text"] for row in rows]}), folder / "table.parquet")
    datasets = pytest.importorskip("datasets")
    columns = {"text": [row["text"] for row in rows]}
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(columns)}).save_to_disk(str(folder / "saved"))
    for name, text in files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def shown(output: str) -> list[str]:
    """Lines as they are compared: one fingerprint is as good as another."""
    return [re.sub(r"(cache/|fingerprint )[0-9a-f]{16}", r"\1…", line).rstrip() for line in output.splitlines()]


@pytest.mark.timeout(900)
def test_every_command_prepares_and_prints_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpora(tmp_path)
    ran = 0
    for command, output in blocks().items():
        words = shlex.split(command)
        assert words[0] in COMMANDS
        if words[0] != "prepare" or "RUN" in command:
            continue
        if "hub" in command:  # needs a network
            compose(words[1:])
            continue
        assert main(words) == 0, command
        said = shown(capsys.readouterr().out)
        for line in shown(output):
            assert line == "..." or line in said, f"{command}\n{line}\n" + "\n".join(said)
        ran += 1
    assert ran > 8


def test_every_kind_of_data_is_on_the_page() -> None:
    for kind in SCHEMAS["data"]:
        if SCHEMAS["data"][kind].__module__ == "lmexp.data.config":
            assert f"data={kind}" in PAGE, kind
