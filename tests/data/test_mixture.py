from itertools import pairwise

import numpy as np
import pytest

from lmexp.data import mixture
from lmexp.data.mixture import Schedule, _floor_sum
from lmexp.errors import ConfigError

SHARES = [
    {"only": 1.0},
    {"a": 0.5, "b": 0.5},
    {"a": 0.7, "b": 0.2, "c": 0.1},
    {"a": 0.001, "b": 0.999},
    {f"source_{i}": 1 / 30 for i in range(30)},
]


def sources_one_by_one(schedule: Schedule, first: int, n: int) -> list[int]:
    """The source at each position from the definition, in Python's own numbers."""
    found = []
    for position in range(first, first + n):
        slot = (mixture.STEP * position + schedule.offset) % mixture.N_SLOTS
        found.append(next(i for i, (a, b) in enumerate(pairwise(schedule.borders)) if a <= slot < b))
    return found


def test_floor_sums_equal_a_loop() -> None:
    generator = np.random.default_rng(0)
    for _ in range(500):
        n, modulus, factor, offset = (int(generator.integers(low, 40)) for low in (0, 1, 0, 0))
        assert _floor_sum(n, modulus, factor, offset) == sum((factor * i + offset) // modulus for i in range(n))


@pytest.mark.parametrize(("bits", "step"), [(1, 1), (3, 5), (6, 39)])
def test_every_prefix_of_a_small_schedule_is_counted_exactly(monkeypatch, bits: int, step: int) -> None:
    monkeypatch.setattr(mixture, "N_SLOTS", 1 << bits)
    monkeypatch.setattr(mixture, "STEP", step)
    for shares in ({"a": 0.5, "b": 0.5}, {"a": 1.0}, *([{"a": 0.2, "b": 0.5, "c": 0.3}] if bits > 1 else [])):
        for offset in range(1 << bits):
            schedule = Schedule(shares, seed=0)
            schedule.offset = offset
            counts = [0] * len(shares)
            for n, source in enumerate(sources_one_by_one(schedule, 0, 3 << bits)):
                assert schedule.n_before(n) == counts
                counts[source] += 1
            assert counts == [3 * (b - a) for a, b in pairwise(schedule.borders)]


@pytest.mark.parametrize("shares", SHARES)
def test_each_source_is_read_from_its_start_in_order_without_a_gap(shares: dict[str, float]) -> None:
    schedule = Schedule(shares, seed=5)
    n = 20_000
    sources, own = schedule.locate(np.arange(n))
    assert sources[:2_000].tolist() == sources_one_by_one(schedule, 0, 2_000)
    for source in range(len(shares)):
        mine = own[sources == source]
        assert np.array_equal(mine, np.arange(mine.size))
    for prefix in (0, 1, 777, n):
        assert schedule.n_before(prefix) == np.bincount(sources[:prefix], minlength=len(shares)).tolist()


@pytest.mark.parametrize("first", [0, 1_000_003, 2**32 - 50, 2**44, 2**44 + 12_345])
def test_any_position_is_found_from_nothing(first: int) -> None:
    schedule = Schedule({"a": 0.7, "b": 0.2, "c": 0.1}, seed=1)
    n = 100
    expected_sources = sources_one_by_one(schedule, first, n)
    counts = schedule.n_before(first)
    expected_own = []
    for source in expected_sources:
        expected_own.append(counts[source])
        counts[source] += 1
    assert counts == schedule.n_before(first + n)
    sources, own = schedule.locate(np.arange(first, first + n))
    assert (sources.tolist(), own.tolist()) == (expected_sources, expected_own)
    alone = [schedule.locate(np.array([position])) for position in range(first, first + n)]
    assert [int(own[0]) for _, own in alone] == expected_own


def test_counts_far_out_are_exact() -> None:
    """Any 2^32 positions have every slot once, so a count is whole rounds and the count of what is left."""
    schedule = Schedule({"a": 0.7, "b": 0.2, "c": 0.1}, seed=1)
    widths = [b - a for a, b in pairwise(schedule.borders)]
    sources, _ = schedule.locate(np.arange(9_999))
    rest = np.bincount(sources, minlength=3).tolist()
    assert schedule.n_before(2**44 + 9_999) == [(w << 12) + r for w, r in zip(widths, rest, strict=True)]
    assert sum(schedule.n_before(2**100 + 7)) == 2**100 + 7


def test_positions_may_come_in_any_order_and_far_apart() -> None:
    schedule = Schedule({"a": 0.6, "b": 0.4}, seed=2)
    sources, own = schedule.locate(np.arange(5_000))
    for positions in (np.arange(5_000)[::-7], np.array([4_999, 0, 4_999]), np.array([], np.int64)):
        found = schedule.locate(positions)
        assert np.array_equal(found[0], sources[positions])
        assert np.array_equal(found[1], own[positions])


@pytest.mark.parametrize("shares", SHARES)
def test_a_source_never_strays_far_from_its_share(shares: dict[str, float]) -> None:
    for seed in range(3):
        sources, _ = Schedule(shares, seed).locate(np.arange(200_000))
        for source, share in enumerate(shares.values()):
            had = np.cumsum(sources == source)
            assert np.abs(had - share * np.arange(1, had.size + 1)).max() < 5


def test_seeds_begin_elsewhere_and_the_schedule_never_changes() -> None:
    """Resuming an old run needs the schedule it began with."""
    shares = {"a": 0.5, "b": 0.25, "c": 0.25}
    assert len({Schedule(shares, seed).offset for seed in range(100)}) == 100
    schedule = Schedule(shares, seed=0)
    assert schedule.borders == [0, 2**31, 3 * 2**30, 2**32]
    assert schedule.offset == 3793791033
    assert schedule.locate(np.arange(12))[0].tolist() == [2, 1, 0, 1, 0, 2, 1, 0, 2, 0, 0, 1]
    assert schedule.n_before(10**12) == [499_999_999_998, 250_000_000_001, 250_000_000_001]


def test_a_weight_too_small_for_the_schedule_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"data\.weights\.b is 1e-12 of the sum .* at least 2\.3e-10"):
        Schedule({"a": 1 - 1e-12, "b": 1e-12}, seed=0)
