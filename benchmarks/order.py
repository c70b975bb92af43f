"""Microseconds to look up one position of the training order, alone, in corpora of all sizes; and one of many at once.

    python -m benchmarks.order > benchmarks/results/order.md

Some 5 seconds. Wanted: one position alone among 2^44 samples in under 20 microseconds, with no memory that grows with
the corpus (what Python allocates at most in a lookup is shown). The exit code is 1 where that is not reached.
"""

from __future__ import annotations

import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from benchmarks.machine import machine
from lmexp.data.mixture import Schedule
from lmexp.data.order import sample_indices

SIZES = {"2^10": 2**10, "2^27": 2**27, "2^44": 2**44, "2^44 + 1": 2**44 + 1}
BLOCK = 4096
ROUNDS = 15
WANTED = 20.0
"""Microseconds."""


def microseconds(lookup: Callable[[int], object], n: int) -> float:
    """Median of rounds of n lookups, each of another position."""
    rounds = []
    for number in range(ROUNDS):
        started = time.perf_counter()
        for i in range(n):
            lookup((number * n + i) * 1_000_003)
        rounds.append((time.perf_counter() - started) / n * 1e6)
    return statistics.median(rounds)


def peak_bytes(lookup: Callable[[int], object]) -> int:
    """What a lookup allocates at most."""
    lookup(1)
    tracemalloc.start()
    lookup(12_345)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def main() -> int:
    """All sizes."""
    block = np.arange(BLOCK)
    lines = [
        "# One position of the training order",
        "",
        f"Microseconds, medians of {ROUNDS} rounds.",
        "",
        f"| samples | one position alone | bytes allocated | each of {BLOCK:,} at once |",
        "|---|---|---|---|",
    ]
    alone = {}
    for name, n_samples in SIZES.items():

        def one(position: int, n_samples: int = n_samples) -> object:
            return sample_indices([position], n_samples, seed=1)

        def many(position: int, n_samples: int = n_samples) -> object:
            return sample_indices(block + position, n_samples, seed=1)

        alone[name] = microseconds(one, 2_000)
        lines.append(f"| {name} | {alone[name]:.1f} | {peak_bytes(one):,} | {microseconds(many, 5) / BLOCK:.3f} |")
    schedule = Schedule({"a": 0.7, "b": 0.2, "c": 0.1}, seed=1)
    source = microseconds(lambda position: schedule.locate(np.array([position])), 1_000)
    reached = alone["2^44"] < WANTED
    lines += [
        "",
        f"Source and own position in a mixture of three: {source:.1f} microseconds.",
        "",
        f"Wanted: under {WANTED:.0f} among 2^44: {'reached' if reached else 'not reached'}.",
        "",
        machine(),
    ]
    print("\n".join(lines))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
