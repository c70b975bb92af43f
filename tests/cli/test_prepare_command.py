"""`lmexp prepare`: the tokens that train would use, ahead of time."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from lmexp.cli.main import main
from tests.cli.test_bad_input import hear_ctrl_c
from tests.end_to_end.command import TINY, command, environment, write_corpus

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with corpus.txt."""
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path)
    return tmp_path


def test_it_makes_what_train_would_use_and_says_what_it_is(folder: Path, capsys: Captured) -> None:
    with open(folder / "corpus.txt", "ab") as file:
        file.write(b"caf\xe9\nnot\x00text\nthe same\nthe same\n")
    assert main(["prepare", *TINY]) == 0
    said = capsys.readouterr().out
    (cache,) = [path.parent for path in folder.glob("outputs/cache/*/cache.json")]
    shown = cache.relative_to(folder)
    assert f"quarantined: 2, see {shown}/quarantine.jsonl" in said
    assert "corpus.txt:301: not UTF-8: byte 3 is 0xe9" in said
    assert "corpus.txt:302: NUL byte" in said
    assert "exact duplicates: 1 (data.drop_duplicates=true keeps the first of them)" in said
    assert f"tokens: {shown}\ndata card: {shown}/data_card.html\n" in said
    facts = json.loads((cache / "cache.json").read_text())
    for name, split in facts["splits"].items():
        (row,) = [line for line in said.splitlines() if line.startswith(f"│ {name} ")]
        numbers = [cell.strip().replace(",", "") for cell in row.split("│")[2:-1]]
        assert numbers[:3] == [str(split[key]) for key in ("n_documents", "n_tokens", "n_bytes")]
    assert sorted(path.name for path in (folder / "outputs").iterdir()) == ["cache"]

    assert main(["train", *TINY, "trainer.max_steps=1", "evaluation=[]", "launcher.threads_per_process=1"]) == 0
    said = capsys.readouterr().out
    assert f"tokens: found in {shown}" in said
    assert f"data card: {shown}/data_card.html" in said


def test_a_mixtures_sources_are_counted_apart(folder: Path, capsys: Captured) -> None:
    typed = ("data=mixture", "+data@data.parts.a=text_files", "data.parts.a.path=corpus.txt")
    typed += ("data.parts.a.document=line", "+data@data.parts.b=synthetic", "data.parts.b.n_documents=100")
    assert main(["prepare", *typed, "data.sequence_length=16", "tokenizer=byte"]) == 0
    (cache,) = [path.parent for path in folder.glob("outputs/cache/*/cache.json")]
    sources = json.loads((cache / "cache.json").read_text())["splits"]["train"]["sources"]
    said = capsys.readouterr().out.splitlines()
    for name, source in sources.items():
        assert any(line.startswith(f"│   {name} ") and f" {source['n_documents']} " in line for line in said)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["data.path=nowhere.txt"], "there is no nowhere.txt"),
        (["data.sequence_lenght=3"], "did you mean sequence_length?"),
        (["data.max_quarantined=0"], "data.max_quarantined"),
        (["data.sequence_length=100000"], "data.sequence_length=100000 needs at least"),
        (["task=custom", "task.target=a:B", "data=custom", "data.target=a:B"], "there is nothing to prepare"),
    ],
)
def test_what_is_wrong_ends_with_2(typed: list[str], told: str, folder: Path, capsys: Captured) -> None:
    with open(folder / "corpus.txt", "ab") as file:
        file.write(b"caf\xe9\n")
    own = () if "data=custom" in typed else TINY
    assert main(["prepare", *own, *typed]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert "Traceback" not in said


def test_the_options_of_train_are_its_own(capsys: Captured) -> None:
    assert main(["prepare", "--cfg", "job", "--package", "tokenizer"]) == 0
    assert "kind: bpe" in capsys.readouterr().out
    assert main(["prepare", "--explain", "data.split"]) == 0
    assert capsys.readouterr().out.startswith("data.split = hash\n")


SLOW = """
import os, signal
from dataclasses import dataclass
import lmexp
from lmexp.tokenizers.config import ByteTokenizerConfig

@dataclass(kw_only=True, slots=True)
class SlowConfig(ByteTokenizerConfig):
    kind: str = "slow"

    def train(self, texts):
        os.kill(os.getpid(), signal.SIGINT)
        return ByteTokenizerConfig.train(self, texts)

lmexp.register("tokenizer", "slow", SlowConfig)
"""


def test_ctrl_c_says_that_it_can_go_on(folder: Path) -> None:
    (folder / "slow_pkg.py").write_text(SLOW)
    done = subprocess.run(
        command("prepare", *TINY, "tokenizer=slow", plugins=("slow_pkg",)),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=hear_ctrl_c,
    )
    assert done.returncode == 130
    assert done.stderr == "stopped; what is done is kept, and the same command goes on from there\n"
    assert not list(folder.glob("outputs/cache/*/cache.json"))
    (folder / "slow_pkg.py").write_text(SLOW.replace("os.kill", "None and os.kill"))
    subprocess.run(
        command("prepare", *TINY, "tokenizer=slow", plugins=("slow_pkg",)),
        cwd=folder,
        env=environment(),
        check=True,
        timeout=60,
        stdout=subprocess.DEVNULL,
    )
