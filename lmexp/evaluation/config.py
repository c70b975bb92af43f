"""Configs of the evaluations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmexp import plugins
from lmexp.checks import at_least, one_of
from lmexp.errors import ConfigError

if TYPE_CHECKING:
    from lmexp.evaluation.runner import Evaluation

SPLITS = ("train", "validation", "test")
WINDOWS = ("stream", "documents")
RAW, EMA = "raw", "ema"
TEXT = "samples"
"""Kind of the evaluation that has a model write text."""
NAME = re.compile(r"\w[\w-]*")
"""Of an evaluation in a config: it names a folder and figures."""


def check_names(names: Iterable[str]) -> None:
    """ConfigError unless each can name a folder, and no path out of it."""
    for name in names:
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"evaluation has the name {name[:80]!r}; expected letters, digits, _ and - (it names a folder and "
                f"figures)"
            )


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


def refuse_split(config: EvaluationConfig, instead: str) -> None:
    """ConfigError where a split is chosen for an evaluation that reads none of the corpus."""
    if config.split != "test":
        raise ConfigError(
            f"evaluation.{config.kind}.split is {config.split!r}, but this evaluation reads no split of the corpus; "
            f"{instead}, and leave split out"
        )


@dataclass(kw_only=True, slots=True)
class DerivedConfig(EvaluationConfig):
    """Figures that follow from what other evaluations found."""

    def __post_init__(self) -> None:
        EvaluationConfig.__post_init__(self)
        refuse_split(self, "it derives from the evaluations beside it: choose their data")


@dataclass(kw_only=True, slots=True)
class PerplexityConfig(EvaluationConfig):
    """Loss, perplexity, bits per byte and next-token accuracy over every token of a split."""

    kind: str = "perplexity"
    batch_size: int = 16
    """Windows in a forward pass of one process; changes the speed and the memory, never the figures."""
    max_tokens: int | None = None
    """Score only this many tokens from the start of the split, the same for any data.windows; null scores all."""
    windows: str | None = None
    """stream, or documents for each by itself; null is what the model was trained on (data.windows)."""
    sequence_length: int | None = None
    """Tokens in a window, no more than the model takes; null is data.sequence_length."""
    stride: int | None = None
    """Tokens from one window's end to the next's: the rest of a window is context. With the whole length these are
    lm-eval's windows. null puts them side by side; otherwise both figures are reported."""
    score_eos: bool = True
    """Whether predicting that a document ends counts; lm-eval doesn't ask for it."""

    def __post_init__(self) -> None:
        EvaluationConfig.__post_init__(self)
        for name in ("batch_size", "max_tokens", "sequence_length", "stride"):
            at_least(f"evaluation.perplexity.{name}", getattr(self, name), 1)
        if self.windows is not None:
            one_of("evaluation.perplexity.windows", self.windows, WINDOWS)
        if self.stride is not None and self.sequence_length is not None and self.stride > self.sequence_length:
            raise ConfigError(
                f"evaluation.perplexity.stride ({self.stride}) must not be larger than "
                f"evaluation.perplexity.sequence_length ({self.sequence_length}): tokens would be left out"
            )

    def needs(self) -> tuple[str, ...]:
        return (self.split,)

    def build(self) -> Evaluation:
        from lmexp.evaluation.perplexity import Perplexity

        return Perplexity(self)


@dataclass(kw_only=True, slots=True)
class BaselinesConfig(EvaluationConfig):
    """What counting and guessing reach, and how much better the model is: unigram and bigram models fitted on the
    training tokens; chance and the most frequent choice on the questions that other evaluations ask."""

    kind: str = "baselines"

    def needs(self) -> tuple[str, ...]:
        return (self.split, "train")

    def build(self) -> Evaluation:
        from lmexp.evaluation.baselines import Baselines

        return Baselines(self)


