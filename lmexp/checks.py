"""Checks that many configs make, with one wording."""

from __future__ import annotations

from lmexp.errors import ConfigError
from lmexp.plugins import did_you_mean


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise ConfigError unless value is allowed."""
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(allowed)}{did_you_mean(value, allowed)}")


def at_least(name: str, value: float | None, least: float) -> None:
    """Raise ConfigError if value is below least; None passes."""
    if value is not None and value < least:
        raise ConfigError(f"{name} is {value}; expected at least {least}")
