"""The order of training samples, as a pure function of the seed: nothing is shuffled, stored or replayed.

A sample's index is an encrypted position: a Feistel network (Luby & Rackoff 1988) permutes the numbers of
just enough bits to count n_samples, and a result that is no index is encrypted again until it is one (cycle
walking, Black & Rogaway 2002). Each epoch has a key of its own, so each is another permutation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

UInts = NDArray[np.uint64]
Ints = NDArray[np.int64]

N_ROUNDS = 6
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)


def sample_indices(positions: ArrayLike, n_samples: int, seed: int) -> Ints:
    """Index in [0, n_samples) of the sample at each position of the endless training order.

    positions: epoch * n_samples + place in the epoch; any shape. An epoch has each index exactly once.

    >>> sorted(sample_indices(range(5), 5, seed=0).tolist())
    [0, 1, 2, 3, 4]
    """
    given = np.asarray(positions, dtype=np.int64)
    epochs, places = np.divmod(given.reshape(-1), n_samples)
    n_bits = (n_samples - 1).bit_length()
    keys = epoch_keys(epochs, seed, stream=0)
    indices = _feistel(places.astype(np.uint64), keys, n_bits)
    outside = np.flatnonzero(indices >= np.uint64(n_samples))
    while outside.size:
        indices[outside] = _feistel(indices[outside], keys[outside], n_bits)
        outside = outside[indices[outside] >= np.uint64(n_samples)]
    return indices.astype(np.int64).reshape(given.shape)


def epoch_keys(epochs: Ints, seed: int, *, stream: int) -> UInts:
    """64 random bits for each epoch. stream: which of several independent uses of the same seed."""
    start = (seed + int(GOLDEN) * (stream + 1)) & 0xFFFF_FFFF_FFFF_FFFF
    base = _mix(np.array([start], dtype=np.uint64))
    return _mix(base + GOLDEN * (epochs.astype(np.uint64) + np.uint64(1)))


def _feistel(values: UInts, keys: UInts, n_bits: int) -> UInts:
    """A permutation of [0, 2**n_bits) for each key."""
    low_bits = np.uint64(n_bits // 2)
    low_mask = np.uint64((1 << (n_bits // 2)) - 1)
    high_mask = np.uint64((1 << (n_bits - n_bits // 2)) - 1)
    low, high = values & low_mask, values >> low_bits
    for _ in range(N_ROUNDS):
        high = high ^ (_mix(low ^ keys) & high_mask)
        keys = keys + GOLDEN
        low = low ^ (_mix(high ^ keys) & low_mask)
        keys = keys + GOLDEN
    result: UInts = (high << low_bits) | low
    return result


def _mix(values: UInts) -> UInts:
    """Bits that each depend on all bits of the value (SplitMix64's finalizer, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * MIX_1
    values = (values ^ (values >> np.uint64(27))) * MIX_2
    return values ^ (values >> np.uint64(31))
