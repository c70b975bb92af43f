"""Opens the runs of two or more sides, and compares what they scored: `lmexp compare`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from lmexp.checks import at_least
from lmexp.config.freeze import read_body
from lmexp.errors import RunError
from lmexp.evaluation.comparison import Difference, compare_figures
from lmexp.evaluation.conclusions import BASELINES, Declared, concluded, is_named
from lmexp.evaluation.matching import Table, Unmatched, check_alike, match, settings_that_differ, slim
from lmexp.evaluation.samples import digest
from lmexp.evaluation.samples_file import read_header, read_samples
from lmexp.paths import EVALUATION_DIR, RUN_JSON, SAMPLES_PARQUET
from lmexp.plugins import did_you_mean
from lmexp.runs.settings import Facts, Setting, differing, machine_of, settings_of

FORMAT = "lmexp.comparison"
VERSION = 1
MOST_SIDES = len(ascii_uppercase)


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedRun:
    """A run that is compared."""

    label: str
    """"A", or "A2" where its side has several."""
    path: str
    run_id: str
    name: str
    tables: dict[str, str]
    """Evaluation -> SHA-256 of the weights that it scored; empty where it isn't known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """Runs that are alike but for chance, such as several seeds of one config; or a single run."""

    label: str
    name: str
    """The names of its runs."""
    runs: list[ComparedRun]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What differs between sides, and what may be concluded from it."""

    sides: list[Side]
    """The others are compared with the first."""
    rows: list[Difference]
    unmatched: list[Unmatched]
    notes: list[str]
    """What to know before believing it."""
    config: list[Setting]
    machine: list[Setting]
    seed: int

    @property
    def key(self) -> str:
        """SHA-256 of which runs are compared with which."""
        return digest({"sides": [[run.run_id for run in side.runs] for side in self.sides]})

    def to_json(self) -> str:
        """Format lmexp.comparison, version 1."""
        body = {"format": FORMAT, "version": VERSION, **asdict(self)}
        return json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(frozen=True, slots=True)
class _Opened:
    """A run with what is compared of it."""

    path: Path
    label: str
    body: dict[str, Any]
    tables: dict[str, Table]


def compare_runs(
    sides: Sequence[Sequence[Path]],
    declared: Declared,
    *,
    evaluations: Sequence[str] = (),
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Comparison:
    """Compare every side with the first. A folder of runs stands for all runs in it.

    evaluations: names of those to compare; none stands for all that every run has. RunError where they can't be.
    progress: called with what is being done, how many figures are done, and of how many.
    """
    at_least("seed", seed, 0)
    opened = [_open_side(number, paths, evaluations) for number, paths in enumerate(_all_runs(sides))]
    runs = list(chain(*opened))
    common = set.intersection(*(set(run.tables) for run in runs))
    names = sorted(common, key=lambda name: (runs[0].tables[name].samples.header.kind == BASELINES, name))
    if not names:
        told = "; ".join(f"{run.label} has {', '.join(run.tables)}" for run in runs)
        raise RunError(f"there is no evaluation that all of the runs have ({told}); {_how_to_evaluate(runs[0].path)}")
    every = dict.fromkeys(chain(*(run.tables for run in runs)))
    notes = [_not_everywhere(name, runs) for name in every if name not in names]
    rows: list[Difference] = []
    unmatched: list[Unmatched] = []
    settings: dict[str, list[str]] = {}
    n_figures = (len(opened) - 1) * sum(len(runs[0].tables[name].samples.header.figures) for name in names)
    numbers = iter(range(1, n_figures + 1))

    def count() -> None:
        progress("comparing", next(numbers), n_figures)

    progress("comparing", 0, n_figures)
    for name in names:
        tables = [[run.tables[name] for run in side] for side in opened]
        check_alike(name, list(chain(*tables)))
        for differs in settings_that_differ(list(chain(*tables))):
            settings.setdefault(differs, []).append(name)
        for number, other in enumerate(tables[1:], start=1):
            letters = ascii_uppercase[0], ascii_uppercase[number]
            matched = match(name, tables[0], other, letters)
            unmatched += matched.unmatched
            rows += compare_figures(matched, sides=letters, seed=seed, done=count)
    _check_names(declared, rows)
    described = [_describe(number, side, names) for number, side in enumerate(opened)]
    return Comparison(
        sides=described,
        rows=concluded(rows, declared),
        unmatched=unmatched,
        notes=[
            *_scope(described),
            *_weights(described, names),
            *notes,
            *(f"{differs}, in {', '.join(where)}" for differs, where in settings.items()),
        ],
        config=differing(_by_side(opened, lambda run: settings_of(run.body))),
        machine=differing(_by_side(opened, lambda run: machine_of(run.path, run.body))),
        seed=seed,
    )


def _all_runs(sides: Sequence[Sequence[Path]]) -> list[list[Path]]:
    """The run folders of each side; RunError where there are too few, or one stands on a side twice."""
    if not 2 <= len(sides) <= MOST_SIDES:
        raise RunError(
            f"expected two runs or more to compare, and {MOST_SIDES} sides at most, got {len(sides)}; "
            f"e.g. lmexp compare RUN OTHER_RUN; `lmexp runs` lists them"
        )
    found = []
    for side in sides:
        runs = list(chain(*(_runs_in(path) for path in side)))
        places = [run.resolve() for run in runs]
        twice = [run for i, run in enumerate(runs) if places[i] in places[:i]]
        if twice:
            raise RunError(f"{twice[0]}: it stands twice on the same side; name each run once")
        found.append(runs)
    return found


def _runs_in(path: Path) -> list[Path]:
    """The run itself, or all runs that lie in a folder, oldest first."""
    if (path / RUN_JSON).exists() or not path.is_dir():
        return [path]
    return sorted(found.parent for found in path.glob(f"*/{RUN_JSON}")) or [path]


def _open_side(number: int, paths: Sequence[Path], evaluations: Sequence[str]) -> list[_Opened]:
    letter = ascii_uppercase[number]
    side = [
        _open(path, f"{letter}{i}" if len(paths) > 1 else letter, evaluations) for i, path in enumerate(paths, start=1)
    ]
    for i, run in enumerate(side):
        for before in side[:i]:
            same = [name for name in run.tables if _model(run, name) and _model(run, name) == _model(before, name)]
            if same:
                raise RunError(
                    f"{before.path} and {run.path} hold the same weights, so they are one run and not two: "
                    f"leave one of them out; runs that differ by chance have different seeds"
                )
    return side


def _open(path: Path, label: str, evaluations: Sequence[str]) -> _Opened:
    """A run's tables; RunError where it has none, or not those wanted."""
    body = read_body(path)
    folder = path / EVALUATION_DIR
    found = sorted(p.parent.name for p in folder.glob(f"*/{SAMPLES_PARQUET}") if _has_figures(p))
    if not found:
        raise RunError(f"{path}: it has no scores of samples to compare; {_how_to_evaluate(path)}")
    for name in evaluations:
        if name not in found and (folder / name / SAMPLES_PARQUET).is_file():
            raise RunError(f"{path}: {name} has no figures to compare; choose among {', '.join(found)}")
        if name not in found:
            raise RunError(
                f"{path}: it has no evaluation {name!r}{did_you_mean(name, found)}; it has {', '.join(found)}; "
                f"{_how_to_evaluate(path, name)}"
            )
    wanted = list(evaluations) or found
    return _Opened(path, label, body, {name: _table(folder / name / SAMPLES_PARQUET, label) for name in wanted})