@dataclass(kw_only=True, slots=True)
class CalibrationConfig(DerivedConfig):
    """Whether the answers to questions with choices are right as often as the model is sure of them."""

    kind: str = "calibration"
    of: list[str] = field(default_factory=list)
    """Names of the evaluations to derive from; empty takes all with choices that run beside it."""
    bins: list[int] = field(default_factory=lambda: [10, 15])
    """Numbers of bins of equal mass for the calibration error; the first is drawn."""

    def __post_init__(self) -> None:
        DerivedConfig.__post_init__(self)
        if not self.bins or min(self.bins) < 1 or len(set(self.bins)) < len(self.bins):
            raise ConfigError(f"evaluation.calibration.bins is {list(self.bins)}; expected different numbers from 1 on")

    def build(self) -> Evaluation:
        from lmexp.evaluation.calibration import Calibration

        return Calibration(self)


@dataclass(kw_only=True, slots=True)
class SelectiveConfig(DerivedConfig):
    """How good the answers to questions with choices are where the model may leave out what it is least sure of."""

    kind: str = "selective"
    of: list[str] = field(default_factory=list)
    """Names of the evaluations to derive from; empty takes all with choices that run beside it."""
    coverage: float = 0.1
    """Share of the answers, the surest ones, of which the accuracy is shown."""

    def __post_init__(self) -> None:
        DerivedConfig.__post_init__(self)
        if not 0 < self.coverage <= 1:
            raise ConfigError(f"evaluation.selective.coverage is {self.coverage}; expected a share above 0, at most 1")

    def build(self) -> Evaluation:
        from lmexp.evaluation.selective import Selective

        return Selective(self)


@dataclass(kw_only=True, slots=True)
class VarianceConfig(DerivedConfig):
    """How much scores hang on prompt, order of the choices and solved items, where others asked in several ways."""

    kind: str = "variance"

    def build(self) -> Evaluation:
        from lmexp.evaluation.variance import Variance

        return Variance(self)


@dataclass(kw_only=True, slots=True)
class InvarianceConfig(DerivedConfig):
    """Whether the batch size changes answers: the evaluations that ran are scored again in part."""

    kind: str = "invariance"
    batch_sizes: list[int] = field(default_factory=lambda: [1, 8, 32])
    """Each scores the same samples."""
    n_samples: int = 64
    """How many of each evaluation, from the start of its table."""

    def __post_init__(self) -> None:
        DerivedConfig.__post_init__(self)
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
class SamplesConfig(EvaluationConfig):
    """Text from the model: fixed prompts continued with fixed seeds. With every_n_steps one sees the model learn."""

    kind: str = TEXT
    prompts: list[str] = field(default_factory=lambda: [""])
    """What is continued; an empty one starts a new document."""
    n_samples: int = 3
    """Texts of each prompt, with the seeds seed, seed + 1, ..."""
    max_new_tokens: int = 200
    """Longest continuation, in tokens."""
    temperature: float = 0.8
    """Divides the logits; 0 always takes the likeliest token."""
    top_k: int | None = None
    """Sample among the k likeliest tokens; null is all of them."""
    top_p: float | None = None
    """Sample among the likeliest tokens that hold this share of the probability; null is all of them."""
    seed: int = 0
    """Of the first text of each prompt: same seed and weights, same text."""

    def __post_init__(self) -> None:
        EvaluationConfig.__post_init__(self)
        refuse_split(self, "it continues prompts: choose them with prompts=[...]")
        if not self.prompts or len(set(self.prompts)) < len(self.prompts):
            raise ConfigError(
                f"evaluation.samples.prompts is {list(self.prompts)}; expected different texts, e.g. ['','The ']"
            )
        for prompt in self.prompts:
            if prompt != prompt.encode(errors="replace").decode():
                raise ConfigError(
                    f"evaluation.samples.prompts has {prompt!r}, with bytes that are no UTF-8 text; expected text"
                )
        for name, least in (("n_samples", 1), ("max_new_tokens", 1), ("temperature", 0), ("top_k", 1), ("seed", 0)):
            at_least(f"evaluation.samples.{name}", getattr(self, name), least)
        if self.temperature == 0 and self.n_samples > 1:
            raise ConfigError(
                f"evaluation.samples.n_samples is {self.n_samples}, but with evaluation.samples.temperature=0 all "
                f"texts of a prompt are the same; set evaluation.samples.n_samples=1, or a temperature above 0"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(
                f"evaluation.samples.top_p is {self.top_p}; expected a share above 0 and up to 1, or null"
            )

    def build(self) -> Evaluation:
        from lmexp.evaluation.generated import GeneratedText

        return GeneratedText(self)


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
