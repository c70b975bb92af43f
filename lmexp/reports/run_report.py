"""report.html of a run: one self-contained page, which needs no network and no scripts; and report.json beside it.

It reads the files of the run folder only, so it can be made of any run at any time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from lmexp import paths
from lmexp.evaluation.row import Row, figure, interval_text
from lmexp.files import write_atomically
from lmexp.reports import curves, examples, figures, texts
from lmexp.reports.card import Card, as_json, card_of
from lmexp.reports.frame import framed
from lmexp.reports.run_files import RunFiles, points, read_run

STATE_TONES = {"done": "good", "failed": "bad", "killed": "bad"}
FACTS = {
    "perplexity/bits_per_byte": "bits per byte",
    "perplexity/perplexity": "perplexity",
    "perplexity/loss": "loss",
    "perplexity/accuracy": "accuracy",
}


def write_report(run_dir: Path) -> Path:
    """Write report.html and report.json in run_dir; the path of the page. RunError if run_dir is no run folder."""
    files = read_run(run_dir)
    card = card_of(files, run_dir.name)
    body = json.dumps(as_json(card), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    for name, text in ((paths.REPORT_JSON, body), (paths.REPORT_HTML, page(files, card))):
        # file names that aren't UTF-8 end as \\udcff, which is how JSON writes them too
        write_atomically(run_dir / name, text.encode(errors="backslashreplace"))
    return run_dir / paths.REPORT_HTML


def page(files: RunFiles, card: Card) -> str:
    """The whole page as HTML. All text of the run is escaped."""
    sections = [
        _head(files, card),
        _section("Figures", figures.section(card)),
        _section("Curves", curves.section(files)),
        _section("Generated text", texts.section(files.writing, files.missing.get("texts", ""))),
        _section("Best and worst samples", examples.section(files.examples)) if files.examples else "",
        _section("Config", _config(files)),
        _section("Receipt", _receipt(files)),
    ]
    title = escape(f"{card.name} · lmexp")
    footer = "Made by lmexp from the files of this run folder. Intervals are 95%."
    return framed(title, [section for section in sections if section], footer)


def _head(files: RunFiles, card: Card) -> str:
    tone = STATE_TONES.get(card.state, "")
    message = files.state.message if files.state else files.missing.get("state", "")
    created, updated = files.run.get("created"), files.state.updated if files.state else None
    times = [f"{what} {_time(when)}" for what, when in (("created", created), ("last change", updated)) if when]
    parts = [
        f'<div class="head"><h1>{escape(card.name)}</h1><span class="state {tone}">{escape(card.state)}</span></div>',
        f'<p class="run-id">{escape(card.run_id)}</p>',
        f'<p class="soft small">{escape(" · ".join(times))}</p>' if times else "",
        f'<p class="soft">{escape(message)}</p>' if message else "",
        f'<p class="verdict {card.verdict.tone}">{escape(card.verdict.text)}</p>',
        _facts(files, card.rows),
    ]
    return "<header>\n" + "\n".join(part for part in parts if part) + "\n</header>"


def _time(written: Any) -> str:
    """An ISO 8601 time for people; anything else as it is."""
    try:
        return f"{datetime.fromisoformat(str(written)).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return str(written)


def _facts(files: RunFiles, rows: list[Row]) -> str:
    """A few large figures."""
    facts = [
        (
            f"{row.split} {FACTS[row.name]}",
            figure(row.estimate),
            interval_text(row) if row.low is not None else "",
        )
        for row in rows
        if row.measured and row.name in FACTS
    ]
    steps = [step for step, _ in points(files.metrics, "step")]
    if steps:
        facts.append(("optimizer steps", f"{steps[-1]:,.0f}", ""))
    speeds = [value for _, value in points(files.timings, "tokens_per_second") if math.isfinite(value)]
    if speeds:
        facts.append(("tokens per second", f"{median(speeds):,.0f}", "median"))
    memory = [value for _, value in points(files.timings, "peak_memory_mb") if math.isfinite(value)]
    if memory:
        facts.append(("peak memory", f"{max(memory):,.0f} MB", ""))
    cells = (
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for label, value, note in facts
    )
    return f'<dl class="facts">{"".join(cells)}</dl>' if facts else ""


def _config(files: RunFiles) -> str:
    overrides = files.run.get("overrides")
    given = ""
    if isinstance(overrides, list) and overrides:
        given = f'<p class="soft small">Given on the command line</p><pre>{_lines(overrides)}</pre>'
    changes = files.run.get("changes")
    for change in changes if isinstance(changes, list) else []:
        if isinstance(change, dict) and isinstance(change.get("changed"), dict):
            what = [f"{key}: {before_after}" for key, before_after in change["changed"].items()]
            when = f"Changed at step {change.get('step')}, {_time(change.get('when'))}: before, after"
            given += f'<p class="soft small">{escape(when)}</p><pre>{_lines(what)}</pre>'
    if given:
        given += '<p class="soft small">The whole config</p>'
    if not files.config:
        return given + _missing("No config", files.missing.get("config", "config.yaml is empty"))
    return f'{given}<pre class="config" tabindex="0">{escape(files.config)}</pre>'


def _receipt(files: RunFiles) -> str:
    if not files.receipt:
        return _missing("No receipt", files.missing.get("receipt", "receipt.json is empty"))
    plain = {key: value for key, value in files.receipt.items() if not isinstance(value, dict | list)}
    pairs = "".join(
        f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(str(value))}</dd>"
        for key, value in plain.items()
        if key not in ("format", "version") and value is not None
    )
    nested = "".join(
        f"<details><summary>{escape(key.replace('_', ' '))}</summary>"
        f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre></details>"
        for key, value in files.receipt.items()
        if key not in plain and value
    )
    return f'<dl class="pairs">{pairs}</dl>{nested}'


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{body}\n</section>"


def _missing(what: str, why: str) -> str:
    return f'<p class="soft">{escape(what)}: {escape(why)}.</p>'


def _lines(texts: Iterable[Any]) -> str:
    return escape("\n".join(str(text) for text in texts))
