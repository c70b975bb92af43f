"""Items of files, from the command line: checked before training, frozen by the run, measured again on request."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from lmexp.cli.main import main
from lmexp.config.freeze import read_record
from lmexp.evaluation.samples_file import read_samples
from tests.end_to_end.command import TINY, json_file, only_run, write_corpus
from tests.end_to_end.command import rows as log_rows
from tests.evaluation.asking import QUESTIONS, write

ASKS = (*TINY[:-1], "data.sequence_length=64", "evaluation=[multiple_choice]")
NAMED = ("evaluation.multiple_choice.path=items.jsonl", "evaluation.multiple_choice.prompt={q}\\n")

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a corpus and items."""
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path)
    write(tmp_path, QUESTIONS)
    return tmp_path


@pytest.fixture
def trained(place: Path) -> Path:
    """A run that asked the items."""
    assert main(["train", *ASKS, *NAMED, "evaluation.multiple_choice.every_n_steps=6"]) == 0
    return only_run(place / "outputs")


def found(path: Path) -> dict[str, Any]:
    return {row["name"]: row for row in json_file(path)["rows"]}


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ((), "evaluation.multiple_choice.path is not set"),
        (("evaluation.multiple_choice.path=item.jsonl",), "there is no such file; did you mean items.jsonl?"),
        ((NAMED[0], "evaluation.multiple_choice.prompt={qq}"), "items.jsonl:1: no field qq"),
        ((*NAMED, "evaluation.multiple_choice.target={kind}"), "items.jsonl:1: the target is 'even'"),
        ((*NAMED, "evaluation.multiple_choice.n_shots=16"), "there are only 15 others to show"),
    ],
)
def test_wrong_items_are_told_before_a_run_begins(
    place: Path, capsys: Captured, typed: tuple[str, ...], message: str
) -> None:
    assert main(["train", *ASKS, *typed]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not (place / "outputs").exists()


def test_a_run_asks_keeps_what_it_asked_and_can_be_asked_again(
    trained: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = found(trained / "evaluation" / "summary.json")
    assert rows["multiple_choice/acc"]["n"] == 16 and rows["multiple_choice/acc"]["split"] == "items.jsonl"
    logged = [row for row in log_rows(trained / "metrics.jsonl") if "evaluation/multiple_choice/acc" in row]
    assert [row["step"] for row in logged] == [6, 12]
    table = read_samples(trained / "evaluation" / "multiple_choice" / "samples.parquet")
    asked = json_file(trained / "evaluation" / "items.json")["asked"]
    assert asked == {"multiple_choice": table.header.key.task["asked"]}
    capsys.readouterr()
    elsewhere = trained.parents[2] / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    request = ["evaluate", f"run={trained}", "evaluation=[multiple_choice,variance]", NAMED[1]]
    assert main([*request, NAMED[0]]) == 2
    assert "there is no such file" in capsys.readouterr().err
    more = "evaluation.multiple_choice.prompts.bare={q}"
    assert main([*request, "evaluation.multiple_choice.path=../items.jsonl", more]) == 0
    (request_file,) = (trained / "evaluation").glob("evaluate-*[0-9a-f].json")
    assert found(request_file)["variance/multiple_choice/prompt_sd"]["status"] == "measured"
    assert found(trained / "evaluation" / "summary.json") == rows


def test_items_that_changed_while_a_run_trained_are_not_measured(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    from lmexp.runs.execute import folder

    def again() -> str:
        shutil.rmtree(trained / "evaluation" / "multiple_choice", ignore_errors=True)
        folder.write_state(trained, "failed", phase="evaluating")
        assert main(["resume", str(trained)]) == 0
        status: str = found(trained / "evaluation" / "summary.json")["multiple_choice/acc"]["status"]
        return status

    assert again() == "measured"
    write(trained.parents[2], QUESTIONS[1:])
    assert "its items aren't those that were there when the run began" in again()
    (trained.parents[2] / "items.jsonl").unlink()
    assert "can't be now: evaluation.multiple_choice.path=items.jsonl: there is no such file" in again()
    write(trained.parents[2], QUESTIONS)
    sent = trained.with_name("sent")
    trained.rename(sent)
    folder.write_state(sent, "failed", phase="evaluating")
    assert main(["resume", str(sent)]) == 0
    status = found(sent / "evaluation" / "summary.json")["multiple_choice/acc"]["status"]
    assert "the run was made elsewhere or by somebody else" in status


def test_another_run_finds_the_items_from_where_it_begins(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = trained.parents[2] / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["train", f"from={trained}", "run.root=runs", "trainer.max_steps=2"]) == 0
    run = only_run(elsewhere / "runs")
    config = read_record(run).config.evaluation["multiple_choice"]
    assert config.path == str(trained.parents[2] / "items.jsonl")
    assert found(run / "evaluation" / "summary.json")["multiple_choice/acc"]["n"] == 16


def test_a_task_of_ones_own_is_told_that_it_has_no_tokenizer(place: Path, capsys: Captured) -> None:
    (place / "own_pkg.py").write_text("import pytorch_lightning as pl\nclass Net(pl.LightningModule):\n    pass\n")
    typed = ["data=text_files", "data.path=corpus.txt", "task=custom", "task.target=own_pkg:Net", "tokenizer=byte"]
    typed += ["logger=files", "evaluation=[multiple_choice]", *NAMED]
    assert main(["-pown_pkg", "train", *typed]) == 2
    assert "evaluation.multiple_choice needs lmexp's tokenizer" in capsys.readouterr().err.replace("\n", " ")
