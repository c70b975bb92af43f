"""The target that is none. It stands by itself, for modules that don't need torch."""

IGNORE = -100
"""A target with this value is not predicted: torch's own default."""
