"""`lmexp compare` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lmexp.cli.main import main
from tests.evaluation.tables import samples, write_run

SCORES = np.random.default_rng(0).random((4, 400))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two runs right in half of 400 questions, and two right in eight of ten."""
    monkeypatch.chdir(tmp_path)
    return [
        str(
            write_run(
                Path("outputs", "good" if i > 1 else "poor", f"run-{i}"), samples(SCORES[i] < (0.8 if i > 1 else 0.5))
            )
        )
        for i in range(4)
    ]


def test_two_runs_or_several_a_side(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", runs[0], runs[2]]) == 0
    said = capsys.readouterr().out
    assert "csqa/acc: B is better; B - A = +0." in said
    assert said.splitlines()[-1].startswith("report: outputs/compare-poor-vs-good-")
    assert Path(said.splitlines()[-1].removeprefix("report: ")).is_file()
    assert main(["compare", *runs[:2], "vs", *runs[2:], "--json", "found.json", "--html", "page.html"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["json: found.json", "report: page.html"]
    found = json.loads(Path("found.json").read_text(encoding="utf-8"))
    assert [row["n_runs"] for row in found["rows"]] == [[2, 2]]
    assert main(["compare", "outputs/poor", "outputs/good", "--json", "folders.json", "--margin", "acc=0.01"]) == 0
    capsys.readouterr()
    by_folder = json.loads(Path("folders.json").read_text(encoding="utf-8"))
    assert by_folder["rows"][0]["difference"] == found["rows"][0]["difference"]
    assert by_folder["rows"][0]["margin"] == 0.01


def test_wrong_words_end_with_exit_code_2_and_say_what_to_type(
    runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(Path("outputs", "x", "other"), samples([1, 0], task={"items": "1" * 64}))
    for words, message in (
        ([], "lmexp compare RUN OTHER_RUN"),
        ([runs[0]], "expected two runs or more"),
        ([runs[0], "vs"], "no run stands on one side of vs"),
        ([runs[0], "outputs/x/other"], "weren't asked the same"),
        ([runs[0], "outputs/poor/run-9"], "there is no such run folder"),
        ([runs[0], runs[1], "--margn", "1"], "did you mean --margin"),
        ([runs[0], runs[1], "--margin", "-1"], "above 0"),
        ([runs[0], runs[1], "--primary", "f1"], "there is no figure 'f1'"),
    ):
        assert main(["compare", *words]) == 2
        assert message in capsys.readouterr().err, words
    assert not list(Path("outputs").glob("*.html"))
