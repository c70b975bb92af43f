"""Metrics: pure functions, and thin torchmetrics classes that keep sums and counts."""
