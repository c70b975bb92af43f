"""Loss, perplexity, bits per byte and accuracy, the same for any batch size and number of processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from lmexp.errors import DataError
from lmexp.metrics.functional import accuracy, bits_per_byte, perplexity, token_nats
from lmexp.metrics.ignore import IGNORE


class LanguageModelingMetric(Metric):
    """Sums and counts over every target, divided once.

    compute() gives float64 scalars: loss (nats per token), perplexity, accuracy and, where update was given
    bytes, bits_per_byte. Between processes the sums are added up, in the order of the ranks.
    """

    is_differentiable = False
    full_state_update = False

    nats: Tensor
    n_tokens: Tensor
    n_bytes: Tensor
    n_correct: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("nats", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("n_tokens", "n_bytes", "n_correct"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self._has_bytes: bool | None = None

    def update(self, logits: Tensor, targets: Tensor, n_bytes: Tensor | None = None) -> None:
        """Add a batch, or a chunk of one.

        logits: (..., vocab); targets: (...) with IGNORE where nothing is predicted; n_bytes: (...) UTF-8
        bytes of each target, given every time or never.
        """
        if self._has_bytes not in (None, n_bytes is not None):
            raise DataError("some batches have n_bytes and some don't; expected it every time or never")
        self._has_bytes = n_bytes is not None
        counted = targets != IGNORE
        self.nats += token_nats(logits, targets).double().sum()
        self.n_tokens += counted.sum()
        self.n_correct += ((logits.argmax(dim=-1) == targets) & counted).sum()
        if n_bytes is not None:
            self.n_bytes += (n_bytes * counted).sum()

    def compute(self) -> dict[str, Tensor]:
        """The figures by name."""
        if not self.n_tokens:
            raise DataError("no token was measured; expected one target at least: is the split empty?")
        figures = {
            "loss": self.nats / self.n_tokens,
            "perplexity": perplexity(self.nats, self.n_tokens),
            "accuracy": accuracy(self.n_correct.double(), self.n_tokens),
        }
        if self.n_bytes:
            figures["bits_per_byte"] = bits_per_byte(self.nats, self.n_bytes)
        return figures

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._has_bytes = None
