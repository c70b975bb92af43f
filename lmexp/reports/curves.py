"""The curves of a training: what metrics.jsonl and timings.jsonl hold, over optimizer steps and tokens."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

from lmexp.paths import METRICS_JSONL
from lmexp.reports.charts.lines import Line, line_chart, note_of
from lmexp.reports.charts.scales import Point
from lmexp.reports.run_files import JsonObject, RunFiles, numeric_keys, points
from lmexp.reports.visible import shown

CURVES = {
    "loss": ("Loss", "nats per token"),
    "bits_per_byte": ("Bits per byte", ""),
    "accuracy": ("Next-token accuracy", ""),
    "learning_rate": ("Learning rate", ""),
    "grad_norm": ("Gradient norm", ""),
    "tokens_per_second": ("Tokens per second", ""),
}
"""Title and unit of known figures, in the order of the page. Any others follow under their own names."""
COUNTED = ("ngrams", "discounts")
"""Groups of what a model that is counted says of its counts, once."""
NOT_CURVES = ("step", "epoch", "tokens", "samples", "perplexity")
"""Counters, and perplexities of any kind, which are exp of the loss."""
LOG_FROM = {"loss": 2.5, "bits_per_byte": 2.5, "grad_norm": 10.0}
"""Figure -> the highest over the lowest from which on its scale is logarithmic."""
EVALUATION = "evaluation/"
ENDS = ("low", "high")
COLOURS = {"train": 1, "validation": 2, "test": 3}
MAX_CURVES = 24


@dataclass(slots=True)
class Panel:
    """What is drawn into one chart."""

    name: str
    lines: list[Line] = field(default_factory=list)

    @property
    def log(self) -> bool:
        """Whether its scale is logarithmic."""
        values = [value for line in self.lines for _, value in line.points if math.isfinite(value)]
        return self.name in LOG_FROM and min(values) > 0 and max(values) / min(values) >= LOG_FROM[self.name]


def section(files: RunFiles) -> str:
    """All charts; why there are none where there are none."""
    panels, empty = panels_of(files)
    if not panels:
        why = files.missing.get("metrics") or "nothing has been logged"
        return f'<p class="soft">No curves: {escape(why)}.</p>'
    tokens, marks = tokens_at(points(files.metrics, "train/tokens")), marks_of(files)
    last = max(at for panel in panels for line in panel.lines for at, _ in line.points)
    charts = "".join(_chart(panel, last, tokens, marks) for panel in panels[:MAX_CURVES])
    notes = []
    if marks:
        notes.append("A dashed line across the curves stands where the run stopped and went on.")
    if left_out := [panel.name for panel in panels[MAX_CURVES:]]:
        notes.append(f"Not drawn: {', '.join(left_out)}; see {METRICS_JSONL}.")
    if empty:
        notes.append(f"Never finite: {', '.join(empty)}.")
    below = "".join(f'<p class="soft small">{shown(note)}</p>' for note in notes)
    return f'<div class="charts">{charts}</div>{below}'


def panels_of(files: RunFiles) -> tuple[list[Panel], list[str]]:
    """The charts in order, and the keys of which no value is finite."""
    panels = {name: Panel(name) for name in CURVES}
    empty = []
    for rows, keys in ((files.metrics, numeric_keys(files.metrics)), (files.timings, ["tokens_per_second"])):
        known = set(keys)
        for key in keys:
            group, _, name = key.rpartition("/")
            if group in COUNTED or _ends_interval(key, known) or name.rpartition("_")[2] in NOT_CURVES:
                continue
            found = points(rows, key)
            if not any(math.isfinite(value) for _, value in found):
                empty += [key] if found else []
                continue
            panel = panels.setdefault(name, Panel(name))
            n_others = sum(line.label not in COLOURS for line in panel.lines)
            colour = COLOURS.get(group, 1 + len(COLOURS) + n_others) if group else 1
            panel.lines.append(Line(_label(group) or name, found, colour, _intervals(rows, key)))
    drawn = [panel for panel in panels.values() if panel.lines]
    return sorted(drawn, key=lambda panel: "[" in panel.name), empty  # slices of a benchmark last


def tokens_at(counted: Sequence[Point]) -> Callable[[float], float] | None:
    """How many tokens were trained on at a step, between those that were logged in proportion; None where none were."""
    known = [(0.0, 0.0), *((step, tokens) for step, tokens in counted if step > 0 and math.isfinite(tokens))]
    if len(known) < 2:
        return None

    def tokens(step: float) -> float:
        place = min(max(1, bisect_left(known, (step, 0.0))), len(known) - 1)
        (before, fewer), (after, more) = known[place - 1 : place + 1]
        return fewer + (more - fewer) * (step - before) / (after - before)

    return tokens


def marks_of(files: RunFiles) -> list[tuple[float, str]]:
    """The steps that the run was resumed from, as its receipt tells, and what was changed there."""
    marks = {}
    earlier, changes = files.receipt.get("earlier"), files.run.get("changes")
    for one in earlier if isinstance(earlier, list) else []:
        if isinstance(one, dict) and isinstance(step := one.get("until_step"), int):
            marks[step] = f"went on from step {step:,}"
    for one in changes if isinstance(changes, list) else []:
        if isinstance(one, dict) and isinstance(step := one.get("step"), int) and isinstance(one.get("changed"), dict):
            marks[step] = f"went on from step {step:,} with other {', '.join(map(str, one['changed']))}"
    return sorted((float(step), label) for step, label in marks.items() if 0 <= step < 1 << 63)


def _chart(
    panel: Panel, last: float, tokens: Callable[[float], float] | None, marks: Sequence[tuple[float, str]]
) -> str:
    """A figure whose x axis ends at the last step that anything is known of."""
    title, unit = CURVES.get(panel.name, (panel.name, ""))
    log = panel.log
    second = None if tokens is None else ("tokens", tokens)
    try:
        chart = line_chart(title, panel.lines, log=log, second=second, marks=marks, x_range=(0.0, last))
    except (ArithmeticError, ValueError):
        return f'<p class="soft">{shown(panel.name)} can\'t be drawn: its figures are too large.</p>'
    only = panel.lines[0].label if len(panel.lines) == 1 and panel.lines[0].label not in (panel.name, "train") else ""
    caption = ", ".join(filter(None, (title, only, unit, "logarithmic" if log else "")))
    note = note_of(panel.lines)
    below = f'<p class="soft small">{shown(note)}</p>' if note else ""
    return f"<figure><figcaption>{shown(caption)}</figcaption>{chart}{below}</figure>"


def _label(group: str) -> str:
    """evaluation/perplexity is known as perplexity, evaluated during training."""
    return f"{group.removeprefix(EVALUATION)}, evaluated" if group.startswith(EVALUATION) else group


def _ends_interval(key: str, known: set[str]) -> bool:
    above, _, last = key.rpartition("/")
    return key.startswith(EVALUATION) and last in ENDS and above in known


def _intervals(rows: list[JsonObject], key: str) -> list[tuple[float, float, float]]:
    """Where the rows have both ends of an interval."""
    lows, highs = (dict(points(rows, f"{key}/{end}")) for end in ENDS)
    both = ((step, lows[step], highs[step]) for step in sorted(lows.keys() & highs.keys()))
    return [(step, low, high) for step, low, high in both if math.isfinite(low) and math.isfinite(high)]
