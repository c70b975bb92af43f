import numpy as np
import pytest

from lmexp.data.windows import EvaluationWindows, TrainingWindows, n_training_windows
from lmexp.errors import DataError


class Stream:
    """Stands for a TokenSplit: token i is i, and has i % 5 bytes."""

    def __init__(self, n_tokens: int) -> None:
        self.n_tokens = n_tokens

    def windows(self, starts, length):
        rows = starts[:, None] + np.arange(length)
        assert rows.min() >= 0
        assert rows.max() < self.n_tokens
        return rows

    def window_bytes(self, starts, length):
        return self.windows(starts, length) % 5


@pytest.mark.parametrize("n_tokens", [9, 10, 16, 17, 23, 24, 25, 31, 100, 1001])
def test_training_windows_fit_and_do_not_overlap_in_any_epoch(n_tokens: int) -> None:
    windows = TrainingWindows(Stream(n_tokens), 8, seed=3)
    n = windows.n_samples
    starts = windows.starts(np.arange(50 * n))
    assert windows.gather(starts).shape == (50 * n, 9)
    for epoch in starts.reshape(50, n):
        assert np.all(np.diff(np.sort(epoch)) == 8)


def test_borders_differ_from_epoch_to_epoch() -> None:
    windows = TrainingWindows(Stream(1000), 8, seed=3)
    phases = windows.starts(np.arange(200) * windows.n_samples) % 8
    assert set(phases.tolist()) == set(range(8))


def test_an_epoch_leaves_out_less_than_two_windows() -> None:
    for n_tokens in range(9, 200):
        assert n_training_windows(n_tokens, 8) * 8 > n_tokens - 2 * 8


def test_seeds_give_other_starts() -> None:
    one, other = (TrainingWindows(Stream(1000), 8, seed).starts(np.arange(100)) for seed in (0, 1))
    assert not np.array_equal(one, other)


def test_just_enough_tokens_are_one_window() -> None:
    assert TrainingWindows(Stream(9), 8, seed=0).starts(np.arange(20)).tolist() == [0] * 20
    assert n_training_windows(257, 256) == 1
    assert n_training_windows(2, 1) == 1


def test_too_few_tokens_are_an_error_with_the_fix() -> None:
    with pytest.raises(DataError) as caught:
        TrainingWindows(Stream(8), 8, seed=0)
    assert str(caught.value) == (
        "data.sequence_length=8 needs at least 9 training tokens, found 8; "
        "use data.sequence_length=4 or smaller, or more text"
    )


@pytest.mark.parametrize("n_tokens", [2, 8, 9, 10, 17, 100, 137])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_each_token_but_the_first_is_predicted_once(n_tokens: int, batch_size: int, world_size: int) -> None:
    windows = EvaluationWindows(Stream(n_tokens), 8)
    predicted, numbers = [], []
    for rank in range(world_size):
        batches = list(windows.batches(batch_size, rank, world_size))
        assert len(batches) == windows.n_batches(batch_size, rank, world_size)
        for batch in batches:
            tokens, n_bytes = windows.gather(batch)
            assert tokens.shape == (len(batch), n_bytes.shape[1] + 1)
            assert np.array_equal(n_bytes, tokens[:, 1:] % 5)
            assert len(batch) <= batch_size
            numbers += batch.tolist()
            predicted += tokens[:, 1:].reshape(-1).tolist()
    assert sorted(predicted) == list(range(1, n_tokens))
    assert sorted(numbers) == list(range(windows.n_windows))


def test_windows_of_a_rank_come_in_order_and_the_short_one_last_and_alone() -> None:
    windows = EvaluationWindows(Stream(40), 8)
    assert [batch.tolist() for batch in windows.batches(3)] == [[0, 1, 2], [3], [4]]
    assert [batch.tolist() for batch in windows.batches(3, rank=1, world_size=2)] == [[3]]
    assert windows.gather(np.array([4]))[0].tolist() == [list(range(32, 40))]
