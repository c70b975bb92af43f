"""The report card: the rows of a run's evaluation with their plots, of which JSON, page and terminal are made.

report.json has the format "lmexp.report", version 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lmexp.evaluation.row import Row, Summary, row_json
from lmexp.reports.run_files import RunFiles
from lmexp.reports.verdict import Verdict, verdict

FORMAT = "lmexp.report"
VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Rows that stand together: those of one evaluation about one aspect."""

    evaluation: str
    aspect: str
    rows: list[Row]


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What is told of a run in all three forms."""

    run_id: str
    name: str
    state: str
    checkpoint: str
    """Name of the checkpoint that was evaluated; empty where none was."""
    verdict: Verdict
    rows: list[Row]
    later: list[Summary]
    """What was evaluated on request since, the newest first; of each evaluation only the newest."""
    missing: str
    """Why there are no rows; empty where there are."""

    @property
    def groups(self) -> list[Group]:
        """The rows, those of one evaluation and aspect together, in the order in which they first appear."""
        return grouped(self.rows)


def card_of(files: RunFiles, folder: str) -> Card:
    """The card of what a run folder of this name holds."""
    rows = files.summary.rows if files.summary else []
    return Card(
        run_id=str(files.run.get("run_id") or folder),
        name=str(files.run.get("name") or files.run.get("experiment") or folder),
        state=files.state_now,
        checkpoint=files.summary.checkpoint if files.summary else "",
        verdict=verdict(rows, files.state_now),
        rows=rows,
        later=newest(files.later),
        missing="" if rows else files.missing.get("evaluation", "no evaluation was asked for"),
    )


def newest(requests: list[Summary]) -> list[Summary]:
    """The rows of each evaluation from the first of the requests that has any."""
    seen: set[str] = set()
    found = []
    for request in requests:
        rows = [row for row in request.rows if row.evaluation not in seen]
        seen |= {row.evaluation for row in rows}
        if rows:
            found.append(replace(request, rows=rows))
    return found


def grouped(rows: list[Row]) -> list[Group]:
    """The rows in groups."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.evaluation, row.aspect), []).append(row)
    return [Group(evaluation=evaluation, aspect=aspect, rows=rows) for (evaluation, aspect), rows in found.items()]


def as_json(card: Card) -> dict[str, Any]:
    """The content of report.json."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "run_id": card.run_id,
        "name": card.name,
        "state": card.state,
        "checkpoint": card.checkpoint,
        "verdict": {"tone": card.verdict.tone, "text": card.verdict.text},
        "missing": card.missing,
        "rows": [row_json(row) for row in card.rows],
        "later": [{"checkpoint": one.checkpoint, "rows": [row_json(row) for row in one.rows]} for one in card.later],
    }
