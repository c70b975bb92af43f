from pathlib import Path

import numpy as np
import pytest

from lmexp.data.windows import ID_MASK, SOURCE_BITS, evaluation_rows, n_training_windows, training_rows
from lmexp.errors import DataError
from lmexp.metrics.ignore import IGNORE
from tests.data.numbered import corpus, make_cache, some_lengths

LENGTH = 8


def stream_cache(folder: Path, n_tokens: int):
    return make_cache(folder, {"train": {"": [n_tokens]}})


@pytest.mark.parametrize("n_tokens", [8, 9, 15, 16, 22, 23, 24, 30, 100, 1000])
def test_stream_rows_fit_and_do_not_overlap_in_any_epoch(tmp_path: Path, n_tokens: int) -> None:
    rows = training_rows(stream_cache(tmp_path, n_tokens), corpus("stream", LENGTH), seed=3)
    n = rows.n_samples
    ids = rows.ids(np.arange(50 * n))
    tokens, targets, positions, _ = rows.gather(ids)
    assert positions is None
    assert np.array_equal(tokens, ids[:, None] + np.arange(LENGTH))
    assert np.array_equal(targets, tokens + 1)
    assert targets.max() <= n_tokens
    assert rows.n_targets(ids).tolist() == [LENGTH] * (50 * n)
    for epoch in ids.reshape(50, n):
        assert np.all(np.diff(np.sort(epoch)) == LENGTH)


def test_borders_differ_from_epoch_to_epoch(tmp_path: Path) -> None:
    rows = training_rows(stream_cache(tmp_path, 1000), corpus("stream", LENGTH), seed=3)
    phases = rows.ids(np.arange(200) * rows.n_samples) % LENGTH
    assert set(phases.tolist()) == set(range(LENGTH))


def test_an_epoch_leaves_out_less_than_two_rows() -> None:
    for n_tokens in range(8, 200):
        assert n_training_windows(n_tokens, LENGTH) * LENGTH > n_tokens + 1 - 2 * LENGTH


@pytest.mark.parametrize("windows", ["stream", "packed", "padded"])
def test_seeds_give_other_orders(tmp_path: Path, windows: str) -> None:
    cache = make_cache(tmp_path, {"train": {"": some_lengths(300, seed=0)}})
    one, other = (training_rows(cache, corpus(windows, LENGTH), seed).ids(np.arange(100)) for seed in (0, 1))
    assert not np.array_equal(one, other)


def test_just_enough_tokens_are_one_row(tmp_path: Path) -> None:
    rows = training_rows(stream_cache(tmp_path, 8), corpus("stream", LENGTH), seed=0)
    assert rows.ids(np.arange(20)).tolist() == [0] * 20
    assert n_training_windows(256, 256) == 1
    assert n_training_windows(1, 1) == 1


def test_too_few_tokens_are_an_error_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        training_rows(stream_cache(tmp_path, 7), corpus("stream", LENGTH), seed=0)
    assert str(caught.value) == (
        "data.sequence_length=8 needs at least 8 training tokens, found 7; "
        "use data.sequence_length=3 or smaller, or more text"
    )
    cache = make_cache(tmp_path, {"train": {"code": [50], "books": [5, 2]}})
    with pytest.raises(DataError) as caught:
        training_rows(cache, corpus("stream", LENGTH, {"code": 1, "books": 1}), seed=0)
    assert "needs at least 8 training tokens of data.parts.books, found 7;" in str(caught.value)


@pytest.mark.parametrize("windows", ["stream", "packed", "padded"])
def test_no_documents_are_an_error_that_names_the_source(tmp_path: Path, windows: str) -> None:
    cache = make_cache(tmp_path, {"train": {"code": [50], "books": []}})
    with pytest.raises(DataError, match=r"^data\.parts\.books has no training documents.*books\.validation_fraction"):
        training_rows(cache, corpus(windows, LENGTH, {"code": 1, "books": 1}), seed=0)


@pytest.mark.parametrize("windows", ["packed", "padded"])
def test_an_epoch_of_planned_rows_has_every_target_once(tmp_path: Path, windows: str) -> None:
    lengths = some_lengths(200, seed=1)
    cache = make_cache(tmp_path, {"train": {"": lengths}})
    rows = training_rows(cache, corpus(windows, LENGTH), seed=4)
    orders = rows.ids(np.arange(2 * rows.n_samples)).reshape(2, -1)
    assert not np.array_equal(*orders)
    for ids in orders:
        _, targets, _, _ = rows.gather(ids)
        assert np.sort(targets[targets != IGNORE]).tolist() == list(range(1, sum(lengths) + 1))
        assert rows.n_targets(ids).tolist() == (targets != IGNORE).sum(axis=1).tolist()
        assert np.array_equal(rows.n_targets(ids[:6].reshape(2, 3)).ravel(), rows.n_targets(ids[:6]))


def reference_row(starts: list[int], lengths: list[int], windows: str) -> tuple[list[int], list[int], list[int]]:
    """Tokens, targets and positions of a row with these pieces, one by one; 0 is an <eos>."""
    tokens, targets, positions = [], [], []
    for start, length in zip(starts, lengths, strict=True):
        for i in range(length):
            tokens.append(0 if start < 0 else start + i)
            targets.append(IGNORE if start < 0 else start + i + 1)
            positions.append(i)
    return tokens, targets, positions


