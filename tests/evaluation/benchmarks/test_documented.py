"""docs/evaluation.md: what it says of the evaluations of files is so."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from lmexp.config.compose import compose
from lmexp.evaluation.benchmarks.config import BenchmarkConfig, LastWordConfig, MinimalPairsConfig, MultipleChoiceConfig
from lmexp.evaluation.benchmarks.multiple_choice import MultipleChoice
from lmexp.evaluation.config import EvaluationConfig
from tests.evaluation.asking import write

PAGE = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize(
    ("title", "config", "base"),
    [
        ("Items of files", BenchmarkConfig, EvaluationConfig),
        ("Multiple choice", MultipleChoiceConfig, BenchmarkConfig),
        ("Minimal pairs", MinimalPairsConfig, BenchmarkConfig),
        ("Last words", LastWordConfig, BenchmarkConfig),
    ],
)
def test_every_option_is_told_and_no_other(title: str, config: type, base: type) -> None:
    rows = re.findall(r"^\| (`.*?) \| .* \|$", section(title).partition("| option | |")[2], re.MULTILINE)
    table = [name for row in rows for name in re.findall(r"`(\w+)(?:=[^`]*)?`", row)]
    told = set(table[: table.index("acc")] if "acc" in table else table)
    own = {f.name for f in dataclasses.fields(config)} - {f.name for f in dataclasses.fields(base)} - {"kind"}
    assert told == own


def test_the_quiz_of_the_page_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = re.search(r"```yaml\n(# @package evaluation\.quiz\n.*?)```", PAGE, re.DOTALL)
    assert text is not None
    folder = tmp_path / "my_conf" / "evaluation"
    folder.mkdir(parents=True)
    (folder / "quiz.yaml").write_text(text[1], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"{i}?", "options": ["w", "x", "y", "z"], "right": "wxyz"[i % 4]} for i in range(12)]
    write(tmp_path, rows[:4], "quiz.jsonl")
    write(tmp_path, rows[4:], "quiz-train.jsonl")
    quiz = compose(["run=r", "evaluation=quiz"], command="evaluate", config_dirs=["my_conf"]).config.evaluation["quiz"]
    asked = MultipleChoice(quiz)._prepare("quiz")[0]
    assert [one.target for one in asked] == [0, 1, 2, 3]
    assert [after for _, after in asked[0].pairs] == [" A", " B", " C", " D"]
    assert asked[0].input.endswith("\n\nQuestion: 0?\nA. w\nB. x\nC. y\nD. z\nAnswer:")
    assert asked[0].input.count("Question:") == 6


def test_a_template_can_be_typed_without_quotes() -> None:
    typed = ["run=r", "evaluation=crows_pairs", "evaluation.crows_pairs.slice={stereo_antistereo}"]
    assert compose(typed, command="evaluate").config.evaluation["crows_pairs"].slice == "{stereo_antistereo}"
    typed = ["run=r", "evaluation=csqa", "evaluation.csqa.choices=['{a}','{b}']", "evaluation.csqa.delimiter="]
    csqa = compose(typed, command="evaluate").config.evaluation["csqa"]
    assert (list(csqa.choices), csqa.delimiter) == (["{a}", "{b}"], "")
