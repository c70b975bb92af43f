import itertools

import numpy as np
import pytest

from lmexp.data.order import epoch_keys, sample_indices


def chi_square_is_plausible(counts: np.ndarray) -> bool:
    """Whether equally likely counts may look like this: within 5 standard deviations."""
    expected = counts.sum() / counts.size
    statistic = float(((counts - expected) ** 2 / expected).sum())
    degrees = counts.size - 1
    return abs(statistic - degrees) < 5 * (2 * degrees) ** 0.5


@pytest.mark.parametrize("n", [*range(1, 301), 1023, 1024, 1025, 4097, 10_007])
def test_each_epoch_is_a_permutation(n: int) -> None:
    indices = sample_indices(np.arange(2 * n), n, seed=7)
    assert np.array_equal(np.sort(indices[:n]), np.arange(n))
    assert np.array_equal(np.sort(indices[n:]), np.arange(n))


def test_epochs_and_seeds_give_other_orders() -> None:
    n = 1000
    orders = [sample_indices(np.arange(n) + epoch * n, n, seed) for epoch in range(3) for seed in (0, 1, -1)]
    for one, other in itertools.combinations(orders, 2):
        assert np.count_nonzero(one == other) < 10  # one on average by chance


def test_an_index_depends_on_nothing_but_seed_and_position() -> None:
    positions = np.arange(5_000)
    whole = sample_indices(positions, 777, seed=3)
    assert np.array_equal(sample_indices(positions[::-1], 777, seed=3)[::-1], whole)
    assert [int(sample_indices([p], 777, seed=3)[0]) for p in (0, 776, 777, 4_999)] == whole[
        [0, 776, 777, 4_999]
    ].tolist()
    assert np.array_equal(sample_indices(positions.reshape(50, 2, 50), 777, seed=3).reshape(-1), whole)


def test_the_order_never_changes() -> None:
    """Resuming an old run needs the order it began with."""
    assert sample_indices(np.arange(10), 10, seed=0).tolist() == [1, 8, 4, 3, 0, 9, 5, 7, 2, 6]
    assert sample_indices([0, 1, 10**12], 2**44, seed=1234).tolist() == [
        2066399159768,
        7021382611137,
        1905854321182,
    ]


@pytest.mark.parametrize("n", [2**44, 2**44 + 1, 3 * 2**40])
def test_samples_of_a_huge_corpus_are_spread_evenly(n: int) -> None:
    indices = sample_indices(np.arange(200_000) + 5 * n, n, seed=11)
    assert indices.min() >= 0
    assert indices.max() < n
    assert len(np.unique(indices)) == 200_000
    for bins in (indices * 64 // n, indices % 64, np.diff(indices) % 61):
        assert chi_square_is_plausible(np.bincount(bins))


def test_every_order_of_four_samples_is_equally_likely() -> None:
    n_epochs = 48_000
    orders = sample_indices(np.arange(4 * n_epochs), 4, seed=5).reshape(n_epochs, 4)
    names = orders @ np.array([64, 16, 4, 1])
    counts = np.unique(names, return_counts=True)[1]
    assert len(counts) == 24
    assert chi_square_is_plausible(counts)


def test_every_sample_is_equally_likely_at_every_place() -> None:
    n, n_epochs = 13, 20_000
    orders = sample_indices(np.arange(n * n_epochs), n, seed=5).reshape(n_epochs, n)
    for place in (0, 6, 12):
        assert chi_square_is_plausible(np.bincount(orders[:, place], minlength=n))
    assert chi_square_is_plausible(np.bincount((orders[:, 1] - orders[:, 0]) % n)[1:])


def test_keys_of_streams_differ() -> None:
    epochs = np.arange(100)
    assert not set(epoch_keys(epochs, 0, stream=0).tolist()) & set(epoch_keys(epochs, 0, stream=1).tolist())


@pytest.mark.parametrize("n", [1, 2, 3, 100, 2**27, 2**44, 2**44 + 1, 3 * 2**40])
def test_one_position_alone_gives_the_same_as_among_many(n: int) -> None:
    positions = np.random.default_rng(0).integers(0, 2**50, 200)
    for seed, stream in ((0, 0), (-3, 5), (2**70, 1)):
        together = sample_indices(positions, n, seed, stream=stream)
        alone = [int(sample_indices(p, n, seed, stream=stream)) for p in positions]
        assert alone == together.tolist()
        assert sample_indices([[positions[0]]], n, seed, stream=stream).shape == (1, 1)


def test_streams_are_other_orders() -> None:
    orders = [sample_indices(np.arange(1000), 1000, seed=0, stream=stream) for stream in range(6)]
    for one, other in itertools.combinations(orders, 2):
        assert np.count_nonzero(one == other) < 10