@pytest.mark.parametrize("windows", ["packed", "padded"])
def test_planned_rows_are_their_pieces_and_an_end(tmp_path: Path, windows: str) -> None:
    cache = make_cache(tmp_path, {"train": {"": some_lengths(100, seed=2)}})
    rows = training_rows(cache, corpus(windows, LENGTH), seed=4)
    ids = rows.ids(np.arange(rows.n_samples))
    tokens, targets, positions, places = rows.gather(ids)
    assert np.array_equal(places, np.where(targets == IGNORE, 0, targets))  # a token tells its place
    n_padded = 0
    for i, row in enumerate(ids):
        starts, lengths = rows.plan.pieces(ids[i : i + 1])
        expected = reference_row(starts.tolist(), lengths.tolist(), windows)
        assert (tokens[i].tolist(), targets[i].tolist()) == expected[:2]
        assert windows == "padded" or positions[i].tolist() == expected[2]
        n_padded += -1 in starts
        assert sum(lengths) == LENGTH, row
    assert n_padded  # the case occurs
    assert (positions is None) == (windows == "padded")


@pytest.mark.parametrize("n_tokens", [1, 7, 8, 9, 16, 99, 136])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("windows", ["stream", "packed", "padded"])
def test_each_token_is_predicted_once(
    tmp_path: Path, windows: str, n_tokens: int, batch_size: int, world_size: int
) -> None:
    lengths = [n_tokens] if n_tokens < 9 else [5, 1, 2, n_tokens - 8]
    cache = make_cache(tmp_path, {"test": {"": lengths}})
    rows = evaluation_rows(cache, "test", windows, LENGTH)
    assert rows.n_targets == n_tokens
    predicted: list[int] = []
    numbers: list[int] = []
    for rank in range(world_size):
        batches = list(rows.batches(batch_size, rank, world_size))
        assert len(batches) == rows.n_batches(batch_size, rank, world_size)
        for batch in batches:
            tokens, targets, _, places = rows.gather(batch)
            assert tokens.shape == targets.shape == places.shape
            assert len(batch) <= batch_size
            there = targets != IGNORE
            assert np.array_equal(tokens[there], targets[there] - 1)
            assert np.array_equal(places, np.where(there, targets, 0))
            numbers += batch.tolist()
            predicted += targets[there].tolist()
    assert sorted(predicted) == list(range(1, n_tokens + 1))
    assert sorted(numbers) == list(range(rows.n_rows))


def test_rows_of_a_rank_come_in_order_and_the_short_one_last_and_alone(tmp_path: Path) -> None:
    rows = evaluation_rows(make_cache(tmp_path, {"test": {"": [39]}}), "test", "stream", LENGTH)
    assert [batch.tolist() for batch in rows.batches(3)] == [[0, 1, 2], [3], [4]]
    assert [batch.tolist() for batch in rows.batches(3, rank=1, world_size=2)] == [[3]]
    assert rows.gather(np.array([4])).tokens.tolist() == [list(range(32, 39))]


def test_a_split_without_documents_has_no_rows(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, {"test": {"": []}})
    for windows in ("stream", "packed", "padded"):
        rows = evaluation_rows(cache, "test", windows, LENGTH)
        assert rows.n_rows == rows.n_targets == rows.n_batches(4) == 0
        assert list(rows.batches(4)) == []


@pytest.mark.parametrize("windows", ["stream", "packed", "padded"])
def test_a_mixture_takes_each_source_from_its_own_range_and_order(tmp_path: Path, windows: str) -> None:
    lengths = {"code": some_lengths(150, seed=1), "books": some_lengths(60, seed=2)}
    cache = make_cache(tmp_path, {"train": lengths})
    rows = training_rows(cache, corpus(windows, LENGTH, {"code": 1, "books": 3}), seed=9)
    assert rows.n_samples == sum(source.n_samples for source in rows.sources)
    ids = rows.ids(np.arange(4_000))
    _, targets, _, _ = rows.gather(ids)
    numbers = ids >> SOURCE_BITS
    assert abs(np.count_nonzero(numbers == 1) - 3_000) < 3
    for number, (name, source) in enumerate(zip(lengths, rows.sources, strict=True)):
        mine = numbers == number
        span = cache.splits["train"].sources[name]
        predicted = targets[mine][targets[mine] != IGNORE]
        assert predicted.min() >= span.start
        assert predicted.max() < span.stop
        assert np.array_equal(ids[mine] & ID_MASK, source.ids(np.arange(np.count_nonzero(mine))))
    assert np.array_equal(rows.n_targets(ids), (targets != IGNORE).sum(axis=1))
    assert np.array_equal(rows.ids(np.arange(4_000)[::-1].reshape(4, -1)).ravel()[::-1], ids)


def test_sources_of_one_size_have_other_orders(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, {"train": {"a": [5] * 200, "b": [5] * 200}})
    rows = training_rows(cache, corpus("padded", LENGTH, {"a": 1, "b": 1}), seed=0)
    one, other = (source.ids(np.arange(100)) - source.first_row for source in rows.sources)
    assert np.count_nonzero(one == other) < 10
