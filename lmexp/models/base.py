"""What a language model must offer, whoever wrote it."""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

from torch import Tensor, nn

from lmexp.errors import ConfigError


@runtime_checkable
class LanguageModel(Protocol):
    """An nn.Module from token ids to the logits of each next token, which never looks ahead."""

    max_sequence_length: int
    """Longest sequence it takes, in tokens."""

    def __call__(self, tokens: Tensor) -> Tensor:
        """tokens: (batch, seq) int64 -> logits (batch, seq, vocab)."""
        ...


def as_language_model(model: nn.Module) -> LanguageModel:
    """The same model, or a ConfigError that says what it lacks."""
    if not isinstance(model, LanguageModel):
        raise ConfigError(
            f"{type(model).__name__} is no language model: it has no max_sequence_length, the longest "
            f"sequence it takes; let its __init__ take sequence_length and set self.max_sequence_length to it"
        )
    return cast(LanguageModel, model)
