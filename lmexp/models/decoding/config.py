"""How text is made from a model."""

from __future__ import annotations

from dataclasses import dataclass, field

from lmexp.checks import at_least, one_of
from lmexp.errors import ConfigError

EARLY_STOPPING = ("false", "true", "never")


@dataclass(kw_only=True, slots=True)
class DecodingConfig:
    """What is done with the logits, in this order: repetition_penalty, temperature, top_k, top_p, min_p."""

    max_new_tokens: int = 200
    """Longest continuation, in tokens."""
    repetition_penalty: float = 1.0
    """Makes tokens that the text has (prompt included) less likely: their logits are divided by it, or multiplied
    where they are negative (CTRL, arXiv:1909.05858). 1 is none, 1.2 is much."""
    temperature: float = 0.8
    """Divides the logits; 0 always takes the likeliest token."""
    top_k: int | None = 50
    """Sample among the k likeliest tokens; null is all of them."""
    top_p: float | None = None
    """Sample among the likeliest tokens that hold this share of the probability; null is all of them."""
    min_p: float | None = None
    """Sample among tokens at least this share as likely as the likeliest (arXiv:2407.01082); null is all of them."""
    n_beams: int = 1
    """More than 1: beam search for the likeliest continuation, keeping so many; nothing is sampled then."""
    length_penalty: float = 1.0
    """A beam's score is its log-probability over its tokens to this power: above 0 favours long texts, below 0 short
    ones."""
    early_stopping: str = "false"
    """When beam search ends. true: as soon as n_beams texts have ended. false: when, besides, the likeliest that goes
    on scores no better at its length than these. never: when it couldn't at any length."""
    stop: list[str] = field(default_factory=list)
    """Texts that end the continuation, which is cut before them, e.g. stop=END or stop=[END,STOP]."""

    def __post_init__(self) -> None:
        for name, least in (("max_new_tokens", 1), ("top_k", 1), ("n_beams", 1)):
            at_least(name, getattr(self, name), least)
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature is {self.temperature}; expected at least 0 (always the likeliest token)")
        if not 0.01 <= self.repetition_penalty <= 100:
            raise ConfigError(f"repetition_penalty is {self.repetition_penalty}; expected from 0.01 to 100, 1 for none")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; expected a share above 0 and up to 1, or null for all tokens")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ConfigError(f"min_p is {self.min_p}; expected a share from 0 to 1, or null for all tokens")
        if not abs(self.length_penalty) <= 10:
            raise ConfigError(f"length_penalty is {self.length_penalty}; expected from -10 to 10")
        self.early_stopping = str(self.early_stopping).lower()  # YAML and Python have words of their own for these
        one_of("early_stopping", self.early_stopping, EARLY_STOPPING)
        if "" in self.stop:
            raise ConfigError("stop has an empty text, which would end every continuation at once; take it away")
        self._check_beams()

    def _check_beams(self) -> None:
        """What the user has set must have an effect."""
        if self.n_beams > 1:
            chosen = [("temperature", (0, 0.8)), ("top_k", (None, 50)), ("top_p", (None,)), ("min_p", (None,))]
            for name, unused in chosen:
                if getattr(self, name) not in unused:
                    raise ConfigError(
                        f"{name}={getattr(self, name)} is for sampling, but n_beams={self.n_beams} searches the "
                        f"likeliest text and samples nothing; take {name} away, or n_beams"
                    )
        elif self.length_penalty != 1 or self.early_stopping != "false":
            name = "length_penalty" if self.length_penalty != 1 else "early_stopping"
            raise ConfigError(
                f"{name}={getattr(self, name)} is for beam search, but n_beams=1 is none; set n_beams=4, or take "
                f"{name} away"
            )
