"""Checks that many configs make, with one wording."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from lmexp.errors import ConfigError
from lmexp.plugins import did_you_mean

LARGEST = 2**63 - 1
"""The largest number that a setting takes."""
MOST_NAMED = 3
"""Findings of a kind that an error names."""


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise ConfigError unless value is allowed."""
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(allowed)}{did_you_mean(value, allowed)}")


def at_least(name: str, value: float | None, least: float) -> None:
    """Raise ConfigError if value is below least, or no number that 64 bits hold; None passes."""
    if value is not None and not value >= least:
        raise ConfigError(f"{name} is {value}; expected at least {least}")
    if value is not None and value > LARGEST:
        raise ConfigError(f"{name} is {value}; expected at most {LARGEST}")


def not_empty(name: str, value: str | None, example: str) -> None:
    """Raise ConfigError if text is empty; None passes."""
    if value == "":
        raise ConfigError(f"{name} is empty; expected text, e.g. {name}={example}")


def typed(value: object) -> str:
    """A setting's value as one types it: text as it is, else JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def findings(by_kind: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """A line for each kind of finding that there is, which names the first few."""
    return [
        f"  {what}: {', '.join(names[:MOST_NAMED])}{f' and {len(names) - MOST_NAMED} more' * (len(names) > MOST_NAMED)}"
        for what, names in by_kind
        if names
    ]