def _has_figures(path: Path) -> bool:
    """Whether there is anything to compare; generated text has nothing. What is wrong with a table is said later."""
    try:
        return bool(read_header(path).figures)
    except (RunError, FileNotFoundError):
        return True


def _table(path: Path, label: str) -> Table:
    try:
        samples = read_samples(path)
    except FileNotFoundError:
        raise RunError(f"{path}: it is gone; another process deleted it") from None
    if samples.header.name != path.parent.name:
        raise RunError(f"{path}: it says that it is of {samples.header.name[:80]!r}; lmexp didn't write it there")
    return Table(label=label, where=str(path), samples=slim(samples))


def _how_to_evaluate(path: Path, name: str = "") -> str:
    wanted = f" 'evaluation=[{name}]'" if name else ""
    return f"to make them: lmexp evaluate run={path}{wanted}"


def _not_everywhere(name: str, runs: Sequence[_Opened]) -> str:
    lacking = [run for run in runs if name not in run.tables]
    labels = ", ".join(run.label for run in lacking)
    return f"{name} isn't compared: {labels} wasn't evaluated with it; {_how_to_evaluate(lacking[0].path, name)}"


def _check_names(declared: Declared, rows: Sequence[Difference]) -> None:
    """RunError where a primary figure, or one with a margin, is none of those compared."""
    known = list(dict.fromkeys(row.name for row in rows))
    for name in declared.names:
        if not any(is_named(full, name) for full in known):
            short = [full.partition("/")[2] for full in known]
            raise RunError(
                f"there is no figure {name!r}{did_you_mean(name, [*known, *short])}; expected one of {', '.join(known)}"
            )


def _by_side(opened: Sequence[Sequence[_Opened]], facts: Callable[[_Opened], dict[str, str]]) -> Facts:
    return {ascii_uppercase[number]: [facts(run) for run in side] for number, side in enumerate(opened)}


def _describe(number: int, side: Sequence[_Opened], names: Sequence[str]) -> Side:
    runs = [
        ComparedRun(
            label=run.label,
            path=str(run.path),
            run_id=run.body["run_id"],
            name=run.body["name"],
            tables={name: _model(run, name) for name in names},
        )
        for run in side
    ]
    return Side(label=ascii_uppercase[number], name=", ".join(dict.fromkeys(run.name for run in runs)), runs=runs)


def _model(run: _Opened, name: str) -> str:
    return run.tables[name].samples.header.key.model if name in run.tables else ""


def _scope(sides: Sequence[Side]) -> list[str]:
    """For what the result holds: these checkpoints, or other runs too."""
    single = [side.label for side in sides if len(side.runs) == 1]
    if not single:
        return []
    if len(single) == len(sides):
        return [
            "one run a side: what is said holds for these checkpoints, not for the methods that made them; other seeds "
            "may differ by more. Several seeds a side tell: lmexp compare A1 A2 A3 vs B1 B2 B3"
        ]
    return [f"one run of {', '.join(single)}: what is said of it holds for this checkpoint, not for its method"]


def _weights(sides: Sequence[Side], names: Sequence[str]) -> list[str]:
    """Where two sides are the same model, and where a run's evaluations are of different checkpoints."""
    notes = []
    for side in sides[1:]:
        for name in names:
            first = {run.tables[name]: run.label for run in sides[0].runs if run.tables[name]}
            same = [(first[run.tables[name]], run.label) for run in side.runs if run.tables[name] in first]
            notes += [
                f"{name}: {one} and {two} are the same model (equal weights), so they differ only by how it was run"
                for one, two in same
            ]
    for run in chain(*(side.runs for side in sides)):
        if len(set(run.tables.values())) > 1:
            notes.append(f"{run.label}: its evaluations scored different checkpoints ({', '.join(run.tables)})")
    return notes
