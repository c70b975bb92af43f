"""The order of training samples, as a pure function of the seed: nothing is shuffled, stored or replayed.

A sample's index is an encrypted position: a Feistel network (Luby & Rackoff 1988) permutes the numbers of
just enough bits to count n_samples, and a result that is no index is encrypted again until it is one (cycle
walking, Black & Rogaway 2002). Each epoch has a key of its own, so each is another permutation. Any position of any
order takes the same short time and no memory.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

UInts = NDArray[np.uint64]
Ints = NDArray[np.int64]

N_ROUNDS = 6
MASK = 0xFFFF_FFFF_FFFF_FFFF
GOLDEN_INT, MIX_1_INT, MIX_2_INT = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
GOLDEN, MIX_1, MIX_2 = np.uint64(GOLDEN_INT), np.uint64(MIX_1_INT), np.uint64(MIX_2_INT)


def sample_indices(positions: ArrayLike, n_samples: int, seed: int, *, stream: int = 0) -> Ints:
    """Index in [0, n_samples) of the sample at each position of the endless training order.

    positions: epoch * n_samples + place in the epoch; any shape. An epoch has each index exactly once.
    stream: which of several independent uses of the same seed.

    >>> sorted(sample_indices(range(5), 5, seed=0).tolist())
    [0, 1, 2, 3, 4]
    """
    given = np.asarray(positions, dtype=np.int64)
    if given.size == 1:
        return np.array(_sample_index(given.item(), n_samples, seed, stream), dtype=np.int64).reshape(given.shape)
    epochs, places = np.divmod(given.reshape(-1), n_samples)
    n_bits = (n_samples - 1).bit_length()
    keys = epoch_keys(epochs, seed, stream=stream)
    indices = _feistel(places.astype(np.uint64), keys, n_bits)
    outside = np.flatnonzero(indices >= np.uint64(n_samples))
    while outside.size:
        indices[outside] = _feistel(indices[outside], keys[outside], n_bits)
        outside = outside[indices[outside] >= np.uint64(n_samples)]
    return indices.astype(np.int64).reshape(given.shape)


def epoch_keys(epochs: Ints, seed: int, *, stream: int) -> UInts:
    """64 random bits for each epoch. stream: which of several independent uses of the same seed."""
    start = (seed + GOLDEN_INT * (stream + 1)) & MASK
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


def _sample_index(position: int, n_samples: int, seed: int, stream: int) -> int:
    """sample_indices of one position, in Python's numbers: numpy takes ten times as long over so few."""
    epoch, index = divmod(position, n_samples)
    base = _mix_int((seed + GOLDEN_INT * (stream + 1)) & MASK)
    key = _mix_int((base + GOLDEN_INT * (epoch + 1)) & MASK)
    n_bits = (n_samples - 1).bit_length()
    low_bits = n_bits // 2
    low_mask, high_mask = (1 << low_bits) - 1, (1 << (n_bits - low_bits)) - 1
    while True:
        low, high = index & low_mask, index >> low_bits
        round_key = key
        for _ in range(N_ROUNDS):
            high ^= _mix_int(low ^ round_key) & high_mask
            round_key = (round_key + GOLDEN_INT) & MASK
            low ^= _mix_int(high ^ round_key) & low_mask
            round_key = (round_key + GOLDEN_INT) & MASK
        index = (high << low_bits) | low
        if index < n_samples:
            return index


def _mix_int(value: int) -> int:
    value = ((value ^ (value >> 30)) * MIX_1_INT) & MASK
    value = ((value ^ (value >> 27)) * MIX_2_INT) & MASK
    return value ^ (value >> 31)
