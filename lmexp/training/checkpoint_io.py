"""Checkpoints inside Lightning: how they are written and read, when, and which of them stay."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import CheckpointIO

from lmexp.errors import CheckpointError, Stopped
from lmexp.files import write_atomically
from lmexp.training import checkpoints
from lmexp.training.config import CheckpointConfig
from lmexp.training.signals import StopRequest

FINGERPRINT = "data_fingerprint"
"""Key of a checkpoint's state: of the token cache that it was trained on; None for the user's own data."""


class FolderCheckpointIO(CheckpointIO):
    """Lightning's checkpoint dict as a folder of lmexp.training.checkpoints.

    data_fingerprints: of the data that the run has used, the present one last; others are refused when loading.
    """

    def __init__(self, data_fingerprints: Sequence[str] = ()) -> None:
        self.data_fingerprints = data_fingerprints

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        weights = checkpoint.pop("state_dict")
        checkpoint[FINGERPRINT] = self.data_fingerprints[-1] if self.data_fingerprints else None
        metrics: dict[str, float] = storage_options or {}
        checkpoints.write(Path(path).parent, checkpoint["global_step"], weights, plain(checkpoint), metrics)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        folder = Path(path)
        prefix = checkpoints.verify(folder).prefix
        weights = {f"{prefix}{name}": tensor for name, tensor in checkpoints.load_weights(folder).items()}
        state = checkpoints.load_state(folder)
        trained_on = state.pop(FINGERPRINT, None)
        if trained_on not in self.data_fingerprints and (self.data_fingerprints or trained_on is not None):
            expected = ", ".join(one[:16] for one in self.data_fingerprints) or "none, the data being the user's own"
            raise CheckpointError(
                f"{folder}: it was trained on the data with fingerprint {str(trained_on)[:16]}; expected {expected}, "
                f"the run's own; take the checkpoint away, or accept it: lmexp resume RUN --allow-changed-data"
            )
        return state | {"state_dict": weights}

    def remove_checkpoint(self, path: Any) -> None:
        remove(Path(path))


class CheckpointWriter(Checkpoint):
    """Saves every n optimizer steps, at the best validation, at the last step, and when a signal asks to stop.

    A step that is validated too is saved after its validation, so that a resumed run neither repeats nor skips it.
    """

    def __init__(
        self,
        root: Path,
        config: CheckpointConfig,
        *,
        total_steps: int | None,
        stop: StopRequest,
        before_save: Callable[[], None] | None = None,
    ) -> None:
        """before_save makes durable what must not be younger than the checkpoint: the rows logged so far."""
        self.root = root
        self.config = config
        self.total_steps = total_steps
        self.stop = stop
        self.before_save = before_save
        self.best_value: float | None = None
        self.best_step: int | None = None
        self._saved_step = -1
        self._seen_step = -1
        self._stop_after_validation = False

    def state_dict(self) -> dict[str, Any]:
        return {"best_value": self.best_value, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_value, self.best_step = state_dict["best_value"], state_dict["best_step"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._seen_step = self._saved_step = trainer.global_step
        if trainer.is_global_zero and self.best_step is not None:
            self._point_to_best()
        self.stop.install()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        step = trainer.global_step
        if step == self._seen_step:  # a micro-batch inside an optimizer step
            return
        self._seen_step = step
        stopping = self.stop.agreed(trainer)
        if self._validates_now(trainer):
            self._stop_after_validation = stopping
            return
        if stopping or self._due(step):
            self._save(trainer)
        if stopping:
            raise Stopped(self.stop.state, step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or not trainer.fit_loop.epoch_loop.val_loop or trainer.state.fn != "fit":
            return
        step = trainer.global_step
        improved = self._improved(trainer)
        if improved or self._due(step) or self._stop_after_validation:
            self._save(trainer)
        if improved and trainer.is_global_zero:
            self._point_to_best()
        if self._stop_after_validation:
            raise Stopped(self.stop.state, step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._saved_step != trainer.global_step:
            self._save(trainer)
        self.stop.uninstall()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.stop.uninstall()

    def _due(self, step: int) -> bool:
        return step % self.config.every_n_steps == 0 or step == self.total_steps

    def _validates_now(self, trainer: pl.Trainer) -> bool:
        """Whether Lightning validates right after this batch: its own rule, counted in micro-batches."""
        every = trainer.val_check_batch
        if not trainer.enable_validation or every is None or every == float("inf"):
            return False
        return (trainer.fit_loop.epoch_loop.total_batch_idx + 1) % int(every) == 0

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

    def _save(self, trainer: pl.Trainer) -> None:
        step = trainer.global_step
        if self.before_save is not None:
            self.before_save()
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        path = self.root / checkpoints.folder_name(step)
        trainer.save_checkpoint(path, storage_options=metrics)
        self._saved_step = step
        if trainer.is_global_zero and self.config.keep != "all":
            self._remove_old(step)

    def _point_to_best(self) -> None:
        assert self.best_step is not None
        if (self.root / checkpoints.folder_name(self.best_step)).is_dir():
            write_atomically(self.root / checkpoints.BEST, checkpoints.folder_name(self.best_step) + "\n")

    def _remove_old(self, step: int) -> None:
        """Keep the newest up to this step, and the best. Later ones are damaged: the run went on from before them."""
        until_now = [p.name for p in checkpoints.steps(self.root) if p.name <= checkpoints.folder_name(step)]
        newest = set(until_now[-self.config.keep_last :])
        best = {checkpoints.folder_name(self.best_step)} if self.best_step is not None else set()
        for folder in checkpoints.steps(self.root):
            if folder.name not in newest | best:
                remove(folder)


def keep_at_end(root: Path, keep: str) -> None:
    """Apply `checkpoint.keep` to a run that is done."""
    if keep == "all":
        return
    wanted = {"best": (checkpoints.LATEST, checkpoints.BEST), "last": (checkpoints.LATEST,), "none": ()}[keep]
    kept = [checkpoints.read_pointer(root, name) for name in wanted]
    for name in (checkpoints.LATEST, checkpoints.BEST):
        if name not in wanted:
            (root / name).unlink(missing_ok=True)
    for folder in checkpoints.steps(root):
        if folder not in kept:
            remove(folder)


def remove(folder: Path) -> None:
    """Delete a checkpoint in such a way that no half of it is ever taken for a whole."""
    doomed = folder.with_name(f".{folder.name}.removed.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def plain(value: Any) -> Any:
    """Nested dicts, lists and tuples of plain types and tensors; CheckpointError names what isn't."""
    return _plain(value, "checkpoint")


def _plain(value: Any, where: str) -> Any:
    import torch

    if value is None or isinstance(value, bool | int | float | str | bytes | torch.Tensor):
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
