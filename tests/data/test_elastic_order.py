"""Which samples a step gets is the same for any number of workers, of ranks and micro-batches, and after any stops."""

import hashlib
import itertools
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lmexp.data.batch import Batch
from lmexp.data.module import TrainingBatches
from lmexp.data.windows import TrainingRows, training_rows
from tests.data.numbered import corpus, make_cache, some_lengths

BATCH = 8
LENGTH = 16
WORKERS = (0, 1, 2, 8)
RANKS = ((1, 1), (1, 4), (2, 1), (2, 2), (4, 1), (4, 2))
"""World sizes, each with micro-batches."""
N_STOPS = 20
STEPS = [1_000, pytest.param(10_000, marks=pytest.mark.slow)]


@pytest.fixture(params=["stream", "packed", "mixture"])
def rows(request, tmp_path: Path) -> TrainingRows:
    """Epochs of some hundred rows."""
    lengths = {"code": some_lengths(500, seed=1), "books": some_lengths(100, seed=2, longest=200)}
    if request.param == "mixture":
        cache = make_cache(tmp_path, {"train": lengths})
        return training_rows(cache, corpus("packed", LENGTH, {"code": 2, "books": 1}), seed=6)
    cache = make_cache(tmp_path, {"train": {"": [*lengths["code"], *lengths["books"]]}})
    return training_rows(cache, corpus(request.param, LENGTH), seed=6)


def ids_of(batch: Batch) -> bytes:
    return batch.sample_ids.numpy().tobytes()


def digest(batches: Iterable[Batch | bytes]) -> str:
    """Of the sample ids, one batch after another."""
    found = hashlib.sha256()
    for batch in batches:
        found.update(batch if isinstance(batch, bytes) else ids_of(batch))
    return found.hexdigest()


def in_order(rows: TrainingRows, step: int, end: int, world_size: int = 1, accumulate: int = 1) -> Iterable[Batch]:
    """The micro-batches of all ranks from a step to before another, in the order of the step's samples."""
    first_step = partial(int, step)
    ranks = [
        iter(
            TrainingBatches(rows, BATCH, accumulate=accumulate, rank=rank, world_size=world_size, first_step=first_step)
        )
        for rank in range(world_size)
    ]
    for _ in range((end - step) * accumulate):
        yield from map(next, ranks)


@pytest.mark.parametrize("n_steps", STEPS)
def test_the_order_is_that_of_the_definition(rows: TrainingRows, n_steps: int) -> None:
    whole = rows.ids(np.arange(n_steps * BATCH))
    assert digest(in_order(rows, 0, n_steps)) == hashlib.sha256(whole.tobytes()).hexdigest()
    assert n_steps * BATCH > 2 * rows.n_samples  # several epochs


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # more workers than cores, on purpose
@pytest.mark.parametrize("n_steps", STEPS)
def test_any_number_of_workers(rows: TrainingRows, n_steps: int) -> None:
    expected = digest(in_order(rows, 0, n_steps))
    before = torch.get_rng_state()
    for n_workers in WORKERS:
        batches = TrainingBatches(rows, BATCH)
        # The workers send nothing but ids: sending tensors takes longer than all else.
        loader = DataLoader(
            batches, batch_size=None, num_workers=n_workers, collate_fn=ids_of, generator=torch.Generator()
        )
        assert digest(itertools.islice(loader, n_steps)) == expected
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("n_steps", STEPS)
def test_any_number_of_ranks_and_micro_batches(rows: TrainingRows, n_steps: int) -> None:
    expected = digest(in_order(rows, 0, n_steps))
    assert {digest(in_order(rows, 0, n_steps, *ranks)) for ranks in RANKS} == {expected}


@pytest.mark.parametrize("n_steps", STEPS)
def test_stops_and_resumes_on_another_number_of_ranks(rows: TrainingRows, n_steps: int) -> None:
    generator = np.random.default_rng(0)
    stops = [0, *sorted(generator.choice(np.arange(1, n_steps), N_STOPS, replace=False).tolist()), n_steps]
    layouts = generator.choice(RANKS, N_STOPS + 1)
    pieces = (
        in_order(rows, first, end, *layout)
        for (first, end), layout in zip(itertools.pairwise(stops), layouts.tolist(), strict=True)
    )
    assert digest(itertools.chain.from_iterable(pieces)) == digest(in_order(rows, 0, n_steps))


def test_a_worker_goes_on_at_the_step_it_is_told(rows: TrainingRows) -> None:
    loader = DataLoader(
        TrainingBatches(rows, BATCH, accumulate=2, first_step=partial(int, 77)), batch_size=None, num_workers=2
    )
    assert digest(itertools.islice(loader, 20)) == digest(in_order(rows, 77, 87))


def test_what_a_step_predicts_is_counted_alike(rows: TrainingRows) -> None:
    whole = [batch.n_step_targets for batch in in_order(rows, 0, 700)]
    assert whole == [batch.n_targets for batch in in_order(rows, 0, 700)]
    for world_size, accumulate in RANKS:
        parts = list(in_order(rows, 0, 700, world_size, accumulate))
        each = np.array([part.n_targets for part in parts]).reshape(700, -1)
        assert each.sum(axis=1).tolist() == whole
        assert [part.n_step_targets for part in parts] == np.repeat(whole, world_size * accumulate).tolist()
