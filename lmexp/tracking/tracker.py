"""Where a training run hands in its figures: the rows in the run folder, and a mirror of them.

The rows are the truth: an error while writing them stops the run. The mirror is a convenience: when it fails,
one warning says so, and training goes on without it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lmexp.paths import DISCARDED_JSONL, LOSSES_F64, METRICS_JSONL, TIMINGS_JSONL
from lmexp.redaction import redact_text
from lmexp.tracking.losses import LossFile, cut_back_losses
from lmexp.tracking.rows import Number, RowFile, cut_back

if TYPE_CHECKING:
    from lmexp.evaluation.plot import Plot
    from lmexp.evaluation.row import Row

log = logging.getLogger(__name__)


class Mirror(Protocol):
    """Shows the figures somewhere else. May raise anything at any time."""

    def row(self, step: int, values: Mapping[str, Number]) -> None:
        """Show one row."""

    def summary(self, values: Mapping[str, Number | str]) -> None:
        """Show figures of the run as a whole."""

    def evaluation(self, rows: Sequence[Row], *, draw: Callable[[Plot], str], samples: Mapping[str, Path]) -> None:
        """Show the rows of the report card, their plots (draw makes an HTML page of one) and the tables of samples of
        the evaluations."""

    def texts(self, name: str, texts: Sequence[tuple[str, int, str]], *, step: int | None) -> None:
        """Show text from the model: prompt, seed and continuation of each. step: None is that of the last row."""

    def close(self, exit_code: int) -> None:
        """Show that the run ended; returns within a deadline of the mirror's own."""


class Tracker:
    """Appends to metrics.jsonl, timings.jsonl and losses.f64 and tells the mirror; for one process of a run."""

    def __init__(self, folder: Path, mirror: Mirror | None = None) -> None:
        self._metrics = RowFile(folder / METRICS_JSONL)
        self._timings = RowFile(folder / TIMINGS_JSONL)
        self._losses = LossFile(folder / LOSSES_F64)
        self._mirror = mirror
        self._mirror_works = mirror is not None

    def metrics(
        self, step: int, values: Mapping[str, Number], *, unmirrored: Mapping[str, Number] | None = None
    ) -> None:
        """Log figures that depend on config, data and seed alone; step: optimizer steps done. unmirrored: more of them,
        that the mirror doesn't show."""
        self._metrics.append(step, {**values, **(unmirrored or {})})
        self._tell_mirror(lambda mirror: mirror.row(step, values))

    def timings(self, step: int, values: Mapping[str, Number]) -> None:
        """Log figures that depend on the machine too: seconds, throughput, memory."""
        self._timings.append(step, values)
        self._tell_mirror(lambda mirror: mirror.row(step, values))

    def losses(self, first_step: int, losses: Sequence[float]) -> None:
        """Keep the loss of each of some steps one after another, in nats per target; the mirror doesn't show them."""
        self._losses.append(first_step, losses)

    def summary(self, values: Mapping[str, Number | str]) -> None:
        """Show figures of the whole run in the mirror. Keep them in a file of your own: no row holds them."""
        self._tell_mirror(lambda mirror: mirror.summary(values))

    def evaluation(self, rows: Sequence[Row], *, draw: Callable[[Plot], str], samples: Mapping[str, Path]) -> None:
        """Show what an evaluation found in the mirror; evaluation/ holds it. samples: evaluation -> its table."""
        self._tell_mirror(lambda mirror: mirror.evaluation(rows, draw=draw, samples=samples))

    def texts(self, name: str, texts: Sequence[tuple[str, int, str]], *, step: int | None = None) -> None:
        """Show what an evaluation had the model write in the mirror; evaluation/ holds it."""
        self._tell_mirror(lambda mirror: mirror.texts(name, texts, step=step))

    def sync(self) -> None:
        """Return when all rows so far would survive a power cut; call it before publishing a checkpoint."""
        self._metrics.sync()
        self._timings.sync()
        self._losses.sync()

    def close(self, exit_code: int = 0) -> None:
        """End the mirror within its deadline and close the files; a second time does nothing."""
        mirror, self._mirror = self._mirror, None
        self._metrics.close()
        self._timings.close()
        self._losses.close()
        if mirror is not None:
            try:
                mirror.close(exit_code)
            except Exception as error:
                if self._mirror_works:
                    _warn(error)

    def _tell_mirror(self, tell: Callable[[Mirror], None]) -> None:
        if self._mirror is None or not self._mirror_works:
            return
        try:
            tell(self._mirror)
        except Exception as error:
            self._mirror_works = False
            _warn(error)


def start_mirror(make: Callable[[], Mirror]) -> Mirror | None:
    """What make returns, or None and one warning where it fails."""
    try:
        return make()
    except Exception as error:
        _warn(error)
        return None


def cut_back_run(folder: Path, step: int | None) -> int:
    """Cut rows and losses back to a step (None: to nothing) before a run goes on from there; lines cut."""
    cut_back_losses(folder / LOSSES_F64, step)
    discarded = folder / DISCARDED_JSONL
    return sum(cut_back(folder / name, step, discarded) for name in (METRICS_JSONL, TIMINGS_JSONL))


def _warn(error: Exception) -> None:
    reason = redact_text(" ".join(str(error).split())) or "no reason given"
    log.warning(
        "the mirror stopped (%s: %s); training goes on, and the run folder holds every figure",
        type(error).__name__,
        reason,
    )
