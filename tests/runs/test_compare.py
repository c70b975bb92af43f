"""Which runs are compared with which, and what is said where they can't be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lmexp.errors import RunError, UserError
from lmexp.evaluation.conclusions import Declared, declared
from lmexp.runs.compare import compare_runs
from tests.evaluation.tables import samples, write_run

SCORES = np.random.default_rng(0).integers(0, 2, (6, 60))


def make(folder: Path, seed: int, *, name: str = "csqa", model: str | None = None, **more: object) -> Path:
    """A run with its scores, under the config of its seed."""
    table = samples(SCORES[seed], name=name, model=f"{seed}" * 64 if model is None else model)
    return write_run(folder, table, config={"seed": seed, "model": {"n_layer": 4}, "api_key": "hunter22"}, **more)


def test_a_folder_of_runs_is_a_side_with_all_of_them(tmp_path: Path) -> None:
    for seed in range(5):
        make(tmp_path / ("small" if seed < 2 else "large") / f"run-{seed}", seed)
    by_folder = compare_runs([[tmp_path / "small"], [tmp_path / "large"]], Declared())
    by_name = compare_runs(
        [
            [tmp_path / "small" / f"run-{seed}" for seed in (0, 1)],
            [tmp_path / "large" / f"run-{seed}" for seed in (2, 3, 4)],
        ],
        Declared(),
    )
    assert by_folder == by_name
    assert [[run.label for run in side.runs] for side in by_folder.sides] == [["A1", "A2"], ["B1", "B2", "B3"]]
    assert [side.name for side in by_folder.sides] == ["small", "large"]
    assert [row.n_runs for row in by_folder.rows] == [(2, 3)]


def test_of_three_sides_each_is_compared_with_the_first(tmp_path: Path) -> None:
    runs = [[make(tmp_path / "x" / f"run-{seed}", seed)] for seed in range(3)]
    found = compare_runs(runs, Declared())
    assert [(row.reference, row.other, row.correction) for row in found.rows] == [
        ("A", "B", "Holm, 2 tests"),
        ("A", "C", "Holm, 2 tests"),
    ]
    body = json.loads(found.to_json())
    assert (body["format"], body["version"]) == ("lmexp.comparison", 1)
    assert [row["other"] for row in body["rows"]] == ["B", "C"]


def test_what_differs_is_beside_it_without_secrets(tmp_path: Path) -> None:
    runs = [make(tmp_path / "x" / f"run-{seed}", seed) for seed in range(2)]
    write = {"format": "lmexp.receipt", "version": 2, "created": "", "earlier": [], "python": "CPython 3.11"}
    for run, version in zip(runs, ("2.0", "2.1"), strict=True):
        (run / "receipt.json").write_text(json.dumps({**write, "packages": ["a==1", f"torch=={version}"]}))
    found = compare_runs([[run] for run in runs], Declared())
    assert [(s.key, s.values) for s in found.config] == [("seed", {"A": ["0"], "B": ["1"]})]
    assert [(s.key, s.values) for s in found.machine] == [("package torch", {"A": ["2.0"], "B": ["2.1"]})]
    assert "hunter22" not in found.to_json()
    changed = json.loads((runs[1] / "run.json").read_text())
    changed["config"]["api_key"] = "hunter33"
    (runs[1] / "run.json").write_text(json.dumps(changed))
    assert "hunter" not in compare_runs([[run] for run in runs], Declared()).to_json()


def test_notes_say_for_what_it_holds(tmp_path: Path) -> None:
    a, b, c = (make(tmp_path / "x" / f"run-{seed}", seed) for seed in range(3))
    same = write_run(tmp_path / "y" / "again", samples(SCORES[0], model="0" * 64, settings={"precision": "bf16-mixed"}))
    assert any("these checkpoints, not for the methods" in note for note in compare_runs([[a], [b]], Declared()).notes)
    several = compare_runs([[a, b], [c]], Declared())
    assert several.notes == ["one run of B: what is said of it holds for this checkpoint, not for its method"]
    notes = " ".join(compare_runs([[a], [same]], Declared()).notes)
    assert "csqa: A and B are the same model (equal weights)" in notes
    assert "precision: 32-true (A), bf16-mixed (B)" in notes
    with pytest.raises(RunError, match="hold the same weights, so they are one run and not two"):
        compare_runs([[a, same], [b]], Declared())
    with pytest.raises(RunError, match="stands twice on the same side"):
        compare_runs([[a, a], [b]], Declared())


def test_an_evaluation_that_some_runs_lack_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    a = make(tmp_path / "x" / "a", 0)
    b = make(tmp_path / "x" / "b", 1)
    write_run(tmp_path / "y" / "c", samples(SCORES[2], name="piqa"))
    (tmp_path / "y" / "c" / "evaluation" / "piqa").rename(a / "evaluation" / "piqa")
    found = compare_runs([[a], [b]], Declared())
    assert [row.name for row in found.rows] == ["csqa/acc"]
    assert f"piqa isn't compared: B wasn't evaluated with it; to make them: lmexp evaluate run={b} " in found.notes[-1]
    with pytest.raises(RunError, match="has no evaluation 'piqa'"):
        compare_runs([[a], [b]], Declared(), evaluations=["piqa"])


def test_mistakes_of_newcomers(tmp_path: Path) -> None:
    a, other = make(tmp_path / "x" / "run-a", 0), make(tmp_path / "x" / "run-p", 1, name="piqa")
    bare = write_run(tmp_path / "x" / "run-b")
    for sides, message in (
        ([[a]], "expected two runs or more to compare"),
        ([[a], [tmp_path / "x" / "run-aa"]], "there is no such run folder; did you mean run-a"),
        ([[a], [bare]], rf"no scores of samples to compare; to make them: lmexp evaluate run={bare}"),
        ([[a], [other]], "no evaluation that all of the runs have .A has csqa; B has piqa."),
        ([[a], [tmp_path]], "not a run folder"),
    ):
        with pytest.raises(RunError, match=message):
            compare_runs(sides, Declared())
    b = make(tmp_path / "x" / "run-c", 2)
    for names, message in ((["accc"], "did you mean acc"), (["csqa/f1"], "expected one of csqa/acc")):
        with pytest.raises(RunError, match=message):
            compare_runs([[a], [b]], declared(names, []))
    with pytest.raises(UserError, match="--margin few: expected a number"):
        declared([], ["few"])
    with pytest.raises(UserError, match="seed is -1"):
        compare_runs([[a], [b]], Declared(), seed=-1)
