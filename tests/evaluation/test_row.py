from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from lmexp.errors import RunError
from lmexp.evaluation.row import Row, not_measured, read_summary, text_table, write_summary


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
    rows = [example(), not_measured("a/b", "test", "what", "why", unit="nats")]
    path = tmp_path / "evaluation" / "summary.json"
    write_summary(path, rows, checkpoint="step-00000100")
    summary = read_summary(path)
    assert summary.rows == rows
    assert summary.checkpoint == "step-00000100"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("change", [{"version": 2}, {"version": None}, {"format": "lmexp.other"}])
def test_unknown_format_or_version_is_refused_with_what_was_found(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "summary.json"
    write_summary(path, [example()], checkpoint="x")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    found = next(iter(change.values()))
    with pytest.raises(RunError, match=f"expected format 'lmexp.evaluation' version 1, got .*{found}"):
        read_summary(path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": "lmexp.evaluation", "version": 1, "checkpoint": "x"}'])
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


def test_table_shows_figures_intervals_and_why_one_is_missing() -> None:
    written = io.StringIO()
    Console(width=140, file=written).print(text_table([example(), not_measured("a/b", "test", "what", "no bytes")]))
    text = written.getvalue()
    assert "0.3333" in text
    assert "812" in text
    assert "not measured: no bytes" in text
