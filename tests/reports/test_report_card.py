"""The three forms of a report card are made from the same rows and say the same."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console
from torch import nn

from lmexp.cli.main import main
from lmexp.evaluation.collect import publish
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.plot import Plot, Series
from lmexp.evaluation.row import Row, figure, interval_text, not_measured, row_json, write_summary
from lmexp.evaluation.samples_file import write_samples
from lmexp.reports.card import card_of, grouped
from lmexp.reports.figures import interval_mark, mark_scales
from lmexp.reports.run_files import read_run
from lmexp.reports.run_report import write_report
from lmexp.reports.terminal import as_text, print_card
from tests.evaluation.choices import choice_samples
from tests.reports.test_run_report import ROWS, Page, make_run, row

PLOT = Plot(kind="forest", title="By slice", y_label="accuracy", series=[Series(label="a", x=["news"], y=[0.25])])
CARD = [
    *ROWS,
    Row(
        name="calibration/ece",
        split="validation",
        definition="gap",
        estimate=0.125,
        n=1234,
        n_clusters=56,
        aspect="safety",
        status="estimated",
        plot=PLOT,
    ),
    not_measured("speed/latency", "test", "time of a token", "no timer here", aspect="efficiency"),
]


def printed(run_dir: Path, width: int) -> str:
    """The card as it stands in a terminal of this width."""
    file = io.StringIO()
    print_card(card_of(read_run(run_dir), run_dir.name), Console(file=file, width=width, color_system=None))
    return file.getvalue()


def written(run_dir: Path) -> dict[str, object]:
    write_report(run_dir)
    content: dict[str, object] = json.loads((run_dir / "report.json").read_text(encoding="utf-8"))
    return content


def test_json_holds_the_rows_with_their_plots_and_hashes(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, "plain", CARD)
    content = written(run_dir)
    assert content == {
        "format": "lmexp.report",
        "version": 1,
        "run_id": "plain",
        "name": "plain",
        "state": "done",
        "checkpoint": "plain",
        "missing": "",
        "verdict": {
            "tone": "good",
            "text": "Test bits per byte 2.000 [1.900 to 2.100]: better than the unigram baseline (4.800) by 2.800 "
            "[2.700 to 2.900], and better than the bigram baseline (3.400) by 1.400 [1.300 to 1.500].",
        },
        "rows": [row_json(one) for one in CARD],
        "later": [],
    }
    assert content["rows"][5]["plot"]["series"][0]["y"] == [0.25]  # type: ignore[index]


@pytest.mark.parametrize("width", [30, 60, 120, 200])
def test_every_row_is_in_all_three_forms(tmp_path: Path, width: int) -> None:
    run_dir = make_run(tmp_path, "plain", CARD)
    content = written(run_dir)
    page = Page((run_dir / "report.html").read_text(encoding="utf-8")).text
    terminal = " ".join(printed(run_dir, width).split())
    for one, entry in zip(CARD, content["rows"], strict=True):  # type: ignore[call-overload]
        assert (entry["estimate"], entry["low"], entry["high"]) == (one.estimate, one.low, one.high)
        assert one.definition_hash in page
        if one.measured:
            for words in (figure(one.estimate), interval_text(one), f"{one.n:,}"):
                assert words in page
                assert words == "-" or words in terminal
        else:
            assert one.status in page
            assert one.status in terminal
        assert one.name in page
        assert one.name.partition("/")[2] in terminal or width < 60
    assert content["verdict"]["text"] in terminal  # type: ignore[index]


@pytest.mark.parametrize("width", [20, 40, 79, 110, 160])
def test_no_line_in_the_terminal_is_wider_than_it(width: int) -> None:
    assert max(len(line) for line in as_text(CARD, width=width).splitlines()) <= width


def test_a_row_that_does_not_fit_is_told_in_lines() -> None:
    assert "┃" in as_text(CARD, width=120)
    narrow = as_text(CARD, width=60)
    assert "┃" not in narrow
    assert "calibration (safety)\n  ece, validation\n    0.1250\n    n 1,234, clusters 56, estimated\n" in narrow


def test_control_sequences_and_markup_do_nothing_in_the_terminal() -> None:
    evil = "[red]x[/nothing]\x1b[2J\x9b\u202e\r\ud800"
    for width in (60, 200):
        text = as_text([row(evil, 1.0, 0.5, 1.5), not_measured(evil, evil, "", evil)], width=width)
        assert text.replace("\n", "").isprintable()
        assert "[red]x[/nothing][U+001B][2J[U+009B][U+202E][U+000D][U+D800]" in text.replace("\n", "")


def test_rows_of_an_evaluation_and_an_aspect_stand_together() -> None:
    mixed = [row("a/x", 1, 0, 2), row("b/y", 1, 0, 2), row("a/z", 1, 0, 2)]
    mixed.append(Row(name="a/w", split="test", definition="", estimate=1.0, aspect="cost"))
    found = [(group.evaluation, group.aspect, [one.name for one in group.rows]) for group in grouped(mixed)]
    assert found == [("a", "accuracy", ["a/x", "a/z"]), ("b", "accuracy", ["b/y"]), ("a", "cost", ["a/w"])]


def test_marks_of_a_unit_share_a_scale_and_begin_at_zero() -> None:
    bits = [row("a/x", 2.0, 1.5, 2.5), row("a/y", 4.0, 3.0, 5.0)]
    for one in bits:
        one.unit = "bits"
    share, number = row("a/share", 0.5, 0.4, 0.6), row("a/number", 36.0, 24.0, 48.0)
    scales = mark_scales([*bits, share, number, not_measured("a/z", "test", "", "why")])
    assert {kind: (scale.low, scale.high) for kind, scale in scales.items()} == {
        "unit bits": (0.0, 5.0),
        "share": (0.0, 1.0),
        "number": (0.0, 48.0),
    }
    mark = interval_mark(bits[0], scales["unit bits"])
    scale = scales["unit bits"]
    assert f'x1="{scale(1.5):.1f}"' in mark and f'x2="{scale(2.5):.1f}"' in mark and f'cx="{scale(2.0):.1f}"' in mark
    assert scale(2.5) == pytest.approx((scale.start + scale.stop) / 2)


def test_the_command_prints_the_card_into_a_pipe_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    run_dir = make_run(tmp_path, "plain", CARD)
    whole = dict.fromkeys(("name", "lmexp", "wandb_id"), "plain") | {"cwd": "/", "plugins": [], "data_fingerprints": []}
    whole |= dict.fromkeys(("from_run", "initial_weights"))
    (run_dir / "run.json").write_text(json.dumps(json.loads((run_dir / "run.json").read_text()) | whole))
    assert main(["report", str(run_dir), "--text"]) == 0
    text = capsys.readouterr().out
    assert "calibration · validation" in text and "  ece" in text
    assert "\x1b" not in text
    assert not (run_dir / "report.json").exists()
    assert main(["report", str(run_dir)]) == 0
    assert capsys.readouterr().out == f"report: {run_dir}/report.html\nrows: {run_dir}/report.json\n"
    assert (run_dir / "report.html").exists() and (run_dir / "report.json").exists()


def test_a_run_without_an_evaluation_says_so_in_all_forms(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path)
    (run_dir / "evaluation" / "summary.json").unlink()
    content = written(run_dir)
    assert (content["rows"], content["missing"]) == ([], "the run has not been evaluated")
    assert "No figures: the run has not been evaluated." in printed(run_dir, 100)


def test_what_was_evaluated_on_request_stands_in_all_forms_the_newest_of_each(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path)
    for stamp, value in (("20260101-000000-aaaaaa", 0.25), ("20260102-000000-aaaaaa", 0.375)):
        path = run_dir / "evaluation" / f"evaluate-{stamp}.json"
        write_summary(path, [row("csqa/acc", value, 0.2, 0.4)], checkpoint="step-00000007")
    (run_dir / "evaluation" / "evaluate-20260103-000000-aaaaaa.request.json").write_text("{}")
    assert written(run_dir)["later"] == [
        {"checkpoint": "step-00000007", "rows": [row_json(row("csqa/acc", 0.375, 0.2, 0.4))]}
    ]
    page = Page((run_dir / "report.html").read_text(encoding="utf-8")).text
    for text in (page, printed(run_dir, 100)):
        assert "0.3750" in text
        assert "0.2500" not in text
        assert "step-00000007" in text


def test_the_samples_shown_are_those_that_the_rows_derive_from(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path)
    evaluation = run_dir / "evaluation"
    one, other = (choice_samples([[0, 1], [1, 0]], [0, 0], name="quiz", model=model) for model in "ab")
    for samples, mark in ((one, "of the first"), (other, "of another")):
        index = samples.table.schema.get_field_index("target")
        samples.table = samples.table.set_column(index, samples.table.schema.field(index), pa.array([mark] * 2))
        publish(EvaluationContext(model=nn.Identity(), cache=None, sequence_length=1, folder=evaluation), samples)
    outside = choice_samples([[0, 1], [1, 0]], [0, 0], name="quiz", model="c")
    write_samples(run_dir / "samples.parquet", outside)
    tables = {"quiz": one.header.key.digest, "gone": "0" * 64, "..": outside.header.key.digest}
    write_summary(evaluation / "summary.json", ROWS, checkpoint="x", tables=tables)
    write_report(run_dir)
    page = Page((run_dir / "report.html").read_text(encoding="utf-8")).text
    assert "Best and worst samples" in page
    assert "of the first" in page
    assert "of another" not in page
    assert "<h3>..</h3>" not in (run_dir / "report.html").read_text(encoding="utf-8")


def test_text_that_is_no_utf8_survives_in_json(tmp_path: Path) -> None:
    content = written(make_run(tmp_path, "plain", [row("a/\udc80", 1.0, 0.5, 1.5)]))
    assert content["rows"][0]["name"] == "a/\udc80"  # type: ignore[index]
