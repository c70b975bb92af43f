from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lmexp.errors import RunError
from lmexp.evaluation.row import Row, not_measured, write_summary
from lmexp.reports.card import card_of
from lmexp.reports.examples import Example, best_and_worst
from lmexp.reports.run_files import read_run
from lmexp.reports.run_report import page, write_report
from lmexp.reports.verdict import verdict
from lmexp.runs.folder import write_state

HOSTILE = "</pre></title><script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)>\"'&"


class Page(HTMLParser):
    """Tags and attributes of a page; elements must be closed in order."""

    VOID = ("meta", "wbr", "link", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def row(name: str, estimate: float, low: float | None, high: float | None, text: str = "words") -> Row:
    return Row(
        name=name, split="test", definition=text, estimate=estimate, low=low, high=high, n=10, n_clusters=3, method=text
    )


ROWS = [
    row("perplexity/bits_per_byte", 2.0, 1.9, 2.1),
    row("baselines/unigram_bits_per_byte", 4.8, 4.7, 4.9),
    row("baselines/bigram_bits_per_byte", 3.4, 3.3, 3.5),
    row("baselines/lift_over_unigram", 2.8, 2.7, 2.9),
    row("baselines/lift_over_bigram", 1.4, 1.3, 1.5),
]


def make_run(folder: Path, text: str = "plain", rows: list[Row] = ROWS) -> Path:
    """A finished run in which every text is the given one."""
    run_dir = folder / "20260101-000000-run-abcdef"
    (run_dir / "evaluation").mkdir(parents=True)
    record: dict[str, object] = {"run_id": text, "experiment": text, "created": text, "overrides": [text], "config": {}}
    record["changes"] = [{"when": text, "step": 3, "overrides": [text], "changed": {text: [text, 1]}}]
    write_json(run_dir / "run.json", {"format": "lmexp.run", "version": 3, **record})
    write_state(run_dir, "done", message=text)
    metrics = [{"step": step, "train/loss": 3 - step / 100, f"train/{text}": 1} for step in range(10, 110, 10)]
    metrics.append({"step": 100, "validation/loss": 2.1})
    write_lines(run_dir / "metrics.jsonl", metrics)
    write_lines(run_dir / "timings.jsonl", [{"step": 10, "tokens_per_second": 5000.0, "peak_memory_mb": 123.4}])
    write_summary(run_dir / "evaluation" / "summary.json", rows, checkpoint=text)
    sample = {"prompt": text, "text": text, "seed": 0, "temperature": 0.8}
    generated = {"format": "lmexp.generated", "version": 1, "samples": [sample]}
    write_json(run_dir / "evaluation" / "generated.json", generated)
    (run_dir / "config.yaml").write_text(f"seed: 1\nname: {text}\n")
    write_json(run_dir / "receipt.json", {"cpu": text, text: text, "packages": {text: text}})
    return run_dir


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def report(run_dir: Path) -> str:
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    return path.read_text(encoding="utf-8")


def test_report_of_a_finished_run_shows_every_part(tmp_path: Path) -> None:
    html = report(make_run(tmp_path))
    page = Page(html)
    assert "better than the bigram baseline (3.400) by 1.400 [1.300 to 1.500]" in page.text
    assert "5,000" in page.text
    assert "123 MB" in page.text
    assert "seed: 1" in page.text
    assert "Changed at step 3, plain: before, after" in page.text
    assert "plain: ['plain', 1]" in page.text
    titles = re.findall("<h2>(.*?)</h2>", html)
    assert titles == ["Figures", "Curves", "Generated text", "Config", "Receipt"]
    assert sum(tag == "svg" for tag, _ in page.tags) == 5 + 4  # marks; baselines, loss, train/plain, tokens per second
    assert not re.search(r"\bNo (figures|curves|text|config|receipt)\b", page.text)


def test_the_best_and_the_worst_samples_stand_below_the_figures(tmp_path: Path) -> None:
    files = read_run(make_run(tmp_path))
    samples = [Example(sample_id=f"s{i}", input="Who?", target="me", score=float(i)) for i in range(9)]
    files.examples = {"quiz": best_and_worst(samples)}
    text = page(files, card_of(files, "run"))
    assert re.findall("<h2>(.*?)</h2>", text)[3] == "Best and worst samples"
    assert re.findall(r'<p class="small">(s\d) ·', text) == ["s8", "s7", "s6", "s0", "s1", "s2"]


def test_report_loads_nothing(tmp_path: Path) -> None:
    html = report(make_run(tmp_path))
    page = Page(html)
    assert "http://" not in html
    assert "https://" not in html
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    attributes = {name for _, attributes in page.tags for name in attributes}
    assert not {"src", "href", "action", "data"} & attributes
    assert "@import" not in html
    assert "url(" not in html


def test_hostile_text_stays_text_wherever_it_comes_from(tmp_path: Path) -> None:
    rows = [row("perplexity/bits_per_byte", 2.0, 1.9, 2.1, HOSTILE), not_measured(HOSTILE, HOSTILE, HOSTILE, HOSTILE)]
    page = Page(report(make_run(tmp_path, HOSTILE, rows)))
    allowed = {"html", "head", "meta", "title", "style", "body", "main", "header", "h1", "h2", "span", "p", "dl", "dt"}
    allowed |= {"dd", "div", "small", "section", "table", "thead", "tbody", "tr", "th", "td", "wbr", "pre", "b"}
    allowed |= {
        "figure",
        "figcaption",
        "svg",
        "desc",
        "line",
        "text",
        "g",
        "path",
        "circle",
        "details",
        "summary",
        "footer",
        "h3",
    }
    assert {tag for tag, _ in page.tags} <= allowed
    assert not any(name.startswith("on") or name == "src" for _, attributes in page.tags for name in attributes)
    assert page.text.count(HOSTILE) > 10


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("evaluation/summary.json", "No figures: the run has not been evaluated."),
        ("evaluation/generated.json", "No text: none was asked for, as evaluation=[samples] does."),
        ("metrics.jsonl", "No curves: there is no metrics.jsonl."),
        ("config.yaml", "No config: there is no config.yaml."),
        ("receipt.json", "No receipt: there is no receipt.json."),
    ],
)
def test_missing_parts_are_said_to_be_missing(tmp_path: Path, missing: str, said: str) -> None:
    run_dir = make_run(tmp_path)
    (run_dir / missing).unlink()
    (run_dir / "timings.jsonl").unlink()
    assert said in Page(report(run_dir)).text


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "evaluation/summary.json", "evaluation/generated.json"])
@pytest.mark.parametrize("content", ["{damaged", '{"format": "lmexp.future", "version": 9}\n[1]\n{}\n'])
def test_damaged_or_newer_files_do_not_stop_the_report(tmp_path: Path, name: str, content: str) -> None:
    run_dir = make_run(tmp_path)
    (run_dir / name).write_text(content)
    (run_dir / "timings.jsonl").unlink()
    Page(report(run_dir))


