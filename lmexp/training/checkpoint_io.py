"""Checkpoints inside Lightning: how they are written and read, when, and which of them stay.

A checkpoint is written in a thread, from the very tensors that are being trained: until the next optimizer step nothing
changes them, and that step waits for the thread. So saving takes no memory and, where a step takes longer than writing,
no time; and a kill never costs more than checkpoint.every_n_steps. Sharded weights are put together first: the thread
writes that copy, see fsdp.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import CheckpointIO

from lmexp.errors import CheckpointError, Stopped
from lmexp.files import write_atomically
from lmexp.redaction import redact, redact_text
from lmexp.stopping import StopRequest
from lmexp.training import checkpoints
from lmexp.training.average import AVERAGE
from lmexp.training.config import CheckpointConfig
from lmexp.training.signals import agreed

log = logging.getLogger(__name__)

FINGERPRINT = "data_fingerprint"
"""Key of a checkpoint's state: of the token cache that it was trained on; None for the user's own data."""

HYPERPARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters")
"""Keys of a checkpoint's state: what save_hyperparameters() of the user's classes noted."""


@dataclass(kw_only=True, slots=True)
class SaveRequest:
    """What saving needs to know besides Lightning's checkpoint dict: its `storage_options`."""

    metrics: dict[str, float]
    """For the manifest."""
    constant: frozenset[int]
    """data_ptr of the weights that nothing changes before wait(); others are copied at once."""
    background: bool
    """Whether save_checkpoint may return before the checkpoint is on disk."""
    before: Callable[[], None]
    """Called first, in the thread."""
    after: Callable[[], None]
    """Called when LATEST names the checkpoint, in the thread."""


