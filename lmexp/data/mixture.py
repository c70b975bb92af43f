"""Which source of a mixture each position of the training order belongs to, in exact numbers.

Position p has the slot (STEP * p + offset) mod 2^32, and each source owns an interval of the slots as long as its
share. STEP is next to 2^32 over the golden ratio, so the slots of any stretch of positions are spread most evenly
(Fibonacci hashing, Knuth 6.4); of the numbers there it is the one whose continued fraction over 2^32 has the smallest
sum (49, no term above 3; the nearest number itself has a 25). After any n positions each source has had its share of
n, give or take a few: the largest difference among 150 shares at each n up to 10^7 was 5.0, among 1,000 at random n
up to 2^32 it was 5.2. Any 2^32 positions have the shares exactly. The offset depends on the seed.

How many of the first n positions a source has had, and so where its own order stands, is a difference of two sums of
floor(linear), which Euclid's algorithm yields in O(log n) steps: nothing is stored, and no position is far away.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from lmexp.data.order import epoch_keys
from lmexp.errors import ConfigError

Ints = NDArray[np.int64]

SLOT_BITS = 32
N_SLOTS = 1 << SLOT_BITS
STEP = 0x9E3778C1
SEED_STREAM = -1
SPARSE = 64
"""Positions further apart than this on average are looked up one by one."""


class Schedule:
    """Source and own position of each position. shares: name -> share, they sum to 1."""

    def __init__(self, shares: Mapping[str, float], seed: int) -> None:
        borders = [round(end * N_SLOTS) for end in accumulate(shares.values())]
        self.borders = [0, *borders[:-1], N_SLOTS]
        for name, (start, stop) in zip(shares, pairwise(self.borders), strict=True):
            if start >= stop:
                raise ConfigError(
                    f"data.weights.{name} is {shares[name]:.2g} of the sum of the weights; expected at least "
                    f"{1 / N_SLOTS:.2g}; use a larger weight"
                )
        self.offset = int(epoch_keys(np.zeros(1, np.int64), seed, stream=SEED_STREAM)[0]) >> (64 - SLOT_BITS)

    def n_before(self, position: int) -> list[int]:
        """How many of the positions before this one each source has; any size of number."""
        below = [0, *(self._n_below(border, position) for border in self.borders[1:-1]), position]
        return [stop - start for start, stop in pairwise(below)]

    def locate(self, positions: Ints) -> tuple[Ints, Ints]:
        """Number of the source at each of some positions (n,), and its place in that source's own order."""
        if not positions.size:
            return positions, positions
        first = int(positions.min())
        n = int(positions.max()) - first + 1
        if n > SPARSE * positions.size:
            each = [self.locate(positions[i : i + 1]) for i in range(positions.size)]
            return np.concatenate([source for source, _ in each]), np.concatenate([own for _, own in each])
        slots = np.arange(first, first + n).astype(np.uint64) * np.uint64(STEP) + np.uint64(self.offset)
        slots &= np.uint64(N_SLOTS - 1)
        sources = np.searchsorted(np.array(self.borders[1:-1], np.uint64), slots, side="right")
        own = np.empty(n, np.int64)
        for source, n_before in enumerate(self.n_before(first)):
            mine = np.flatnonzero(sources == source)
            own[mine] = np.arange(n_before, n_before + mine.size)
        return sources[positions - first], own[positions - first]

    def _n_below(self, border: int, n: int) -> int:
        """Of the first n slots, those below a border: floor(x / M) + 1 - floor((x + M - border) / M) is 1 for them."""
        rounds, rest = divmod(n, N_SLOTS)
        upper = _floor_sum(rest, N_SLOTS, STEP, self.offset + N_SLOTS - border)
        return rounds * border + rest + _floor_sum(rest, N_SLOTS, STEP, self.offset) - upper


def _floor_sum(n: int, modulus: int, factor: int, offset: int) -> int:
    """The sum of floor((factor * i + offset) / modulus) over i in [0, n); none of them negative.

    >>> _floor_sum(10, 4, 3, 1) == sum((3 * i + 1) // 4 for i in range(10))
    True
    """
    total = 0
    while n:
        whole, factor = divmod(factor, modulus)
        total += whole * (n * (n - 1) // 2)
        whole, offset = divmod(offset, modulus)
        total += whole * n
        n, offset = divmod(factor * n + offset, modulus)
        modulus, factor = factor, modulus
    return total
