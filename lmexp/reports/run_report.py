"""report.html of a run: one self-contained page, which needs no network and no scripts.

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
from lmexp.reports.charts import Bar, Series, interval_chart, line_chart
from lmexp.reports.frame import framed
from lmexp.reports.run_files import JsonObject, RunFiles, numeric_keys, points, read_run
from lmexp.reports.verdict import verdict

STATE_TONES = {"done": "good", "failed": "bad", "killed": "bad"}
CURVES = {
    "loss": ("Loss", "nats per token"),
    "bits_per_byte": ("Bits per byte", ""),
    "accuracy": ("Next-token accuracy", ""),
    "learning_rate": ("Learning rate", ""),
    "grad_norm": ("Gradient norm", ""),
    "tokens_per_second": ("Tokens per second", ""),
}
"""Title and unit of known figures, in the order of the page. Any others follow under their own names."""
NOT_CURVES = {"step", "epoch", "tokens", "samples", "perplexity"}
"""Counters, and perplexity, which is exp of the loss."""
COLOURS = {"train": 1, "validation": 2, "test": 3}
MAX_CURVES = 24
FACTS = {
    "perplexity/bits_per_byte": "bits per byte",
    "perplexity/perplexity": "perplexity",
    "perplexity/loss": "loss",
    "perplexity/accuracy": "accuracy",
}


def write_report(run_dir: Path) -> Path:
    """Write run_dir/report.html and return its path. RunError if run_dir is no run folder."""
    path = run_dir / paths.REPORT_HTML
    html = page(read_run(run_dir), run_dir.name)
    write_atomically(path, html.encode(errors="backslashreplace"))  # file names that aren't UTF-8
    return path


def page(files: RunFiles, name: str) -> str:
    """The whole page as HTML. All text of the run is escaped."""
    rows = files.summary.rows if files.summary else []
    sections = [
        _head(files, name, rows),
        _section("Figures", _figures(files, rows)),
        _section("Curves", _curves(files)),
        _section("Generated text", _samples(files)),
        _section("Config", _config(files)),
        _section("Receipt", _receipt(files)),
    ]
    title = escape(f"{_title(files, name)} · lmexp")
    return framed(title, sections, "Made by lmexp from the files of this run folder. Intervals are 95%.")


def _title(files: RunFiles, name: str) -> str:
    return str(files.run.get("name") or files.run.get("experiment") or name)


def _head(files: RunFiles, name: str, rows: list[Row]) -> str:
    found = verdict(rows, files.state_now)
    tone = STATE_TONES.get(files.state_now, "")
    message = files.state.message if files.state else files.missing.get("state", "")
    created, updated = files.run.get("created"), files.state.updated if files.state else None
    times = [f"{what} {_time(when)}" for what, when in (("created", created), ("last change", updated)) if when]
    parts = [
        f'<div class="head"><h1>{escape(_title(files, name))}</h1>'
        f'<span class="state {tone}">{escape(files.state_now)}</span></div>',
        f'<p class="run-id">{escape(str(files.run.get("run_id") or name))}</p>',
        f'<p class="soft small">{escape(" · ".join(times))}</p>' if times else "",
        f'<p class="soft">{escape(message)}</p>' if message else "",
        f'<p class="verdict {found.tone}">{escape(found.text)}</p>',
        _facts(files, rows),
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


def _figures(files: RunFiles, rows: list[Row]) -> str:
    if not rows:
        return _missing("No figures", files.missing.get("evaluation", "no evaluation was asked for"))
    head = "".join(
        f'<th scope="col"{kind}>{label}</th>'
        for label, kind in (
            ("figure", ""),
            ("split", ""),
            ("estimate", ' class="number"'),
            ("95% interval", ' class="number"'),
            ("n", ' class="number"'),
            ("clusters", ' class="number"'),
        )
    )
    checkpoint = files.summary.checkpoint if files.summary else ""
    caption = f'<p class="soft small">Checkpoint: {escape(checkpoint)}</p>' if checkpoint else ""
    definitions = "".join(f"<dt>{escape(row.name)}</dt><dd>{escape(_definition(row))}</dd>" for row in rows)
    details = f'<details><summary>Definitions and methods</summary><dl class="pairs">{definitions}</dl></details>'
    body = "\n".join(_figure_row(row) for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
    return f'{_baseline_chart(rows)}<div class="wide" tabindex="0">{table}</div>{caption}{details}'


def _figure_row(row: Row) -> str:
    name = escape(row.name).replace("/", "/<wbr>").replace("_", "_<wbr>")
    first = f'<th scope="row">{name}</th><td>{escape(row.split)}</td>'
    if not row.measured:
        return f'<tr>{first}<td colspan="4" class="soft">{escape(row.status)}</td></tr>'
    unit = f'<span class="small">{escape(row.unit)}</span>' if row.unit else ""
    return (
        f'<tr>{first}<td class="number">{figure(row.estimate)}{unit}</td>'
        f'<td class="number">{interval_text(row)}</td>'
        f'<td class="number">{row.n:,}</td><td class="number">{row.n_clusters:,}</td></tr>'
    )


def _definition(row: Row) -> str:
    better = {True: "higher is better", False: "lower is better", None: ""}[row.higher_is_better]
    return ". ".join(part for part in (row.definition, row.method, better) if part)


def _baseline_chart(rows: list[Row]) -> str:
    """The model beside the baselines, where there are any."""
    labels = {
        "perplexity/bits_per_byte": "this model",
        "baselines/bigram_bits_per_byte": "bigram",
        "baselines/unigram_bits_per_byte": "unigram",
    }
    by_name = {row.name: row for row in rows if row.measured}
    bars = [
        Bar(label, row.estimate, row.low, row.high)
        for name, label in labels.items()
        if (row := by_name.get(name)) and row.estimate is not None
    ]
    if len(bars) < 2:
        return ""
    chart = interval_chart("Bits per byte", bars, x_label="bits per byte, lower is better")
    return f'<figure class="baselines"><figcaption>Against the baselines</figcaption>{chart}</figure>'


def _curves(files: RunFiles) -> str:
    panels: dict[str, list[Series]] = {name: [] for name in CURVES}
    for rows, keys in (
        (files.metrics, numeric_keys(files.metrics)),
        (files.timings, ["tokens_per_second"]),
    ):
        for key in keys:
            group, _, name = key.rpartition("/")
            found = points(rows, key)
            if name not in NOT_CURVES and any(math.isfinite(value) for _, value in found):
                panels.setdefault(name, []).append(Series(group or name, found, COLOURS.get(group, 1)))
    shown = {name: series for name, series in panels.items() if series}
    if not shown:
        why = files.missing.get("metrics") or "nothing has been logged"
        return _missing("No curves", why)
    charts = (_curve(name, series) for name, series in list(shown.items())[:MAX_CURVES])
    left_out = list(shown)[MAX_CURVES:]
    note = _missing("Not drawn", f"{', '.join(left_out)}: see {paths.METRICS_JSONL}") if left_out else ""
    return f'<div class="charts">{"".join(charts)}</div>{note}'


def _curve(name: str, series: list[Series]) -> str:
    title, unit = CURVES.get(name, (name, ""))
    try:
        chart = line_chart(title, series)
    except ArithmeticError:
        return _missing(f"{name} can't be drawn", "its figures are too large")
    only = series[0].label if len(series) == 1 and series[0].label not in (name, "train") else ""
    caption = ", ".join(filter(None, (title, only, unit)))
    return f"<figure><figcaption>{escape(caption)}</figcaption>{chart}</figure>"


def _samples(files: RunFiles) -> str:
    if not files.samples:
        return _missing("No samples", files.missing.get("samples", "none were generated"))
    return "\n".join(_sample(sample) for sample in files.samples)


def _sample(sample: JsonObject) -> str:
    settings = ", ".join(f"{key} {sample[key]}" for key in ("temperature", "top_k", "top_p", "seed") if key in sample)
    text = f"<b>{escape(str(sample.get('prompt', '')))}</b>{escape(str(sample.get('text', '')))}"
    return f'<div class="sample"><pre>{text}</pre><p class="soft small">{escape(settings)}</p></div>'


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
