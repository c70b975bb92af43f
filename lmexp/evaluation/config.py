"""Configs of the evaluations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmexp import plugins
from lmexp.checks import at_least, one_of

if TYPE_CHECKING:
    from lmexp.evaluation.runner import Evaluation

SPLITS = ("train", "validation", "test")
RAW, EMA = "raw", "ema"


@dataclass(kw_only=True, slots=True)
class EvaluationConfig:
    """One thing to measure."""

    kind: str = "???"
    split: str = "test"
    """What to score: train, validation or test; validation stands in where the corpus has no test split."""
    every_n_steps: int | None = None
    """Also during training, every so many optimizer steps; null: only at the end."""
    weights: str = RAW
    """Which weights: raw, those of the optimizer, or ema, their moving average (see trainer.ema_decay)."""

    def __post_init__(self) -> None:
        one_of("evaluation.split", self.split, SPLITS)
        at_least("evaluation.every_n_steps", self.every_n_steps, 1)
        one_of("evaluation.weights", self.weights, (RAW, EMA))

    def needs(self) -> tuple[str, ...]:
        """Splits of the corpus without which there is nothing to measure."""
        return ()

    def build(self) -> Evaluation:
        """The evaluation, ready to run."""
        raise NotImplementedError(f"{type(self).__name__}.build")


@dataclass(kw_only=True, slots=True)
class PerplexityConfig(EvaluationConfig):
    """Loss, perplexity, bits per byte and next-token accuracy over every token of a split."""

    kind: str = "perplexity"
    batch_size: int = 16
    """Windows in a forward pass of one process; changes the speed and the memory, never the figures."""
    max_tokens: int | None = None
    """Score only this many tokens from the start of the split, the same for any data.windows; null scores all."""

    def __post_init__(self) -> None:
        EvaluationConfig.__post_init__(self)
        at_least("evaluation.perplexity.batch_size", self.batch_size, 1)
        at_least("evaluation.perplexity.max_tokens", self.max_tokens, 1)

    def needs(self) -> tuple[str, ...]:
        return (self.split,)

    def build(self) -> Evaluation:
        from lmexp.evaluation.perplexity import Perplexity

        return Perplexity(self)


@dataclass(kw_only=True, slots=True)
class BaselinesConfig(EvaluationConfig):
    """Unigram and bigram models fitted on the training tokens, and how much better the model is."""

    kind: str = "baselines"

    def needs(self) -> tuple[str, ...]:
        return (self.split, "train")

    def build(self) -> Evaluation:
        from lmexp.evaluation.baselines import Baselines

        return Baselines(self)


@dataclass(kw_only=True, slots=True)
class CustomEvaluationConfig(EvaluationConfig):
    """A class of the user's with run(context) -> list[Row]; it may take split."""

    kind: str = "custom"
    target: str = ""
    """my_pkg.module:ClassName, in a package trusted with -p my_pkg."""
    args: dict[str, Any] = field(default_factory=dict)
    """Arguments of the class, checked against its signature."""

    def __post_init__(self) -> None:
        EvaluationConfig.__post_init__(self)
        plugins.check_target("evaluation", self.target)

    def build(self) -> Evaluation:
        built: Evaluation = plugins.construct("evaluation", self.target, self.args, facts={"split": self.split})
        return built
