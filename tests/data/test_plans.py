import itertools
import json
import shutil
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lmexp.data import plans
from lmexp.data.plans import best_fit, make_plan, open_plan
from lmexp.errors import DataError
from tests.data.numbered import make_cache, some_lengths


def best_fit_one_by_one(lengths: list[int], capacity: int) -> list[int]:
    """Room left in each row: the longest piece first, each into the fullest row that takes it, or a new one."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms[rooms.index(min(fitting))] -= length
        else:
            rooms.append(capacity - length)
    return sorted(rooms)


def rooms_left(lengths: np.ndarray, capacity: int) -> list[int]:
    rows = best_fit(lengths, capacity)
    used = np.bincount(rows, weights=lengths).astype(int)
    assert np.array_equal(np.unique(rows), np.arange(used.size))
    return sorted((capacity - used).tolist())


def test_packing_is_best_fit_decreasing_for_all_small_cases() -> None:
    for capacity in (1, 2, 5, 7):
        for n in range(1, 6):
            for lengths in itertools.combinations_with_replacement(range(1, capacity + 1), n):
                assert rooms_left(np.array(lengths), capacity) == best_fit_one_by_one(list(lengths), capacity)


@pytest.mark.parametrize("seed", range(20))
def test_packing_is_best_fit_decreasing(seed: int) -> None:
    generator = np.random.default_rng(seed)
    capacity = int(generator.integers(3, 200))
    lengths = np.clip(generator.exponential(capacity / generator.integers(1, 9), 600).astype(int), 1, capacity)
    assert rooms_left(lengths, capacity) == best_fit_one_by_one(lengths.tolist(), capacity)


def test_rows_stand_in_the_order_of_their_first_pieces() -> None:
    rows = best_fit(np.array(some_lengths(500, seed=0)), 40)
    firsts = [rows.tolist().index(row) for row in range(rows.max() + 1)]
    assert firsts == sorted(firsts)


SPLITS = {
    "train": {"code": some_lengths(300, seed=1), "empty": [], "books": some_lengths(80, seed=2, longest=400)},
    "test": {"code": [16], "empty": [], "books": [1]},
    "validation": {"code": [], "empty": [], "books": []},
}


@pytest.mark.parametrize("block", [1, 7, 1 << 21])
@pytest.mark.parametrize("sequence_length", [1, 16, 100])
@pytest.mark.parametrize("windows", ["packed", "padded"])
def test_a_plan_has_each_target_once_and_no_row_of_two_sources(
    tmp_path: Path, monkeypatch, windows: str, sequence_length: int, block: int
) -> None:
    monkeypatch.setattr(plans, "BLOCK_PIECES", block)
    cache = make_cache(tmp_path, SPLITS)
    plan = make_plan(cache, windows, sequence_length)
    for name, sources in SPLITS.items():
        split = plan.splits[name]
        next_row = n_places = 0
        for source, documents in sources.items():
            found = split.sources[source]
            span = cache.splits[name].sources[source]
            assert found.first_row == next_row
            next_row += found.n_rows
            inputs: Counter[int] = Counter()
            cuts = Counter()
            for row in range(found.first_row, next_row):
                starts, lengths = split.pieces(np.array([row]))
                assert lengths.sum() == sequence_length
                assert lengths.min() > 0
                assert not np.any(starts[:-1] == plans.PADDING)
                there = starts != plans.PADDING
                assert windows == "packed" or there.sum() == 1
                for start, length in zip(starts[there].tolist(), lengths[there].tolist(), strict=True):
                    inputs.update(range(start, start + length))
                    cuts[length] += 1
                n_places += sequence_length
            assert sorted(inputs.elements()) == list(range(span.start - 1, span.stop - 1))
            expected = Counter()
            for length in documents:
                expected[sequence_length] += length // sequence_length
                expected[length % sequence_length] += 1
            del expected[0]
            assert cuts == +expected  # no document is cut more often than it must be
            assert found.n_targets == span.stop - span.start
        assert split.n_rows == next_row
        assert split.n_targets == cache.splits[name].n_tokens
        assert split.padding_share == pytest.approx(1 - split.n_targets / n_places if n_places else 0.0)


def test_packing_wastes_little_where_padding_wastes_most(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, {"train": {"": some_lengths(5_000, seed=3, longest=64)}})
    assert make_plan(cache, "packed", 64).splits["train"].padding_share < 0.001
    assert make_plan(cache, "padded", 64).splits["train"].padding_share > 0.7


@pytest.fixture
def cache(tmp_path: Path):
    return make_cache(tmp_path, {"train": {"": some_lengths(50, seed=4)}})


def test_a_plan_is_made_once(cache) -> None:
    path = make_plan(cache, "packed", 16).path
    assert path == cache.path / "plans" / "packed-16"
    before = {file.name: file.stat().st_mtime_ns for file in path.iterdir()}
    make_plan(cache, "packed", 16)
    assert {file.name: file.stat().st_mtime_ns for file in path.iterdir()} == before
    assert sorted(before) == ["plan.json", "train.lengths", "train.rows", "train.starts"]
    assert [other.name for other in path.parent.iterdir()] == ["packed-16"]  # nothing is left beside it


def test_a_plan_of_another_cache_or_version_is_refused(cache) -> None:
    path = make_plan(cache, "packed", 16).path
    body = json.loads((path / "plan.json").read_text())
    for key, other in {
        "fingerprint": "0" * 64,
        "version": 2,
        "format": "lmexp.cache",
        "windows": "padded",
        "sequence_length": 8,
    }.items():
        (path / "plan.json").write_text(json.dumps({**body, key: other}))
        with pytest.raises(DataError) as caught:
            make_plan(cache, "packed", 16)
        assert str(caught.value) == (
            f"row plan {path} can't be used: plan.json has {key} {other!r}, expected {body[key]!r}; "
            f"delete this folder and it is made again"
        )
    shutil.rmtree(path)
    make_plan(cache, "packed", 16)


ARRAYS = ["train.rows", "train.starts", "train.lengths"]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *itertools.product([*ARRAYS, "plan.json"], ["missing", "short"]),
        ("train.rows", "zeroed"),
        ("plan.json", "zeroed"),
    ],
)
def test_a_damaged_plan_is_refused(cache, name: str, damage: str) -> None:
    file = make_plan(cache, "packed", 16).path / name
    if damage == "missing":
        file.unlink()
    elif damage == "short":
        file.write_bytes(file.read_bytes()[:-4])
    else:
        file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(DataError, match=r"packed-16 can't be used: .*; delete this folder and it is made again"):
        open_plan(cache, "packed", 16)


def test_facts_that_lack_something_are_damage(cache) -> None:
    path = make_plan(cache, "packed", 16).path / "plan.json"
    body = json.loads(path.read_text())
    train = body["splits"]["train"]
    for broken in (
        [],
        {**body, "splits": {"train": {}}},
        {**body, "splits": {"train": {**train, "sources": {"": {}}}}},
    ):
        path.write_text(json.dumps(broken))
        with pytest.raises(DataError, match="delete this folder"):
            open_plan(cache, "packed", 16)


def test_those_who_make_a_plan_at_the_same_time_get_the_same(cache) -> None:
    expected = make_plan(cache, "packed", 16).splits["train"].starts.tolist()
    shutil.rmtree(cache.path / "plans")
    barrier = threading.Barrier(4)

    def make(_: int) -> list[int]:
        barrier.wait()
        return make_plan(cache, "packed", 16).splits["train"].starts.tolist()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(make, range(4))) == [expected] * 4
    assert [path.name for path in (cache.path / "plans").iterdir()] == ["packed-16"]


def test_what_a_killed_process_began_is_removed(cache) -> None:
    for name in (".packed-16-0123abcd", ".packed-8-0123abcd"):
        (cache.path / "plans" / name).mkdir(parents=True)
        (cache.path / "plans" / name / "train.rows").touch()
    for _ in range(2):
        make_plan(cache, "packed", 16)
        left = sorted(path.name for path in (cache.path / "plans").iterdir())
        assert left == [".packed-8-0123abcd", "packed-16"]  # that of another plan may be at work
        (cache.path / "plans" / ".packed-16-89abcdef").mkdir()


def test_a_folder_that_cannot_be_written_is_an_error_with_the_fix(cache) -> None:
    (cache.path / "plans").write_text("a file")
    with pytest.raises(DataError, match=r"can't write the row plan in .*plans: .*; choose another .*data\.cache_dir="):
        make_plan(cache, "packed", 16)
