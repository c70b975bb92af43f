"""Text that a model wrote, as the report shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lmexp.evaluation.config import TEXT
from lmexp.evaluation.row import Row, write_summary
from lmexp.evaluation.samples import Header, Key, Samples, make_table
from lmexp.evaluation.samples_file import step_table, write_samples
from lmexp.reports.run_files import read_run
from lmexp.reports.texts import read_writing, section
from tests.reports.test_run_report import HOSTILE, Page, make_run, report


def write(folder: Path, name: str, texts: dict[tuple[str, int], str], *, kind: str = TEXT, model: str = "") -> Header:
    """A table of texts: prompt and seed -> continuation."""
    header = Header(name=folder.name, kind=kind, split="prompts", definition="how", key=Key(model=model, task={}))
    ids = [f"{prompt}-{seed}" for prompt, seed in texts]
    columns = {
        "sample_id": ids,
        "cluster_id": ids,
        "seed": [seed for _, seed in texts],
        "input": [prompt for prompt, _ in texts],
        "prediction": list(texts.values()),
    }
    write_samples(folder / name, Samples(header, make_table(columns, {})))
    return header


def test_each_prompt_and_seed_is_shown_step_by_step_and_at_the_end(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run / "evaluation" / "generated.json").unlink()
    folder = run / "evaluation" / "story"
    for step in (200, 1000, 100):
        write(folder, step_table(step), {("To be", 0): f" at {step}", ("To be", 1): f" other {step}"})
    header = write(folder, "samples.parquet", {("To be", 0): " in the end"}, model="1" * 64)
    row = Row(name="story/repetition", split="prompts", definition="d", estimate=0.5)
    path = run / "evaluation" / "summary.json"
    write_summary(path, [row], checkpoint="step-00001000", tables={"story": header.key.digest})
    html = report(run)
    page = Page(html)
    assert "“To be”, seed 0" in page.text
    assert re.findall(r"<b>To be</b>( [^<]*)</pre>", html)[:4] == [" at 100", " at 200", " at 1000", " in the end"]
    assert re.findall(r"<dt>([^<]*)</dt><dd><pre><b>", html)[:4] == [
        *("step 100", "step 200", "step 1,000", "at the end, step-00001000"),
    ]
    assert "Best and worst samples" not in html, "text has no score"


def test_of_many_steps_some_are_shown_the_first_and_the_last_among_them(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    for step in range(10, 1010, 10):
        write(folder, step_table(step), {("", 0): f"text {step}"})
    (found,) = read_writing(tmp_path, {}, "")
    steps = [written.when for written in found.written]
    assert (len(steps), steps[0], steps[-1]) == (12, "step 10", "step 1,000")
    assert found.note == "12 of 100 steps are shown; evaluation/samples/ has all."


def test_many_and_long_texts_are_cut_and_it_is_said(tmp_path: Path) -> None:
    write(tmp_path / "samples", step_table(1), {(f"p{i}", 0): "x" * 5000 for i in range(20)})
    found = read_writing(tmp_path, {}, "")
    html = section(found, "")
    assert html.count("<details") == 12
    assert "12 of 20 texts are shown." in html
    assert "3,800 characters left out" in html


def test_tables_of_other_evaluations_are_no_text(tmp_path: Path) -> None:
    write(tmp_path / "quiz", step_table(1), {("", 0): "x"}, kind="last_word")
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / step_table(1)).write_text("damaged")
    (tmp_path / "summary.json").write_text("{}")
    assert read_writing(tmp_path, {}, "") == []


def test_text_of_runs_of_earlier_versions_is_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (found,) = read_run(run).writing
    assert [written.texts for written in found.written] == [[("plain", 0, "plain")]]
    body = json.loads((run / "evaluation" / "generated.json").read_text())
    (run / "evaluation" / "generated.json").write_text(json.dumps({**body, "version": 2}))
    assert "No text: it can&#x27;t be read" in report(run)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    write(tmp_path / "samples", step_table(1), {(HOSTILE, 0): f"{HOSTILE}\u202e\x1b[2J"})
    html = section(read_writing(tmp_path, {}, ""), "")
    assert "<script" not in html
    assert "[U+202E][U+001B]" in html
    Page(html)
