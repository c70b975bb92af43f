"""The page and the terminal show the same numbers, and nothing of a run is more than text."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from lmexp.errors import RunError
from lmexp.evaluation.conclusions import Declared, words
from lmexp.reports import compare_words as say
from lmexp.reports.compare_report import page, write_page
from lmexp.reports.compare_text import as_text
from lmexp.runs.compare import Comparison, compare_runs
from tests.evaluation.tables import ACC, NATS, samples, write_run

EVIL = "<script>alert(1)</script>\x1b[31m"


def comparison(folder: Path, **changes: str) -> Comparison:
    """Two sides with a loss and an accuracy, a sample that only one scored, and another seed."""
    generator = np.random.default_rng(0)
    runs = []
    for number, name in enumerate(("small", "large")):
        ids = [f"q{i}" for i in range(80)] + ([changes.get("sample_id", "only-here")] if number else [])
        table = samples(
            generator.integers(0, 2, len(ids)),
            ids=ids,
            logprobs=-generator.random(len(ids)) - 1 + 0.5 * number,
            n_tokens=np.full(len(ids), 4),
            figures=[ACC, NATS],
        )
        runs.append(write_run(folder / name / "run", table, config={"seed": number, "note": changes.get("note", "")}))
    return compare_runs([[run] for run in runs], Declared(margin=0.4))


def text_of(html: str) -> str:
    """What a reader sees."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html.replace("<wbr>", ""))).split())


@pytest.mark.parametrize("width", [120, 60])
def test_the_page_and_the_terminal_show_the_same_numbers(tmp_path: Path, width: int) -> None:
    found = comparison(tmp_path)
    shown, printed = text_of(page(found)), as_text(found, width=width)
    for row in found.rows:
        for cell in say.cells(row)[:-1]:
            assert cell in shown, cell
            assert cell.removeprefix("csqa/") in printed, cell
        assert all(part in shown for part in words(row).rstrip(")").split(" ("))
    assert found.rows[1].verdict == "better"
    assert "1 sample not compared, not in A: only-here" in shown
    assert "1 sample not compared, not in A: only-here" in printed.replace("\n", " ")
    assert "seed 0 1" in shown
    assert re.search(r"seed +A 0 +B 1", printed)


def test_markup_of_a_run_is_text(tmp_path: Path) -> None:
    found = comparison(tmp_path, note=EVIL, sample_id=EVIL)
    assert "<script" not in page(found)
    assert "alert(1)" in page(found)
    assert "\x1b" not in page(found) + as_text(found)


def test_the_same_runs_have_one_page_wherever_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = comparison(tmp_path)
    monkeypatch.chdir(tmp_path)
    path = write_page(found)
    assert re.fullmatch(r"outputs/compare-small-vs-large-[0-9a-f]{6}\.html", str(path))
    assert write_page(found) == path
    assert write_page(found, tmp_path / "new" / "page.html").read_bytes() == path.read_bytes()
    with pytest.raises(RunError, match="can't be written"):
        write_page(found, path / "page.html")
