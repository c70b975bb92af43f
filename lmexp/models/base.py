"""What a language model must offer, whoever wrote it."""

from __future__ import annotations

import inspect
from typing import Protocol, cast, runtime_checkable

from torch import Tensor, nn

from lmexp.errors import ConfigError


@runtime_checkable
class LanguageModel(Protocol):
    """An nn.Module from token ids to the logits of each next token, which never looks ahead."""

    max_sequence_length: int
    """Longest sequence it takes, in tokens."""

    def __call__(self, tokens: Tensor) -> Tensor:
        """tokens: (batch, seq) int64 -> logits (batch, seq, vocab).

        May also take positions, (batch, seq) int64 as in lmexp.data.batch.Batch or None: data.windows=packed needs
        a model that does, see takes_positions.
        """
        ...


@runtime_checkable
class TargetScorer(Protocol):
    """A language model that scores targets without the logits of all tokens; evaluations of every token ask it."""

    def score_targets(self, tokens: Tensor, targets: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log-probability of the target after each token, and whether it is the model's first choice, (batch, seq).

        tokens, targets: (batch, seq) token ids; positions: (batch, seq) as in lmexp.data.batch.Batch, or None.
        """
        ...


def as_language_model(model: nn.Module) -> LanguageModel:
    """The same model, or a ConfigError that says what it lacks."""
    if not isinstance(model, LanguageModel):
        raise ConfigError(
            f"{type(model).__name__} is no language model: it has no max_sequence_length, the longest "
            f"sequence it takes; let its __init__ take sequence_length and set self.max_sequence_length to it"
        )
    return cast(LanguageModel, model)


def takes_positions(model: nn.Module) -> bool:
    """Whether its forward has a parameter named positions, so that documents can share a sequence unseen by another."""
    found = inspect.signature(model.forward).parameters.get("positions")
    return found is not None and found.kind in (found.POSITIONAL_OR_KEYWORD, found.KEYWORD_ONLY)


def check_takes_positions(model: nn.Module) -> None:
    """A ConfigError unless the model can be trained with data.windows=packed."""
    if not takes_positions(model):
        raise ConfigError(
            f"data.windows=packed puts several documents into a sequence, but {type(model).__name__}.forward has no "
            f"parameter positions that tells it where each begins; use data.windows=padded or data.windows=stream, "
            f"or write forward(self, tokens, positions=None)"
        )
