"""Language modeling: predict every next token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from lmexp.metrics.functional import token_nats
from lmexp.metrics.language_modeling import LanguageModelingMetric
from lmexp.tasks.base import Task

if TYPE_CHECKING:
    from lmexp.data.batch import Batch


class LanguageModeling(Task):
    """Cross-entropy of every next token in nats, summed; validation counts exactly, on any number of processes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.validation_metric = LanguageModelingMetric()

    def nats(self, batch: Batch) -> tuple[Tensor, int]:
        return token_nats(self.logits(batch), batch.targets).sum(), batch.n_targets

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.validation_metric.update(self.logits(batch), batch.targets, batch.n_bytes)

    def on_validation_epoch_end(self) -> None:
        figures = {f"validation/{name}": value for name, value in self.validation_metric.compute().items()}
        self.validation_metric.reset()
        # Not self.log: its means over processes are wrong (Lightning #21859), and these are global already.
        self.trainer.callback_metrics.update(figures)
        if self.logger is not None and not self.trainer.sanity_checking:
            self.logger.log_metrics({k: float(v) for k, v in figures.items()}, step=self.trainer.global_step)
