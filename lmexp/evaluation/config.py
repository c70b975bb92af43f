"""Configs of the evaluations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmexp import plugins
from lmexp.checks import at_least, one_of
from lmexp.errors import ConfigError

if TYPE_CHECKING:
    from lmexp.evaluation.runner import Evaluation

SPLITS = ("train", "validation", "test")


@dataclass(kw_only=True, slots=True)
class EvaluationConfig:
    """One thing to measure."""

    kind: str = "???"
    split: str = "test"
    """What to score: train, validation or test; validation stands in where the corpus has no test split."""

    def __post_init__(self) -> None:
        one_of("evaluation.split", self.split, SPLITS)

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

    def build(self) -> Evaluation:
        from lmexp.evaluation.perplexity import Perplexity

        return Perplexity(self)


@dataclass(kw_only=True, slots=True)
class BaselinesConfig(EvaluationConfig):
    """Unigram and bigram models fitted on the training tokens, and how much better the model is."""

    kind: str = "baselines"

    def build(self) -> Evaluation:
        from lmexp.evaluation.baselines import Baselines

        return Baselines(self)


@dataclass(kw_only=True, slots=True)
class VarianceConfig(EvaluationConfig):
    """How much scores hang on prompt, order of the choices and solved items, where others asked in several ways."""

    kind: str = "variance"

    def build(self) -> Evaluation:
        from lmexp.evaluation.variance import Variance

        return Variance(self)


@dataclass(kw_only=True, slots=True)
class InvarianceConfig(EvaluationConfig):
    """Whether the batch size changes answers: the evaluations that ran are scored again in part."""

    kind: str = "invariance"
    batch_sizes: list[int] = field(default_factory=lambda: [1, 8, 32])
    """Each scores the same samples."""
    n_samples: int = 64
    """How many of each evaluation, from the start of its table."""

    def __post_init__(self) -> None:
        EvaluationConfig.__post_init__(self)
        at_least("evaluation.invariance.n_samples", self.n_samples, 1)
        if len(set(self.batch_sizes)) < max(2, len(self.batch_sizes)) or min(self.batch_sizes) < 1:
            raise ConfigError(
                f"evaluation.invariance.batch_sizes is {list(self.batch_sizes)}; expected two numbers or more from 1 "
                f"on, e.g. [1,8,32]"
            )

    def build(self) -> Evaluation:
        from lmexp.evaluation.invariance import Invariance

        return Invariance(self)


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
