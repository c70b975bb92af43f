"""All runs below a folder, newest first: `lmexp runs`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmexp.config.freeze import read_body
from lmexp.errors import LmexpError
from lmexp.evaluation.row import read_summary
from lmexp.paths import EVALUATION_DIR, METRICS_JSONL, RUN_JSON, SUMMARY_JSON
from lmexp.runs.folder import read_state, state_now
from lmexp.tracking.rows import read_rows


@dataclass(kw_only=True, slots=True)
class Listed:
    """One line of `lmexp runs`."""

    path: Path
    created: str
    state: str
    step: int | None
    """Optimizer step of the last row of metrics."""
    result: str
    """First figure of the evaluation, the last validation loss, or what went wrong."""


def runs(root: Path) -> list[Listed]:
    """Every run folder below root, however deep it lies in two levels; unreadable ones say so."""
    found = [_listed(path.parent) for path in root.glob(f"*/*/{RUN_JSON}")]
    return sorted(found, key=lambda listed: listed.created, reverse=True)


def _listed(run_dir: Path) -> Listed:
    try:
        body = read_body(run_dir)
        state = state_now(run_dir)
        rows = _rows(run_dir)
        return Listed(
            path=run_dir,
            created=body["created"],
            state=state,
            step=rows[-1]["step"] if rows else None,
            result=_result(run_dir, state, rows),
        )
    except (LmexpError, OSError, KeyError, TypeError, ValueError) as error:
        return Listed(path=run_dir, created="", state="unreadable", step=None, result=str(error))


def _rows(run_dir: Path) -> list[dict[str, Any]]:
    path = run_dir / METRICS_JSONL
    return read_rows(path) if path.exists() else []


def _result(run_dir: Path, state: str, rows: list[dict[str, Any]]) -> str:
    if state == "failed":
        return read_state(run_dir).message
    summary = run_dir / EVALUATION_DIR / SUMMARY_JSON
    if summary.exists():
        for figure in read_summary(summary).rows:
            if figure.name in ("perplexity/bits_per_byte", "perplexity/loss") and figure.estimate is not None:
                return f"{figure.split} {figure.name.partition('/')[2]} {figure.estimate:.4f}"
    for wanted in ("validation/loss", "train/loss"):
        for row in reversed(rows):
            if wanted in row:
                return f"{wanted} {row[wanted]:.4f}"
    last = [(key, value) for row in rows[-1:] for key, value in row.items() if key not in ("step", "epoch")]
    return f"{last[0][0]} {last[0][1]:.4g}" if last else ""
