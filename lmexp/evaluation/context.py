"""What an evaluation is given: a model, text, and this process's share of the work."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import distributed, nn

from lmexp.errors import DataError

if TYPE_CHECKING:
    from lmexp.data.cache import TokenCache, TokenSplit
    from lmexp.evaluation.samples import Samples
    from lmexp.evaluation.targets import Targets
    from lmexp.tokenizers.base import Tokenizer

T = TypeVar("T")


class Interrupted(BaseException):
    """A process was asked to stop while an evaluation ran, which is to be done anew.

    Not an Exception, so that no evaluation takes it for an error of its own.
    """

    def __init__(self, *, agreed: bool) -> None:
        """agreed: all processes raise this, at the same gather."""
        super().__init__("asked to stop while an evaluation ran")
        self.agreed = agreed


def _silent(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def _never() -> bool:
    """Nobody asks to stop, or whoever does raises an exception."""
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenItems:
    """What a run knows of the files with items that its config names."""

    asked: dict[str, str]
    """Name of an evaluation -> digest of what it asked when the run began."""
    own: bool
    """Whether they may be read: not where the run was made elsewhere or by somebody else."""


@dataclass(kw_only=True, slots=True)
class EvaluationContext:
    """The inputs of every evaluation, the same on all processes but for rank."""

    model: nn.Module
    """Maps tokens (batch, seq) to logits (batch, seq, vocab); with windows=packed it takes positions too."""
    cache: TokenCache | None
    """The tokenized corpus; None where the user's own data module has none."""
    sequence_length: int
    """Tokens in a window."""
    windows: str = "stream"
    """What a window holds: data.windows of the config that the model was trained with."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where the model is."""
    dtype_context: Callable[[], AbstractContextManager[object]] = nullcontext
    """Makes the context manager (autocast) of forward passes."""
    rank: int = 0
    """This process among world_size."""
    world_size: int = 1
    """Processes that share the work."""
    seed: int = 0
    """Seed of resampling."""
    progress: Callable[[str, int, int], None] = _silent
    """Called with what is being done, how many parts are done, and of how many. May raise Interrupted."""
    tokenizer: Tokenizer | None = None
    """The tokenizer that the model was trained with; None where the user's own code has its own way."""
    name: str = ""
    """Of the evaluation that runs, as in the config."""
    folder: Path | None = None
    """evaluation/ of the run folder, where the samples tables go; None keeps them in memory."""
    request: str = ""
    """Of `lmexp evaluate`, whose unfinished files it names; "" where a run evaluates itself."""
    model_digest: str = ""
    """SHA-256 of the weights; "" where it isn't known, and no earlier table is taken over."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What of the config may change a score: precision, device, ... JSON types."""
    samples: dict[str, Samples] = field(default_factory=dict)
    """Tables of the evaluations that ran before, by name, for later ones to derive figures from."""
    again: dict[str, Callable[[EvaluationContext, int, int], Samples]] = field(default_factory=dict)
    """Of those that ran before, by name: makes the table of their first n samples anew, in batches of another size."""
    items: FrozenItems | None = None
    """Where a run evaluates itself; None where somebody asks now, to whom what is wrong is said as an error."""
    step: int | None = None
    """During training, the optimizer steps done: the table is of this step. None where a checkpoint is evaluated."""
    ema: Callable[[], AbstractContextManager[str]] | None = None
    """Puts the moving average of the weights into the model for a while, and yields its model_digest; None where there
    is none."""
    asked_to_stop: Callable[[], bool] = _never
    """Whether this process shall leave the evaluation; looked at whenever processes meet."""

    def gather(self, value: T) -> list[T]:
        """value of every process, in order of rank. All processes must call this.

        Interrupted, on all of them, where one was asked to stop.
        """
        gathered: list[Any] = [(value, self.asked_to_stop())]
        if self.world_size > 1:
            mine, gathered = gathered[0], [None] * self.world_size
            distributed.all_gather_object(gathered, mine)
        if any(asked for _, asked in gathered):
            raise Interrupted(agreed=True)
        return [given for given, _ in gathered]

    def choose_split(self, wanted: str) -> tuple[str, TokenSplit]:
        """The split to score and its name: wanted, or validation where the corpus has no test split.

        DataError, with the reason, where there is neither.
        """
        return choose_split(self.cache, wanted)

    def targets(
        self,
        split: str,
        *,
        windows: str | None = None,
        sequence_length: int | None = None,
        stride: int | None = None,
        max_tokens: int | None = None,
        score_eos: bool = True,
    ) -> Targets:
        """The tokens of a split to score. windows: stream or documents; None, as that of the length, is the model's."""
        from lmexp.evaluation.targets import Showing, Targets

        assert self.cache is not None
        if windows == "documents":
            windows = "padded" if self.windows == "stream" else self.windows
        showing = Showing(
            windows=windows or self.windows,
            sequence_length=sequence_length or self.sequence_length,
            stride=stride,
            max_tokens=max_tokens,
            score_eos=score_eos,
        )
        return Targets(self.cache, split, showing)


def choose_split(cache: TokenCache | None, wanted: str) -> tuple[str, TokenSplit]:
    """The split of a corpus to score and its name, as EvaluationContext.choose_split says."""
    if cache is None:
        raise DataError("the data module has no token cache; evaluate it with evaluation.kind=custom")
    for name in (wanted, "validation") if wanted == "test" else (wanted,):
        split = cache.splits.get(name)
        if split is not None and split.n_tokens:
            return name, split
    key = "test" if wanted == "test" else "validation"
    raise DataError(f"the corpus has no {wanted} split; raise data.{key}_fraction or give more text")


def split_note(wanted: str, chosen: str) -> str:
    """What a definition adds where another split than the wanted one was scored."""
    return "" if wanted == chosen else f"; on {chosen}, since the corpus has no {wanted} split"
