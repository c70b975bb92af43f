"""What a run goes on with when it is resumed: the horizon that it still has ahead, and a config that was changed."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lmexp.config.changes import sets_horizon
from lmexp.config.compose import Composed
from lmexp.config.freeze import RunRecord, change_config, plain_config, without_secrets
from lmexp.data.config import CorpusConfig
from lmexp.errors import RunError
from lmexp.optim.schedulers.config import CustomSchedulerConfig
from lmexp.paths import CHECKPOINTS_DIR
from lmexp.redaction import redact_text
from lmexp.runs import folder

if TYPE_CHECKING:
    from lmexp.config.schema import TrainConfig
    from lmexp.data.cache import TokenCache
    from lmexp.training.config import TrainerConfig


def refuse_done(run_dir: Path, config: TrainConfig, overrides: list[str]) -> None:
    """Raise RunError where the run is done and no further horizon is given."""
    if folder.read_state(run_dir).state == "done" and not sets_horizon(overrides):
        raise RunError(
            f"{run_dir}: the run is done; look at {run_dir}/report.html, or go on to a further horizon: "
            f"lmexp resume {_further(run_dir, config.trainer)}"
        )


def change_run(
    run_dir: Path,
    record: RunRecord,
    composed: Composed,
    cache: TokenCache | None,
    overrides: list[str],
    *,
    typed: Path,
    say: Callable[[str], None],
) -> None:
    """Let the run go on with a changed config. RunError, before anything is written, for a horizon that lies behind it.

    typed: the run's folder as it was typed. The state is written first: a kill in between leaves a run that goes on to
    its old horizon, never one that says it is done and isn't.
    """
    from lmexp.training import checkpoints

    plain = without_secrets(plain_config(composed.node))
    before = folder.read_state(run_dir)
    newest = checkpoints.latest(run_dir / CHECKPOINTS_DIR)
    step = checkpoints.read_manifest(newest).step if newest is not None else 0
    if sets_horizon(overrides):
        if before.state == "done" and newest is None:
            raise RunError(_nothing_to_go_on_from(typed, composed.config, overrides))
        _check_ahead(typed, record.config, composed.config, cache, step, is_done=before.state == "done")
        _tell_learning_rate(record.config, composed.config, cache, step, say)
        if before.state == "done" or before.phase == "evaluating":
            folder.write_state(run_dir, "interrupted", phase="training", step=step, message="going on to a new horizon")
    change_config(run_dir, plain, when=folder.now(), step=step, overrides=[redact_text(text) for text in overrides])


def _check_ahead(
    run_dir: Path, old: TrainConfig, new: TrainConfig, cache: TokenCache | None, step: int, *, is_done: bool
) -> None:
    """Raise RunError where the horizon lies behind the newest checkpoint, or at it though the run is done."""
    total = _total_steps(new, cache)
    name, value = _horizon(new.trainer)
    if total is None:  # epochs of the user's own data module, the length of which nobody knows
        same = _horizon(old.trainer)[0] == name
        if is_done and same and value <= _horizon(old.trainer)[1]:
            raise RunError(
                _behind(run_dir, old, f"trainer.{name}={value}", f"is done after {_horizon(old.trainer)[1]}")
            )
        return
    if total < step or (is_done and total == step):
        steps = "" if name == "max_steps" else f", {total} steps"
        reached = f"is done at step {step}" if is_done else f"has a checkpoint at step {step}"
        raise RunError(_behind(run_dir, old, f"trainer.{name}={value}{steps}", reached))


def _tell_learning_rate(
    old: TrainConfig, new: TrainConfig, cache: TokenCache | None, step: int, say: Callable[[str], None]
) -> None:
    """Say so where the new horizon has another learning rate for the next step."""
    schedule, horizons = new.scheduler, [_total_steps(config, cache) for config in (old, new)]
    rate = getattr(new.optimizer, "lr", None)
    if schedule is None or isinstance(schedule, CustomSchedulerConfig) or rate is None or None in horizons:
        return
    was, now = (rate * schedule.multiplier(step, total) for total in horizons if total is not None)
    if was != now:
        say(f"scheduler={schedule.kind} follows the horizon: the learning rate goes on at {now:.3g}, not {was:.3g}")


def _behind(run_dir: Path, old: TrainConfig, given: str, reached: str) -> str:
    return (
        f"{given}: the run {reached}; expected a horizon beyond that, e.g. "
        f"lmexp resume {_further(run_dir, old.trainer)}"
    )


def _nothing_to_go_on_from(run_dir: Path, config: TrainConfig, overrides: list[str]) -> str:
    why = "checkpoint.keep=none removed its checkpoints" if config.checkpoint.keep == "none" else "it has no checkpoint"
    return (
        f"{run_dir}: the run is done, and {why}, so there is nothing to go on from; train anew with its config: "
        f"lmexp train from={shlex.quote(str(run_dir))} checkpoint.keep=best {shlex.join(overrides)}"
    )


def _total_steps(config: TrainConfig, cache: TokenCache | None) -> int | None:
    from lmexp.training.trainer import corpus_steps

    if isinstance(config.data, CorpusConfig):
        assert cache is not None
        return corpus_steps(config.trainer, config.data, cache)
    return config.trainer.max_steps


def _horizon(trainer: TrainerConfig) -> tuple[str, int]:
    """The one of max_steps, max_tokens and max_epochs that is given."""
    name = next(name for name in ("max_steps", "max_tokens", "max_epochs") if getattr(trainer, name) is not None)
    return name, getattr(trainer, name)


def _further(run_dir: Path, trainer: TrainerConfig) -> str:
    """The arguments of resume that double the horizon."""
    name, value = _horizon(trainer)
    return f"{shlex.quote(str(run_dir))} trainer.{name}={2 * value}"