def test_a_run_that_was_only_created_gets_a_report_without_a_verdict(tmp_path: Path) -> None:
    write_state(tmp_path, "created")
    page = Page(report(tmp_path))
    assert "No verdict yet: the run has not finished." in page.text
    assert "No curves: there is no metrics.jsonl." in page.text


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    write_state(tmp_path, "failed", message="loss is NaN at step 7")
    page = Page(report(tmp_path))
    assert "loss is NaN at step 7" in page.text
    assert "No verdict: the run ended as failed, without an evaluation." in page.text


def test_figures_of_a_users_own_module_get_curves_too(tmp_path: Path) -> None:
    write_state(tmp_path, "done")
    rows = [{"step": step, "reward": step**0.5, "note": "text", "ok": True, "val/f1": 0.5} for step in range(5)]
    write_lines(tmp_path / "metrics.jsonl", rows)  # type: ignore[arg-type]
    html = report(tmp_path)
    assert re.findall("<figcaption>(.*?)</figcaption>", html) == ["reward", "f1, val"]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected a run folder"):
        write_report(tmp_path)
    with pytest.raises(RunError, match="no such folder"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("interval", "tone", "words"),
    [
        ((0.5, 0.1, 0.9), "good", "better than the bigram baseline by 0.5000 [0.1000 to 0.9000]"),
        ((-0.5, -0.9, -0.1), "bad", "worse than the bigram baseline by 0.5000 [0.1000 to 0.9000]"),
        ((0.5, -0.1, 0.9), "plain", "not distinguishable from the bigram baseline, difference [-0.1000 to 0.9000]"),
        ((0.5, None, None), "plain", "below the bigram baseline by 0.5000, without an interval"),
    ],
)
def test_verdict_says_no_more_than_the_interval(
    interval: tuple[float, float | None, float | None], tone: str, words: str
) -> None:
    found = verdict([ROWS[0], row("baselines/lift_over_bigram", *interval)], "done")
    assert found.tone == tone
    assert found.text == f"Test bits per byte 2.000 [1.900 to 2.100]: {words}."
