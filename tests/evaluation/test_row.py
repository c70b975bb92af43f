from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest

from lmexp.errors import RunError
from lmexp.evaluation.plot import Plot, Series
from lmexp.evaluation.row import ASPECTS, Row, not_measured, read_summary, write_summary


def example(**changes: object) -> Row:
    values = {
        "name": "perplexity/bits_per_byte",
        "split": "test",
        "definition": "bits, ünïcode and all",
        "estimate": 1 / 3,
        "low": 0.1,
        "high": 2e-17,
        "n": 2**53 + 1,
        "n_clusters": 812,
        "unit": "bits per byte",
        "method": "bootstrap",
        "higher_is_better": False,
        **changes,
    }
    return Row(**values)  # type: ignore[arg-type]


def test_rows_survive_writing_and_reading(tmp_path: Path) -> None:
    plot = Plot(kind="forest", title="t", y_label="y", series=[Series(label="a", x=["b"], y=[0.5], n=[7])])
    rows = [
        example(plot=plot, aspect="robustness", status="estimated"),
        not_measured("a/b", "test", "what", "why", unit="nats", aspect="cost"),
    ]
    path = tmp_path / "evaluation" / "summary.json"
    write_summary(path, rows, checkpoint="step-00000100")
    summary = read_summary(path)
    assert summary.rows == rows
    assert summary.checkpoint == "step-00000100"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("change", [{"version": 1}, {"version": 3}, {"version": None}, {"format": "lmexp.other"}])
def test_unknown_format_or_version_is_refused_with_what_was_found(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "summary.json"
    write_summary(path, [example()], checkpoint="x")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    found = next(iter(change.values()))
    with pytest.raises(RunError, match=f"expected format 'lmexp.evaluation' version 2, got .*{found}"):
        read_summary(path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": "lmexp.evaluation", "version": 2, "checkpoint": "x"}'])
def test_damaged_summaries_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "summary.json"
    path.write_text(text)
    with pytest.raises(RunError, match=r"summary\.json"):
        read_summary(path)


def test_missing_summary_and_unknown_keys_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    with pytest.raises(RunError, match="there is no"):
        read_summary(path)
    write_summary(path, [example()], checkpoint="x")
    path.write_text(path.read_text().replace('"unit"', '"units"'))
    with pytest.raises(RunError, match="unknown keys units"):
        read_summary(path)


def test_figures_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="estimate is nan; expected a finite number"):
        write_summary(tmp_path / "summary.json", [example(estimate=math.nan)], checkpoint="x")
    assert list(tmp_path.iterdir()) == []


def test_a_row_knows_its_evaluation_and_the_hash_of_its_definition(tmp_path: Path) -> None:
    row = example()
    assert row.evaluation == "perplexity"
    assert row.definition_hash == hashlib.sha256("bits, ünïcode and all".encode()).hexdigest()[:12]
    assert row.definition_hash != example(definition="bits, ünïcode and all ").definition_hash
    write_summary(tmp_path / "summary.json", [row], checkpoint="x")
    (written,) = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert written["definition_hash"] == row.definition_hash


def test_aspect_and_status_are_of_the_known_ones() -> None:
    assert {example(aspect=aspect).aspect for aspect in ASPECTS} == set(ASPECTS)
    with pytest.raises(ValueError, match=r"aspect is 'speed'; expected one of accuracy, robustness"):
        example(aspect="speed")
    with pytest.raises(ValueError, match=r"status is 'guessed'; expected measured, estimated or 'not measured: why'"):
        example(status="guessed")
    assert example(status="estimated").measured
    assert not example(status="not measured: why").measured


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"estimate": "0.5"}, "estimate is '0.5'"),
        ({"estimate": True}, "estimate is True"),
        ({"n": False}, "n is False"),
        ({"n": 1.5}, "n is 1.5"),
        ({"low": 10**400}, "low is 1000"),
        ({"name": None}, "name is None"),
        ({"definition": "another"}, "the hash of its definition is"),
        ({"definition_hash": 5}, "definition_hash is 5"),
        ({"higher_is_better": 1}, "higher_is_better is 1"),
        ({"status": "fine"}, "status is 'fine'"),
        ({"aspect": "x"}, "aspect is 'x'"),
        ({"plot": 5}, "plot is 5; expected an object"),
        ({"plot": {"kind": "pie", "title": "", "series": [], "y_label": ""}}, "kind is 'pie'"),
        ({"plot": {"series": [{"label": "a"}]}}, "missing"),
    ],
)
def test_rows_that_no_lmexp_wrote_are_refused(tmp_path: Path, changes: dict[str, object], why: str) -> None:
    path = tmp_path / "summary.json"
    write_summary(path, [example()], checkpoint="x")
    content = json.loads(path.read_text())
    content["rows"][0] |= changes
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match=rf"is damaged \(.*{why}"):
        read_summary(path)


@pytest.mark.parametrize("rows", [5, None, "text", {"a": 1}, [5], [[]]])
def test_rows_that_are_no_rows_are_refused(tmp_path: Path, rows: object) -> None:
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"format": "lmexp.evaluation", "version": 2, "checkpoint": "x", "rows": rows}))
    with pytest.raises(RunError, match="is damaged"):
        read_summary(path)
