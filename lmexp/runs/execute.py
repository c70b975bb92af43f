"""Execute a run from its folder alone: train (or go on), evaluate, generate, report. Every rank runs this."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmexp import __version__
from lmexp.config.freeze import RunRecord, read_body, read_record, write_config_yaml
from lmexp.errors import Stopped
from lmexp.evaluation.config import TEXT
from lmexp.paths import (
    CHECKPOINTS_DIR,
    EVALUATION_DIR,
    LOGS_DIR,
    LOSSES_F64,
    RECEIPT_JSON,
    SAMPLES_PARQUET,
    STATE_JSON,
    WANDB_DIR,
)
from lmexp.redaction import redact_text
from lmexp.runs import folder
from lmexp.runs.data import describe as describe_data
from lmexp.runs.data import reopen_data
from lmexp.runs.ranks import Ranks, describe, tell_launcher
from lmexp.runs.work_progress import Lines
from lmexp.stopping import StopRequest

if TYPE_CHECKING:
    from lmexp.data.cache import TokenCache
    from lmexp.tracking.tracker import Tracker


def execute(run_dir: Path) -> None:
    """Bring the run to its end. Raises what went wrong, Stopped or KeyboardInterrupt, after state.json says so."""
    ranks = Ranks.from_environment()
    for inner in (LOGS_DIR, CHECKPOINTS_DIR, EVALUATION_DIR):  # who copies a run may leave out empty folders
        (run_dir / inner).mkdir(exist_ok=True)
    lock = folder.lock(run_dir) if ranks.is_first else nullcontext()
    with StopRequest().installed() as stop, lock, rank_log(run_dir, ranks.rank) as note:
        try:
            _execute(run_dir, ranks, stop, note)
        except Stopped as stopped:
            if stopped.step is not None:
                _write_state(run_dir, ranks, stopped.state, step=stopped.step, message="a checkpoint was written")
            else:
                _record_stop(run_dir, stopped, stopped.state)
            raise
        except KeyboardInterrupt as interrupt:
            _record_stop(run_dir, interrupt, "interrupted")
            raise
        except BaseException as error:
            note(traceback.format_exc())
            record_failure(run_dir, ranks.rank, error)
            raise


def _execute(run_dir: Path, ranks: Ranks, stop: StopRequest, note: Callable[[str], None]) -> None:
    record = read_record(run_dir)
    before = folder.read_state(run_dir)

    def say(message: str) -> None:
        note(message)
        if ranks.is_first:
            print(message, flush=True)

    from lmexp.tracking.losses import losses_digest
    from lmexp.tracking.receipt import add_losses
    from lmexp.training.devices import set_determinism

    phase = before.phase
    _write_state(run_dir, ranks, "running", phase=phase)
    cache = reopen_data(run_dir, record, ranks, Lines(note))
    set_determinism(record.config.trainer.deterministic)
    tracker = _start_tracking(run_dir, record, cache, ranks, say)
    exit_code = 1
    try:
        if phase == "training":
            _fit(record, run_dir, cache, tracker, ranks, stop, say)
            ranks.barrier()
            _leave_if_asked(stop)
            _write_state(run_dir, ranks, "running", phase="evaluating")
        if ranks.is_first:  # also where a run goes on that had only its evaluation left: its receipt is new
            add_losses(run_dir / RECEIPT_JSON, losses_digest(run_dir / LOSSES_F64))
        from lmexp.evaluation.generated import texts_of
        from lmexp.evaluation.samples_file import read_header, read_samples
        from lmexp.reports.charts.plots import page_of
        from lmexp.runs.evaluate import evaluate_after_training

        rows = evaluate_after_training(run_dir, record.config, cache, ranks, say)
        if tracker is not None:
            tracker.summary({f"{r.split}/{r.name}": r.estimate for r in rows if r.estimate is not None})
            found = {row.evaluation: run_dir / EVALUATION_DIR / row.evaluation / SAMPLES_PARQUET for row in rows}
            samples = {name: path for name, path in found.items() if path.is_file()}  # not those of earlier requests
            tracker.evaluation(rows, draw=page_of, samples=samples)
            for name, path in samples.items():
                if read_header(path).kind == TEXT:
                    tracker.texts(name, texts_of(read_samples(path)))
        _leave_if_asked(stop)
        exit_code = 0
    finally:
        if tracker is not None:
            tracker.close(exit_code)
    if ranks.is_first:
        folder.write_state(run_dir, "done", phase="evaluating")
        finish(run_dir, record)
    ranks.barrier()


def _fit(
    record: RunRecord,
    run_dir: Path,
    cache: TokenCache | None,
    tracker: Tracker | None,
    ranks: Ranks,
    stop: StopRequest,
    say: Callable[[str], None],
) -> None:
    """Train, or count, from where the run was left."""
    fingerprints = record.data_fingerprints
    if record.config.is_counted:
        from lmexp.training.counting import count

        assert cache is not None
        count(record.config, run_dir, cache, tracker, rank=ranks.rank, say=say, data_fingerprints=fingerprints)
        return
    from lmexp.runs.items import read_items
    from lmexp.training.trainer import fit

    fit(
        record.config,
        run_dir,
        cache,
        tracker,
        rank=ranks.rank,
        say=say,
        stop=stop,
        data_fingerprints=fingerprints,
        started_from=record.initial_weights,
        items=read_items(run_dir, record),
    )


def finish(run_dir: Path, record: RunRecord) -> None:
    """The last things, for one process: the report of a run that is done, and checkpoints that nobody wants any more.

    A run killed in here is done; `lmexp resume` calls this again.
    """
    from lmexp.reports.run_report import write_report
    from lmexp.training.checkpoint_io import keep_at_end

    folder.remove_unfinished(run_dir)
    print(f"report: {_shown(write_report(run_dir))}", flush=True)
    keep_at_end(run_dir / CHECKPOINTS_DIR, record.config.checkpoint)
    folder.write_state(run_dir, "done", phase="finished")


def _leave_if_asked(stop: StopRequest) -> None:
    """Raise Stopped for a signal that was only noted, or whose Stopped somebody swallowed."""
    if stop.received is not None:
        raise Stopped(stop.state, None)


def _start_tracking(
    run_dir: Path, record: RunRecord, cache: TokenCache | None, ranks: Ranks, say: Callable[[str], None]
) -> Tracker | None:
    """On rank 0: clear what a killed process left, cut the rows back to the checkpoint, and open the tracker."""
    if not ranks.is_first:
        ranks.barrier()
        return None
    from lmexp.evaluation.samples_file import cut_back_tables
    from lmexp.tracking.receipt import going_on, read_receipt, receipt, write_receipt
    from lmexp.tracking.tracker import cut_back_run
    from lmexp.training import checkpoints

    root = run_dir / CHECKPOINTS_DIR
    folder.remove_unfinished(run_dir)
    resumed = checkpoints.latest(root, warn=say)
    step = None if resumed is None else checkpoints.read_manifest(resumed).step
    cut_back_run(run_dir, step)
    cut_back_tables(run_dir / EVALUATION_DIR, step)
    facts: dict[str, Any] = {
        "run_id": record.run_id,
        "lmexp": __version__,
        "data_fingerprint": cache.fingerprint if cache is not None else None,
        "data": describe_data(cache) if cache is not None else None,
        "exact_data_order": cache is not None or "not guaranteed: the data module is the user's",
        "deterministic": record.config.trainer.deterministic,
    }
    # git runs filters that a repository names, so never in one inside a run folder, which somebody may have sent
    here = run_dir.resolve().parent if Path.cwd().is_relative_to(run_dir.resolve()) else Path.cwd()
    path, now = run_dir / RECEIPT_JSON, receipt(facts, folder=here)
    write_receipt(path, now if step is None else going_on(read_receipt(path), now, step=step))
    plain = write_config_yaml(run_dir, read_body(run_dir)["config"])  # again: resume may have changed the config
    logger = record.config.logger
    if getattr(logger, "sync", "off") == "auto" and not folder.made_here(run_dir, record):
        say(
            f"the run was made elsewhere or by somebody else, so nothing is uploaded to the W&B project that it names; "
            f"to do it yourself: wandb beta sync {run_dir / WANDB_DIR}"
        )
        logger = replace(logger, sync="off")
    tracker: Tracker = logger.build(run_dir, run_id=record.wandb_id, name=record.name, run_config=plain)
    ranks.barrier()
    return tracker


@contextmanager
def rank_log(run_dir: Path, rank: int) -> Iterator[Callable[[str], None]]:
    """logs/rank-N.log, and warnings of all libraries in it, without secrets; yields a function that notes a line."""
    import logging

    class Redacted(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return redact_text(super().format(record))

    path = run_dir / LOGS_DIR / f"rank-{rank}.log"
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(Redacted("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    logger = logging.getLogger("lmexp.run")
    logger.setLevel(logging.INFO)
    try:
        yield logger.info
    finally:
        root.removeHandler(handler)
        handler.close()


def record_failure(run_dir: Path, rank: int, error: BaseException) -> None:
    """state.json says failed, with the first failing rank and its error; later ones don't replace it."""
    first = tell_launcher(error)
    if not first or not (run_dir / STATE_JSON).exists() or folder.read_state(run_dir).state in ("failed", "done"):
        return
    message = f"rank {rank}: {describe(error)}"
    folder.write_state(run_dir, "failed", phase=folder.read_state(run_dir).phase, message=message)


def _record_stop(run_dir: Path, reason: BaseException, state: str) -> None:
    """A signal stopped this process at once; the others, if any, follow, whether they want to or not."""
    before = folder.read_state(run_dir)
    if tell_launcher(reason) and before.state != "done":
        message = "stopped where no checkpoint could be written"
        folder.write_state(run_dir, state, phase=before.phase, message=message)


def _write_state(
    run_dir: Path, ranks: Ranks, state: str, *, phase: str | None = None, step: int | None = None, message: str = ""
) -> None:
    if ranks.is_first:
        phase = phase or folder.read_state(run_dir).phase
        folder.write_state(run_dir, state, phase=phase, step=step, message=message)


def _shown(path: Path) -> Path:
    """Relative to the current folder where that is shorter."""
    relative = Path(os.path.relpath(path))
    return path if str(relative).startswith("..") else relative
