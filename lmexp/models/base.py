"""What a language model must offer, whoever wrote it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeGuard, cast, runtime_checkable

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


class Cache(Protocol):
    """What a model keeps of the tokens it has seen, for each row of a batch. Rows may be of different lengths."""

    def crop(self, lengths: Sequence[int]) -> None:
        """Forget what row i has beyond its first lengths[i] tokens, e.g. what padded a shorter prompt on the right."""
        ...

    def reorder(self, rows: Sequence[int]) -> None:
        """Row i is from now on what row rows[i] was; those named twice are copied, those not named are forgotten."""
        ...


@runtime_checkable
class CachedLanguageModel(Protocol):
    """A language model that goes on from the tokens it has seen, so that a new token costs one step (see decoding/).

    With a cache, model(tokens, cache=cache) takes the next tokens of each row, (batch, new), and gives the logits of
    these alone, (batch, new, vocab): those that model(all tokens of the row) gives at the same places. Afterwards the
    cache has seen them too. Any number of tokens at a time, to any lengths of rows: a batch of prompts is padded on
    the right with any token, and then cropped to the lengths of the prompts:

        cache = model.new_cache(batch_size=2, max_length=100)
        logits = model(torch.tensor([[5, 6, 7], [8, 0, 0]]), cache=cache)  # (2, 3, vocab); take [0, 2] and [1, 0]
        cache.crop([3, 1])
        logits = model(torch.tensor([[9], [4]]), cache=cache)  # (2, 1, vocab), of positions 3 and 1
        cache.reorder([1, 1])  # both rows go on from what the second has seen

    A model without it is decoded by computing the whole text anew for each token, with the same result.
    """

    max_sequence_length: int

    def __call__(self, tokens: Tensor, *, cache: Any = None) -> Tensor:
        """tokens: (batch, new) int64 -> logits (batch, new, vocab)."""
        ...

    def new_cache(self, batch_size: int, max_length: int) -> Any:
        """An empty Cache for batch_size texts of max_length tokens (max_sequence_length at most)."""
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


def takes_cache(model: object) -> TypeGuard[CachedLanguageModel]:
    """Whether it is a CachedLanguageModel: it has new_cache(), and its forward a parameter named cache."""
    return isinstance(model, nn.Module) and isinstance(model, CachedLanguageModel) and _takes(model, "cache")


def takes_positions(model: nn.Module) -> bool:
    """Whether its forward has a parameter named positions, so that documents can share a sequence unseen by another."""
    return _takes(model, "positions")


def _takes(model: nn.Module, name: str) -> bool:
    found = inspect.signature(model.forward).parameters.get(name)
    return found is not None and found.kind in (found.POSITIONAL_OR_KEYWORD, found.KEYWORD_ONLY)


def check_takes_positions(model: nn.Module) -> None:
    """A ConfigError unless the model can be trained with data.windows=packed."""
    if not takes_positions(model):
        raise ConfigError(
            f"data.windows=packed puts several documents into a sequence, but {type(model).__name__}.forward has no "
            f"parameter positions that tells it where each begins; use data.windows=padded or data.windows=stream, "
            f"or write forward(self, tokens, positions=None)"
        )


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch dropout and the like off, and back on afterwards only where they were on."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
