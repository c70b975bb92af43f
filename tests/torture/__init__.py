"""Runs that are killed at any moment: `python -m tests.torture`, see its --help."""