class FolderCheckpointIO(CheckpointIO):
    """Lightning's checkpoint dict as a folder of lmexp.training.checkpoints, written in a thread.

    data_fingerprints: of the data that the run has used, the present one last; others are refused when loading.
    """

    def __init__(self, data_fingerprints: Sequence[str] = ()) -> None:
        self.data_fingerprints = data_fingerprints
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.wait()
        request: SaveRequest = storage_options
        weights = {
            name: tensor if tensor.data_ptr() in request.constant else tensor.clone()
            for name, tensor in checkpoint.pop("state_dict").items()
        }
        average = checkpoint.pop(AVERAGE, None)  # constant as well, see WeightAverage
        checkpoint[FINGERPRINT] = self.data_fingerprints[-1] if self.data_fingerprints else None
        state = plain(checkpoint)

        def work() -> None:
            request.before()
            checkpoints.write(Path(path).parent, state["global_step"], weights, state, request.metrics, average)
            request.after()

        self._pending = self._thread.submit(work)
        if not request.background:
            self.wait()

    def wait(self) -> None:
        """Return when the last checkpoint is on disk and LATEST names it; raise what kept it from getting there."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def teardown(self) -> None:
        self._thread.shutdown()

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        folder = Path(path)
        manifest = checkpoints.verify(folder)

        def named(file: str) -> dict[str, torch.Tensor]:
            return {f"{manifest.prefix}{name}": one for name, one in checkpoints.load_weights(folder, file).items()}

        weights = {"state_dict": named(checkpoints.MODEL)}
        if checkpoints.EMA in manifest.files:
            weights[AVERAGE] = named(checkpoints.EMA)
        state = checkpoints.load_state(folder)
        trained_on = state.pop(FINGERPRINT, None)
        if trained_on not in self.data_fingerprints and (self.data_fingerprints or trained_on is not None):
            expected = ", ".join(one[:16] for one in self.data_fingerprints) or "none, the data being the user's own"
            raise CheckpointError(
                f"{folder}: it was trained on the data with fingerprint {str(trained_on)[:16]}; expected {expected}, "
                f"the run's own; take the checkpoint away, or accept it: lmexp resume RUN --allow-changed-data"
            )
        return state | weights

    def remove_checkpoint(self, path: Any) -> None:
        checkpoints.remove(Path(path))


class CheckpointWriter(Checkpoint):
    """Saves every n optimizer steps, at the best validation, at the last step, and when a signal asks to stop.

    A step that is validated too is saved after its validation, so that a resumed run neither repeats nor skips it.
    """

    def __init__(
        self,
        root: Path,
        config: CheckpointConfig,
        *,
        io: FolderCheckpointIO,
        total_steps: int | None,
        stop: StopRequest,
        background: bool,
        before_save: Callable[[], None] = lambda: None,
    ) -> None:
        """background: nothing but the optimizer's step changes weights, so they may be written meanwhile.

        before_save makes durable what must not be younger than the checkpoint: the rows logged so far.
        """
        self.root = root
        self.config = config
        self.io = io
        self.total_steps = total_steps
        self.stop = stop
        self.background = background
        self.before_save = before_save
        self.best_value: float | None = None
        self.best_step: int | None = None
        self.metrics: dict[str, float] = {}
        """Last figures of each name; Lightning forgets them when a run is resumed."""
        self._saved_step = -1
        self._seen_step = -1

    def state_dict(self) -> dict[str, Any]:
        return {"best_value": self.best_value, "best_step": self.best_step, "metrics": dict(self.metrics)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_value, self.best_step = state_dict["best_value"], state_dict["best_step"]
        self.metrics = dict(state_dict.get("metrics", {}))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and self.best_step is not None:  # also where no step is left to train
            self._point_to_best()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._seen_step = self._saved_step = trainer.global_step
        self.stop.install_again()
        self.stop.deferred = True

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        step = trainer.global_step
        if step == self._seen_step:  # a micro-batch inside an optimizer step
            return
        self._seen_step = step
        if validates_now(trainer):
            return
        stopping = agreed(self.stop, trainer)
        if stopping is not None or self._due(step):
            self._save(trainer)
        if stopping is not None:
            self._stop(stopping, step)

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.io.wait()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or not trainer.fit_loop.epoch_loop.val_loop or trainer.state.fn != "fit":
            return
        step = trainer.global_step
        improved, stopping = self._improved(trainer), agreed(self.stop, trainer)
        if improved or self._due(step) or stopping is not None:
            self._save(trainer, best=improved)
        if stopping is not None:
            self._stop(stopping, step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._saved_step != trainer.global_step:
            self._save(trainer)
        self.io.wait()
        stopping = agreed(self.stop, trainer)  # since the last step
        if stopping is not None:
            raise Stopped(stopping, trainer.global_step)
        self.stop.deferred = False

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        try:
            self.io.wait()
        except Exception:  # what ends the run is the other one
            log.exception("the last checkpoint could not be written")
        self.stop.deferred = False

    def _stop(self, state: str, step: int) -> None:
        self.io.wait()
        raise Stopped(state, step)

    def _due(self, step: int) -> bool:
        return step % self.config.every_n_steps == 0 or step == self.total_steps

    def _improved(self, trainer: pl.Trainer) -> bool:
        """Whether the monitor is better than ever; remembers it."""
        monitored = trainer.callback_metrics.get(self.config.monitor)
        if monitored is None:
            if self.config.keep == "best":
                known = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
                raise CheckpointError(
                    f"checkpoint.monitor is {self.config.monitor!r}, but validation logged {known}; "
                    f"set checkpoint.monitor to one of these, or checkpoint.keep=last"
                )
            return False
        value = float(monitored)
        if not math.isfinite(value):  # nothing would ever be better than NaN
            return False
        better = self.best_value is None or (
            value < self.best_value if self.config.mode == "min" else value > self.best_value
        )
        if better:
            self.best_value, self.best_step = value, trainer.global_step
        return better

    def _save(self, trainer: pl.Trainer, *, best: bool = False) -> None:
        step = trainer.global_step

        def published() -> None:
            if best:  # before what BEST names until now may be removed
                self._point_to_best()
            if self.config.keep != "all":
                self._remove_old(step)

        self.metrics |= {name: float(value) for name, value in trainer.callback_metrics.items()}
        request = SaveRequest(
            metrics=dict(self.metrics),
            constant=frozenset(parameter.data_ptr() for parameter in trainer.lightning_module.parameters()),
            background=self.background,
            before=self.before_save,
            after=published,
        )
        trainer.save_checkpoint(self.root / checkpoints.folder_name(step), storage_options=request)
        self._saved_step = step

    def _point_to_best(self) -> None:
        assert self.best_step is not None
        if (self.root / checkpoints.folder_name(self.best_step)).is_dir():
            write_atomically(self.root / checkpoints.BEST, checkpoints.folder_name(self.best_step) + "\n")

    def _remove_old(self, step: int) -> None:
        """Keep the newest up to this step, the best, and every n-th.

        Later ones are damaged: the run went on from before them.
        """
        until_now = [p.name for p in checkpoints.steps(self.root) if p.name <= checkpoints.folder_name(step)]
        newest = set(until_now[-self.config.keep_last :])
        best = {checkpoints.folder_name(self.best_step)} if self.best_step is not None else set()
        for folder in checkpoints.steps(self.root):
            if folder.name in newest | best or (folder.name in until_now and kept_for_good(folder, self.config)):
                continue
            checkpoints.remove(folder)


def validates_now(trainer: pl.Trainer) -> bool:
    """Whether Lightning validates right after this batch: its own rule, counted in micro-batches."""
    every = trainer.val_check_batch
    if not trainer.enable_validation or every is None or every == float("inf"):
        return False
    return (trainer.fit_loop.epoch_loop.total_batch_idx + 1) % int(every) == 0


def keep_at_end(root: Path, config: CheckpointConfig) -> None:
    """Apply `checkpoint.keep` and `checkpoint.keep_every_n_steps` to a run that is done."""
    if config.keep == "all":
        return
    wanted = {"best": (checkpoints.LATEST, checkpoints.BEST), "last": (checkpoints.LATEST,), "none": ()}[config.keep]
    kept = [checkpoints.read_pointer(root, name) for name in wanted]
    for name in (checkpoints.LATEST, checkpoints.BEST):
        if name not in wanted:
            (root / name).unlink(missing_ok=True)
    for folder in checkpoints.steps(root):
        if folder not in kept and not kept_for_good(folder, config):
            checkpoints.remove(folder)


def kept_for_good(folder: Path, config: CheckpointConfig) -> bool:
    """Whether `checkpoint.keep_every_n_steps` keeps a step's folder."""
    every = config.keep_every_n_steps
    return every is not None and checkpoints.step_of(folder) % every == 0


