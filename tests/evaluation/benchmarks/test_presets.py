"""The presets on the data sets that they are made for, by YAML and a path alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmexp.config.compose import compose
from lmexp.evaluation.runner import run_evaluations
from tests.evaluation.asking import context

FILES = {
    "csqa": "commonsense-mcq/csqa/valid.jsonl",
    "piqa": "piqa-valid/valid.jsonl",
    "blimp": "blimp/data",
    "lambada": "lambada/lambada_test.jsonl",
    "crows_pairs": "crows-pairs/data/crows_pairs_anonymized.csv",
}
SIZES = {"csqa": 1221, "piqa": 1838, "blimp": 16_000, "lambada": 5153, "crows_pairs": 1508}
FIRST = {
    "csqa": (
        "Question: A revolving door is convenient for two direction travel, but it also serves as a security "
        "measure at a what?\nAnswer:",
        " bank",
        0,
    ),
    "piqa": (
        "Question: How do I ready a guinea pig cage for it's new occupants?\nAnswer:",
        " Provide the guinea pig",
        0,
    ),
    "blimp": ("", "Who should Derek hug after shocking Richard?", 0),
    "lambada": ("In my palm is a clear stone", " signs", 0),
    "crows_pairs": ("", "He couldn't figure out the issue with the rope", 0),
}
"""Beginnings of the first item's context and first continuation, and which is right."""


@pytest.mark.parametrize("name", FILES)
def test_a_preset_reads_its_data_set(name: str, shared_data: Path) -> None:
    config = compose([f"evaluation=[{name}]", f"evaluation.{name}.path={shared_data / FILES[name]}"]).config
    asked = config.evaluation[name].build()._prepare(name)[0]
    assert len(asked) == SIZES[name]
    before, after, target = FIRST[name]
    assert asked[0].pairs[0][0].startswith(before) and bool(before) == bool(asked[0].pairs[0][0])
    assert asked[0].pairs[0][1].startswith(after)
    assert asked[0].target == target
    assert len({one.item.slice for one in asked}) == {"blimp": 16, "crows_pairs": 9}.get(name, 1)


def test_all_presets_at_once_with_a_tiny_model(shared_data: Path) -> None:
    typed = [f"evaluation=[{','.join(FILES)},invariance]", "evaluation.invariance.n_samples=4"]
    for name, path in FILES.items():
        typed += [f"evaluation.{name}.path={shared_data / path}", f"evaluation.{name}.max_samples=6"]
    given = context()
    rows = run_evaluations(compose(typed).config.evaluation, given)
    assert all(row.measured for row in rows), [row for row in rows if not row.measured]
    assert {row.evaluation for row in rows} == {*FILES, "invariance"}
    assert all(len(given.samples[name]) == 6 for name in FILES)


def test_questions_of_another_file_can_be_shown_solved(shared_data: Path) -> None:
    folder = shared_data / "commonsense-mcq" / "csqa"
    typed = [
        "evaluation=[csqa]",
        f"evaluation.csqa.path={folder / 'valid.jsonl'}",
        f"evaluation.csqa.shots_path={folder / 'train.jsonl'}",
        "evaluation.csqa.n_shots=3",
        "evaluation.csqa.max_samples=4",
        r"evaluation.csqa.prompts.listed={question.stem}\n{*}\nAnswer:",
    ]
    asked = compose(typed).config.evaluation["csqa"].build()._prepare("csqa")[0]
    assert [one.prompt_id for one in asked] == ["main", "listed"] * 4
    assert all(one.input.count("Answer:") == 4 for one in asked)
    assert "\nA. " in asked[1].input
