"""Reads a run folder for a report.

A run may be unfinished, failed or of the user's own making: what is missing is said, and the rest is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from lmexp import paths
from lmexp.config.freeze import VERSION as RUN_VERSION
from lmexp.errors import LmexpError, RunError
from lmexp.evaluation.collect import find_table
from lmexp.evaluation.config import NAME, TEXT
from lmexp.evaluation.row import Summary, read_summary
from lmexp.evaluation.samples import Samples
from lmexp.evaluation.samples_file import read_samples
from lmexp.reading import check_folder, check_format, read_bytes, read_object
from lmexp.reports.examples import Chosen, Example, best_and_worst
from lmexp.reports.texts import Writing, read_generated, read_writing
from lmexp.runs.folder import State, read_state, state_now
from lmexp.tracking.rows import read_rows

T = TypeVar("T")
JsonObject = dict[str, Any]


@dataclass(slots=True)
class RunFiles:
    """What a run folder holds. A part that can't be shown is None or empty, and `missing` says why."""

    run: JsonObject = field(default_factory=dict)
    state: State | None = None
    state_now: str = "unknown"
    metrics: list[JsonObject] = field(default_factory=list)
    timings: list[JsonObject] = field(default_factory=list)
    summary: Summary | None = None
    writing: list[Writing] = field(default_factory=list)
    """Text that the model wrote."""
    later: list[Summary] = field(default_factory=list)
    """What `lmexp evaluate` was asked for since, the newest first."""
    examples: dict[str, Chosen] = field(default_factory=dict)
    """Evaluation -> its best and its worst samples."""
    config: str = ""
    receipt: JsonObject = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """Part -> why it can't be shown."""

    def take(self, part: str, read: Callable[[], T], otherwise: T) -> T:
        """What read yields; otherwise a note in `missing`."""
        try:
            return read()
        except FileNotFoundError as error:
            self.missing[part] = f"there is no {Path(error.filename).name}"
        except (LmexpError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.missing[part] = f"it can't be read: {error}"
        return otherwise


def read_run(run_dir: Path) -> RunFiles:
    """All that a report shows. RunError if run_dir is no run folder."""
    if not (run_dir / paths.RUN_JSON).is_file() and not (run_dir / paths.STATE_JSON).is_file():
        raise RunError(
            f"{run_dir}: expected a run folder with {paths.RUN_JSON} or {paths.STATE_JSON}, found "
            f"{'neither' if run_dir.is_dir() else 'no such folder'}; see the runs there are with lmexp runs"
        )
    check_folder(run_dir, RunError, files=paths.RUN_FILES, folders=paths.RUN_FOLDERS, links=paths.RUN_LINKS)
    evaluation = run_dir / paths.EVALUATION_DIR
    files = RunFiles()
    files.run = files.take("run", lambda: _json(run_dir / paths.RUN_JSON, "lmexp.run", RUN_VERSION), {})
    files.state = files.take("state", lambda: read_state(run_dir), None)
    files.state_now = files.take("state", lambda: state_now(run_dir), "unknown")
    files.metrics = files.take("metrics", lambda: _rows(run_dir / paths.METRICS_JSONL), [])
    files.timings = files.take("timings", lambda: _rows(run_dir / paths.TIMINGS_JSONL), [])
    if (evaluation / paths.SUMMARY_JSON).is_file():
        files.summary = files.take("evaluation", lambda: read_summary(evaluation / paths.SUMMARY_JSON), None)
    else:
        files.missing["evaluation"] = "the run has not been evaluated"
    for path in sorted(evaluation.glob("evaluate-*.json"), reverse=True):
        if not path.name.endswith(".request.json"):
            files.later += files.take(path.name, lambda path=path: [read_summary(path)], [])  # type: ignore[misc]
    tables = files.summary.tables if files.summary else {}
    files.examples = files.take("examples", lambda: _examples(evaluation, tables), {})
    checkpoint = files.summary.checkpoint if files.summary else ""
    if evaluation.is_dir():
        files.writing = files.take("texts", lambda: read_writing(evaluation, tables, checkpoint), [])
    if not files.writing and (evaluation / paths.GENERATED_JSON).is_file():
        files.writing = files.take("texts", lambda: read_generated(evaluation / paths.GENERATED_JSON), [])
    files.config = files.take("config", lambda: read_bytes(run_dir / paths.CONFIG_YAML, RunError).decode(), "")
    files.receipt = files.take("receipt", lambda: _json(run_dir / paths.RECEIPT_JSON), {})
    return files


def _examples(evaluation: Path, tables: dict[str, str]) -> dict[str, Chosen]:
    """The best and the worst samples of the tables that the rows derive from."""
    found = {}
    for name, key_digest in tables.items():
        path = find_table(evaluation / name, key_digest) if NAME.fullmatch(name) else None
        samples = read_samples(path) if path is not None else None
        if samples is not None and samples.header.kind != TEXT:  # generated text is neither
            found[name] = best_and_worst(_samples_of(samples))
    return found


def _samples_of(samples: Samples) -> Iterator[Example]:
    names = [one.name for one in fields(Example)]
    for values in zip(*(samples.values(name) for name in names), strict=True):
        yield Example(**dict(zip(names, values, strict=True)))


def points(rows: list[JsonObject], key: str) -> list[tuple[float, float]]:
    """(step, value) of rows that have both as numbers, in order of step; of equal steps the last counts."""
    by_step = {
        float(row["step"]): float(row[key]) for row in rows if _is_number(row.get("step")) and _is_number(row.get(key))
    }
    return sorted(by_step.items())


def numeric_keys(rows: list[JsonObject]) -> list[str]:
    """Keys that hold a number in some row, in order of first appearance."""
    return list(dict.fromkeys(key for row in rows for key, value in row.items() if _is_number(value)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rows(path: Path) -> list[JsonObject]:
    if not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))
    return list(read_rows(path))


def _json(path: Path, expected_format: str | None = None, expected_version: int = 1) -> JsonObject:
    content: JsonObject = read_object(path, RunError)
    if expected_format:
        check_format(content, path, RunError, expected_format, expected_version)
    return content
