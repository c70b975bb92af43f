"""The page of a comparison: forests of the differences, tables, what couldn't be compared, settings, definitions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from lmexp.errors import RunError
from lmexp.evaluation.comparison import NOT_COMPARED, Difference
from lmexp.evaluation.conclusions import words
from lmexp.evaluation.plot import MOST_NAMES, MOST_SERIES, MOST_TEXT, Plot, Reference, Series
from lmexp.evaluation.row import figure
from lmexp.files import write_atomically
from lmexp.paths import default_root
from lmexp.reports import compare_words as say
from lmexp.reports.charts.plots import figure_of
from lmexp.reports.frame import framed
from lmexp.reports.visible import shown
from lmexp.runs.compare import Comparison, Side
from lmexp.runs.settings import Setting

COLUMNS = (0, 7, 3, 4, 5, 6, 1, 2)
"""The cells in their order on the page: on a narrow screen the first are seen."""
DIFFERENCE = 3
TEXTS = (0, 7)
"""The cells that hold no numbers."""


def write_page(comparison: Comparison, path: Path | None = None) -> Path:
    """Write the page, by default below the folder of all runs; its path."""
    path = path or Path(default_root()) / say.file_name(comparison)
    write_text(path, page(comparison))
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file that the user asked for; RunError where that can't be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode(errors="backslashreplace"))  # file names that aren't UTF-8
    except OSError as error:
        raise RunError(f"{path}: can't be written: {error.strerror}; name another file") from None


def page(comparison: Comparison) -> str:
    """The whole page as HTML. All text of the runs is escaped."""
    first, *others = (f"{side.label} ({side.name})" for side in comparison.sides)
    title = f"{', '.join(others)} against {first}"
    sections = [_head(comparison, title)]
    sections += [_differences(comparison, side) for side in comparison.sides[1:]]
    sections += [
        _section("Not compared", _not_compared(comparison)),
        _section("Settings that differ", _settings(comparison, comparison.config)),
        _section("Machines and packages that differ", _settings(comparison, comparison.machine)),
    ]
    footer = f"Made by lmexp from the samples tables of these runs, with seed {comparison.seed}. Intervals are 95%."
    return framed(f"{shown(title)} · lmexp compare", [section for section in sections if section], footer)


def _head(comparison: Comparison, title: str) -> str:
    verdicts = [say.verdict_on(comparison, side.label) for side in comparison.sides[1:]]
    notes = "".join(f"<li>{shown(note)}</li>" for note in comparison.notes)
    return "\n".join(
        [
            "<header>",
            f"<h1>{shown(title)}</h1>",
            *(f'<p class="verdict {verdict.tone}">{shown(verdict.text)}</p>' for verdict in verdicts),
            f'<dl class="pairs sides">{"".join(map(_side, comparison.sides))}</dl>',
            f'<ul class="small">{notes}</ul>' if notes else "",
            "</header>",
        ]
    )


def _side(side: Side) -> str:
    runs = "".join(f'<span class="run-id">{shown(run.path)}</span><br>' for run in side.runs)
    return f"<dt><b>{shown(side.label)}</b></dt><dd>{shown(say.side_text(side)[3:])}<br>{runs}</dd>"


def _differences(comparison: Comparison, side: Side) -> str:
    """Forests and table of one side against the first."""
    rows = [row for row in comparison.rows if row.other == side.label and row.verdict != NOT_COMPARED]
    if not rows:
        return ""
    plots = "".join(figure_of(plot) for plot in forests(rows))
    legend = f'<p class="soft small">{shown(say.LEGEND)}</p>'
    title = f"{side.label} against {comparison.sides[0].label}"
    counts = f'<p class="soft small">{shown(say.counts_text(rows))}</p>'
    return _section(title, f'<div class="charts">{plots}</div>\n{_table(rows)}\n{counts}\n{legend}\n{_methods(rows)}')


def forests(rows: Sequence[Difference]) -> list[Plot]:
    """A forest for each figure: its difference in every evaluation that has it, around zero."""
    groups: dict[tuple[str, str], list[Difference]] = {}
    for row in rows:
        groups.setdefault((row.name.partition("/")[2], row.unit), []).append(row)
    return [_forest(name, group[:MOST_NAMES]) for (name, _), group in groups.items()]


def _forest(name: str, rows: Sequence[Difference]) -> Plot:
    first = rows[0]
    margins = {row.margin for row in rows}
    margin = margins.pop() if len(margins) == 1 else None
    ends = [] if margin is None else [Reference(label="", value=sign * margin) for sign in (-1, 1)]
    told = "" if margin is None else f", margin {margin:g}"
    return Plot(
        kind="forest",
        title=f"{name[: MOST_TEXT // 2]}{told}",
        series=[
            Series(
                label=f"{first.other} - {first.reference}",
                x=[row.evaluation[:MOST_TEXT] for row in rows],
                y=[row.difference or 0.0 for row in rows],
                low=[row.low if row.low is not None else row.difference or 0.0 for row in rows],
                high=[row.high if row.high is not None else row.difference or 0.0 for row in rows],
                n=[row.n for row in rows],
            )
        ],
        y_label=f"{first.other} - {first.reference}",
        y_unit=first.unit[:MOST_TEXT],
        references=[Reference(label="no difference", value=0.0), *ends][:MOST_SERIES],
        higher_is_better=first.higher_is_better,
    )


def _table(rows: Sequence[Difference]) -> str:
    names = say.headings(rows[0].reference, rows[0].other)
    head = "".join(f'<th scope="col"{_number(place)}>{shown(names[place])}</th>' for place in COLUMNS)
    body = "\n".join(map(_row, rows))
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="differences"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def _row(row: Difference) -> str:
    name, *_ = cells = say.cells(row)
    unit = _small(row.unit)
    first = shown(name).replace("/", "/<wbr>").replace("_", "_<wbr>")
    columns = "".join(
        f"<td{_number(place)}>{shown(cells[place])}{unit if place == DIFFERENCE else ''}</td>" for place in COLUMNS[2:]
    )
    verdict, _, more = words(row).partition(" (")
    columns = f'<td class="words">{shown(verdict)}{_small(more.removesuffix(")"))}</td>{columns}'
    return f'<tr><th scope="row">{first}</th>{columns}</tr>'


def _small(text: str) -> str:
    return f'<span class="small">{shown(text)}</span>' if text else ""


def _number(place: int) -> str:
    return "" if place in TEXTS else ' class="number"'


def _methods(rows: Sequence[Difference]) -> str:
    entries = "".join(f"<dt>{shown(row.name)}</dt><dd>{shown(_in_words(row))}</dd>" for row in rows)
    return f'<details><summary>Definitions and methods</summary><dl class="pairs">{entries}</dl></details>'


def _in_words(row: Difference) -> str:
    better = {True: "higher is better", False: "lower is better", None: ""}[row.higher_is_better]
    parts = [row.definition, f"{row.split}: {say.counts_of(row)}", row.method, row.note]
    parts += [f"standard error {figure(row.se)}" if row.se is not None else ""]
    parts += [f"smallest detectable difference {figure(row.detectable)}" if row.detectable is not None else ""]
    parts += [f"corrected: {row.correction}" if row.adjusted_p is not None else ""]
    if row.equivalence_p is not None:
        parts += [f"that it is {row.margin:g} or more: p {say.p_text(row.equivalence_p)} (two one-sided t tests)"]
    return ". ".join(part for part in (*parts, better) if part) + "."


def _not_compared(comparison: Comparison) -> str:
    lines = [*say.not_compared(comparison.rows), *map(say.unmatched_text, comparison.unmatched)]
    if not lines:
        return '<p class="soft">Every sample and every figure of these runs was compared.</p>'
    return f"<ul>{''.join(f'<li>{shown(line)}</li>' for line in lines)}</ul>"


def _settings(comparison: Comparison, settings: Iterable[Setting]) -> str:
    labels = [side.label for side in comparison.sides]
    body = "\n".join(
        f'<tr><th scope="row">{shown(setting.key).replace(".", ".<wbr>")}</th>'
        + "".join(f"<td>{shown(say.values_of(setting, label))}</td>" for label in labels)
        + "</tr>"
        for setting in settings
    )
    if not body:
        return '<p class="soft">None: all runs have the same.</p>'
    head = "".join(f'<th scope="col">{shown(name)}</th>' for name in ("setting", *labels))
    return (
        '<div class="wide settings" tabindex="0" role="region" aria-label="settings"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{shown(title)}</h2>\n{body}\n</section>"
