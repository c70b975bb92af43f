"""Evaluations while training goes on: every n optimizer steps, on the weights in memory.

A step is evaluated after its validation and before its checkpoint. So a resumed run neither repeats nor skips it; where
a signal cut an evaluation short, the checkpoint is of a step whose rows are missing, and the resumed run begins with
it. Training can't tell: no weight changes, and the random generators go on as if nothing had been drawn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lmexp.data.config import CorpusConfig
from lmexp.errors import ConfigError
from lmexp.evaluation.context import EvaluationContext, FrozenItems, Interrupted
from lmexp.evaluation.generated import texts_of
from lmexp.evaluation.row import Row, figure
from lmexp.evaluation.runner import run_evaluations
from lmexp.paths import EVALUATION_DIR, METRICS_JSONL
from lmexp.stopping import StopRequest
from lmexp.tasks.base import Task
from lmexp.tracking.rows import read_rows
from lmexp.tracking.tracker import Tracker
from lmexp.training import checkpoints
from lmexp.training.average import WeightAverage, in_place_of_weights
from lmexp.training.checkpoint_io import validates_now
from lmexp.training.devices import autocast
from lmexp.training.seeds import random_state_kept, seed_generators, step_seed
from lmexp.training.sharding import put_together, whole
from lmexp.training.signals import agreed

if TYPE_CHECKING:
    from lmexp.config.schema import TrainConfig
    from lmexp.data.cache import TokenCache

PREFIX = "evaluation/"
"""Of the log keys."""

SHOWN_CHARACTERS = 100
"""Of a text, in a line."""


class StepEvaluations(pl.Callback):
    """Runs each evaluation that has every_n_steps, and logs its estimates as evaluation/<row>, and the ends of their
    intervals as evaluation/<row>/low and /high."""

    def __init__(
        self,
        config: TrainConfig,
        run_dir: Path,
        cache: TokenCache | None,
        tracker: Tracker | None,
        average: WeightAverage | None,
        *,
        stop: StopRequest,
        say: Callable[[str], None],
        pause: Callable[[float], None],
        busy: Callable[[str, int, int, int], None] = lambda what, step, done, total: None,
        items: FrozenItems | None = None,
        make_model: Callable[[], nn.Module] | None = None,
    ) -> None:
        """pause: told how many seconds were spent, which are none of training's. busy: told what is being evaluated at
        which step, how much of it is done, and of how much.

        make_model: makes one of those that are trained, where they are sharded.
        """
        self.items = items
        self.make_model = make_model
        self.config = config
        self.run_dir = run_dir
        self.cache = cache
        self.tracker = tracker
        self.average = average
        self.stop = stop
        self.say = say
        self.pause = pause
        self.busy = busy
        self._seen_step = -1
        self._done_step = 0
        """The last step of which every evaluation that was due is logged; none is due before the first."""
        self._told: set[str] = set()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._seen_step = trainer.global_step
        self._catch_up(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step != self._seen_step and not validates_now(trainer):
            self._evaluate(trainer, pl_module)
        self._seen_step = trainer.global_step

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._evaluate(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._seen_step < 0:  # no step was left to train
            pl_module.to(trainer.strategy.root_device)
            self._catch_up(trainer, pl_module)

    def _catch_up(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Evaluate the step that training goes on from, where a signal kept that from being done."""
        step = trainer.global_step
        rows = read_rows(self.run_dir / METRICS_JSONL) if trainer.is_global_zero else []
        logged = any(row["step"] == step and any(key.startswith(PREFIX) for key in row) for row in rows)
        if trainer.strategy.broadcast(logged):
            self._done_step = step
        self.stop.install_again()
        self._evaluate(trainer, module)

    def _evaluate(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        step, every = trainer.global_step, {n: c.every_n_steps for n, c in self.config.evaluation.items()}
        due = {n: c for n, c in self.config.evaluation.items() if (k := every[n]) is not None and step % k == 0}
        if not due or step == self._done_step or agreed(self.stop, trainer) is not None:
            return
        started = time.perf_counter()
        context = self._context(trainer, module, step)
        versions = [parameter._version for parameter in module.parameters()]
        try:
            with ExitStack() as within:
                within.enter_context(random_state_kept(context.device))
                within.enter_context(torch.inference_mode(False))  # Lightning's validation is in it
                within.enter_context(torch.no_grad())
                if self.config.trainer.compile:  # as the evaluation of a checkpoint, and so that nothing is recompiled
                    within.enter_context(torch.compiler.set_stance("force_eager"))
                seed_generators(step_seed(self.config.seed, step, -1, 0))  # whoever draws does so anew after a resume
                rows = run_evaluations(due, context)
                context.gather(None)
        except Interrupted as interrupted:
            if not interrupted.agreed:  # the others may be waiting for this process
                with suppress(Interrupted):
                    context.gather(None)
            self.say(f"step {step}  evaluation interrupted; `lmexp resume` begins with it")
            return
        if versions != [parameter._version for parameter in module.parameters()]:
            raise ConfigError(
                f"an evaluation at step {step} ({', '.join(due)}) changed weights of the model, which training goes on "
                f"with; let it work on a copy.deepcopy of context.model"
            )
        self._done_step = step
        seconds = time.perf_counter() - started
        self.pause(seconds)
        self._log(step, rows, seconds)
        for name, samples in context.samples.items():
            self._log_texts(step, name, texts_of(samples))

    def _log_texts(self, step: int, name: str, texts: list[tuple[str, int, str]]) -> None:
        """Show them in the mirror, and the beginning of the first as a line."""
        if not texts:
            return
        if self.tracker is not None:
            self.tracker.texts(name, texts, step=step)
        prompt, _, text = texts[0]
        shown = f"{prompt}{text}"
        self.say(f"step {step}  {name}  {shown[:SHOWN_CHARACTERS]!r}{'...' if len(shown) > SHOWN_CHARACTERS else ''}")

    def _log(self, step: int, rows: list[Row], seconds: float) -> None:
        estimates = {row.name: float(row.estimate) for row in rows if row.estimate is not None}
        if self.tracker is not None:
            if estimates:
                ends = {
                    f"{PREFIX}{row.name}/{end}": float(value)
                    for row in rows
                    for end, value in (("low", row.low), ("high", row.high))
                    if row.name in estimates and value is not None
                }
                found = {f"{PREFIX}{name}": value for name, value in estimates.items()}
                self.tracker.metrics(step, found, unmirrored=ends)
            self.tracker.timings(step, {"evaluation_seconds": seconds})
        lines: dict[str, list[str]] = {}
        for name, value in estimates.items():
            evaluation, _, what = name.partition("/")
            lines.setdefault(evaluation, []).append(f"{what} {figure(value)}")
        for evaluation, figures in lines.items():
            self.say(f"step {step}  {evaluation}  {'  '.join(figures)}")
        for row in rows:
            if row.estimate is None and row.name not in self._told:
                self._told.add(row.name)
                self.say(f"step {step}  {row.name}  {row.status}")

    def _progress(self, step: int, what: str, done: int, total: int) -> None:
        """Ends an evaluation between two batches where a signal asks for it."""
        if self.stop.received is not None:
            raise Interrupted(agreed=False)
        self.busy(f"evaluating {what}", step, done, total)

    def _context(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> EvaluationContext:
        data, settings, device = self.config.data, self.config.trainer, trainer.strategy.root_device
        average = self.average.average if self.average is not None else None
        model = module.model if isinstance(module, Task) else module
        ema = None if average is None else partial(_averaged, module, lambda: average)
        if self.make_model is not None:
            model = _whole_model(self.make_model, model, device)
            ema = None if average is None else partial(_averaged, model, partial(_whole_average, average))
        return EvaluationContext(
            model=model,
            cache=self.cache,
            sequence_length=data.sequence_length if isinstance(data, CorpusConfig) else 0,
            windows=data.windows if isinstance(data, CorpusConfig) else "stream",
            device=device,
            dtype_context=autocast(settings.precision, device),
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            progress=partial(self._progress, step),
            tokenizer=self.cache.tokenizer if self.cache is not None else None,
            folder=self.run_dir / EVALUATION_DIR,
            settings={"precision": settings.precision, "device": device.type},
            items=self.items,
            step=step,
            ema=ema,
            asked_to_stop=lambda: self.stop.received is not None,
        )


@contextmanager
def _averaged(module: nn.Module, average: Callable[[], Mapping[str, Tensor]]) -> Iterator[str]:
    """The average in the module for a while. Nobody computes a digest of weights in memory: no table is taken over."""
    with in_place_of_weights(module, average()):
        yield ""


def _whole_model(make_model: Callable[[], nn.Module], sharded: nn.Module, device: torch.device) -> nn.Module:
    """A copy of a sharded model, which each process computes when it likes. All processes must call this."""
    with random_state_kept(device), torch.inference_mode(False):
        model = make_model().to(device, next(sharded.parameters()).dtype)
    put_together(model, sharded)
    return model


def _whole_average(average: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A sharded average put together, under the model's own names. All processes must call this."""
    return {name.removeprefix(checkpoints.PREFIX): whole(tensor) for name, tensor in average.items()}
