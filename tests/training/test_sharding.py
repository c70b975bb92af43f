"""Two processes that keep a part of the model each train what one process trains, and leave what one leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lmexp.training import checkpoints
from lmexp.training.sharding import blocks
from tests.evaluation.tiny import make_cache
from tests.training.fitting import SPLITS
from tests.training.sharded import SCENARIOS, STOPPED_AT, Odd, run, start

TOLERANCE = {"bf16": 5e-3, "bf16-true": 2e-2}
"""Of figures, relative, where it isn't float32."""
MOST_MOVED = 2e-2
"""Of weights then: Adam moves one by the learning rate whichever sign its tiny gradient is rounded to."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """one/NAME by one process, two/NAME by two; and runs that went on with another number of processes."""
    folder = tmp_path_factory.mktemp("fsdp")
    (folder / "cache").mkdir()
    (folder / "two").mkdir()
    cache = make_cache(folder / "cache", SPLITS)
    for name in SCENARIOS:
        run(folder / "one" / name, name, cache)
    for name in ("gpt", "custom"):
        run(folder / "two" / f"{name}-from-one", name, cache, f"trainer.max_steps={STOPPED_AT}")
    done = start(folder / "two")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("gpt", "custom"):
        shutil.copytree(folder / "two" / f"{name}-to-one", folder / "one" / f"{name}-to-one")
        run(folder / "one" / f"{name}-to-one", name, cache)
    return folder


def rows(folder: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads((folder / "rows.json").read_text())
    return found


def check_same_rows(a: Path, b: Path, rel: float = 1e-5) -> None:
    """Each figure, relative; where that is lax, accuracies, which jump, are left out."""
    one, two = rows(a), rows(b)
    assert one.keys() == two.keys()
    for step, row in one.items():
        assert row.keys() == two[step].keys()
        for key, value in row.items():
            if rel > 1e-5 and key.endswith("accuracy"):
                continue
            assert two[step][key] == pytest.approx(value, rel=rel), (step, key)


def check_same_checkpoints(a: Path, b: Path, *, exactly: bool = False, atol: float = 1e-5) -> None:
    """Names, types, sizes and (nearly) the values of weights, average and optimizer."""
    folders = [checkpoints.steps(path / "checkpoints") for path in (a, b)]
    assert [folder.name for folder in folders[0]] == [folder.name for folder in folders[1]]
    tolerance = {"rtol": 0.0, "atol": 0.0 if exactly else atol}
    for one, two in zip(*folders, strict=True):
        manifests = [checkpoints.verify(folder) for folder in (one, two)]
        assert manifests[0].aliases == manifests[1].aliases
        assert manifests[0].files.keys() == manifests[1].files.keys()
        for file in manifests[0].files.keys() - {checkpoints.STATE}:
            torch.testing.assert_close(*(checkpoints.load_weights(folder, file) for folder in (one, two)), **tolerance)
        (first,), (second,) = (checkpoints.load_state(folder)["optimizer_states"] for folder in (one, two))
        assert first["param_groups"] == second["param_groups"]
        assert list(first["state"]) == list(second["state"])
        torch.testing.assert_close(first["state"], second["state"], **tolerance)


@pytest.mark.parametrize("name", SCENARIOS)
def test_two_sharded_processes_follow_one(runs: Path, name: str) -> None:
    """Loss, learning rate, gradient norm, validation and evaluations on weights and average, tied or not."""
    rel = TOLERANCE.get(name, 1e-5)
    check_same_rows(runs / "one" / name, runs / "two" / name, rel)
    atol = MOST_MOVED if name in TOLERANCE else 1e-5
    check_same_checkpoints(runs / "one" / name, runs / "two" / name, atol=atol)


def test_evaluations_during_training_are_among_them(runs: Path) -> None:
    assert {"evaluation/perplexity/loss", "validation/loss", "train/grad_norm"} <= {
        key for row in rows(runs / "two" / "gpt").values() for key in row
    }


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_process_keeps_a_half(runs: Path, name: str) -> None:
    (whole, first), (also_whole, second) = (
        json.loads((runs / "two" / f"facts-{rank}.json").read_text())[name] for rank in (0, 1)
    )
    assert whole == also_whole == first + second
    assert 0.4 < first / whole < 0.6


@pytest.mark.parametrize("name", ["gpt", "custom"])
def test_a_run_that_was_stopped_ends_in_the_same_bits(runs: Path, name: str) -> None:
    whole, stopped = runs / "two" / name, runs / "two" / f"{name}-stopped"
    check_same_checkpoints(whole, stopped, exactly=True)
    assert rows(stopped) == rows(whole)


@pytest.mark.parametrize("name", ["gpt", "custom"])
@pytest.mark.parametrize("where", ["two/{}-from-one", "one/{}-to-one"])
def test_a_run_goes_on_with_another_number_of_processes(runs: Path, name: str, where: str) -> None:
    check_same_rows(runs / "one" / name, runs / where.format(name))
    check_same_checkpoints(runs / "one" / name, runs / where.format(name))


def test_blocks_are_what_each_list_calls_and_nobody_else_has() -> None:
    model = Odd(vocab_size=10, sequence_length=4)
    assert blocks(model) == list(model.once)


def test_lists_within_a_block_are_no_blocks() -> None:
    """Experts, say, of which a process may compute others than its neighbour."""
    inner = nn.ModuleList([nn.Linear(2, 2)])
    block = nn.Sequential(nn.Linear(2, 2), nn.Sequential(inner))
    nested: Any = nn.ModuleList([nn.ModuleList([block])])
    assert blocks(nn.Sequential(nested)) == [block]