def plain(value: Any) -> Any:
    """Nested dicts, lists and tuples of plain types and tensors; CheckpointError names what isn't.

    Containers are copies; tensors are too, but for the optimizers' (they only change in an optimizer step). Secrets are
    replaced in hyperparameters, which nothing reads when a run goes on, and refused elsewhere.
    """
    if isinstance(value, dict):
        value = value | {name: redact(value[name]) for name in HYPERPARAMETERS if name in value}
    return _plain(value, "checkpoint")


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, torch.Tensor):
        return value if where.startswith("checkpoint.optimizer_states") else value.clone()
    if isinstance(value, str) and redact_text(value) != value:
        raise CheckpointError(
            f"{where} holds a secret, which must not be in a checkpoint: leave it out of state_dict() or "
            f"on_save_checkpoint(), and read it from the environment again"
        )
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if isinstance(value, dict):
        return {_key(k, where): _plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        items = [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a numpy scalar
        return value.item()
    raise CheckpointError(
        f"{where} is a {type(value).__module__}.{type(value).__qualname__}; a checkpoint holds plain types and tensors "
        f"only, so that it is safe to open: return such from state_dict() or on_save_checkpoint(), or leave it out of "
        f"save_hyperparameters()"
    )


def _key(key: Any, where: str) -> Any:
    if isinstance(key, str | int):
        return key
    raise CheckpointError(f"{where} has the key {key!r}; expected text or a whole number")
