"""Configs of the tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lmexp import plugins

LANGUAGE_MODELING_METRICS = ("loss", "perplexity", "bits_per_byte", "accuracy")


@dataclass(kw_only=True, slots=True)
class TaskConfig:
    """What a model is trained to do."""

    kind: str = "???"

    def monitors(self) -> tuple[str, ...] | None:
        """Log keys that validation yields; None where only the user's code knows."""
        return None


@dataclass(kw_only=True, slots=True)
class LanguageModelingConfig(TaskConfig):
    """Predict every next token; loss is the sum of nats over the tokens of an optimizer step, divided once."""

    kind: str = "language_modeling"

    def monitors(self) -> tuple[str, ...] | None:
        return tuple(f"validation/{name}" for name in LANGUAGE_MODELING_METRICS)


@dataclass(kw_only=True, slots=True)
class CustomTaskConfig(TaskConfig):
    """A LightningModule of the user's; it may take model, tokenizer, optimizer, scheduler, vocab_size, total_steps."""

    kind: str = "custom"
    target: str = ""
    """my_pkg.module:ClassName, in a package trusted with -p my_pkg."""
    args: dict[str, Any] = field(default_factory=dict)
    """Arguments of the class, checked against its signature."""

    def __post_init__(self) -> None:
        plugins.check_target("task", self.target)
