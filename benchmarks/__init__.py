"""Measurements. Each is a module with its own docstring: python -m benchmarks.NAME, in the root of the checkout."""
