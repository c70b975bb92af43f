"""The moving average of the weights: what five lines of Python compute, in every checkpoint."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch

from lmexp.errors import CheckpointError, ConfigError
from lmexp.tasks.language_modeling import LanguageModeling
from lmexp.training import checkpoints
from lmexp.training.average import average_of, distinct, in_place_of_weights
from lmexp.training.checkpoints import EMA
from lmexp.training.config import TrainerConfig
from tests.evaluation.tiny import TinyModel, make_cache
from tests.training.fitting import SPLITS, STEPS, fit, make_config

DECAY = 0.9
SETTINGS = (f"trainer.ema_decay={DECAY}", "checkpoint.every_n_steps=1", "model.dropout=0.1")


def averages_of(root: Path) -> dict[int, dict[str, torch.Tensor]]:
    return {checkpoints.step_of(folder): checkpoints.load_weights(folder, EMA) for folder in checkpoints.steps(root)}


@pytest.mark.parametrize(("precision", "accumulate"), [("32", 1), ("32", 2), ("bf16-true", 2), ("64", 1)])
def test_every_checkpoint_holds_what_five_lines_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, accumulate: int
) -> None:
    initial: dict[str, torch.Tensor] = {}
    start = LanguageModeling.on_train_start

    def noted(self: Any) -> None:
        initial.update({name: tensor.clone() for name, tensor in self.model.state_dict().items()})
        start(self)

    monkeypatch.setattr(LanguageModeling, "on_train_start", noted)
    more = (f"trainer.precision={precision}", f"trainer.accumulate_grad_batches={accumulate}")
    fit(tmp_path / "run", make_config("stream", *SETTINGS, *more), make_cache(tmp_path, SPLITS))
    found = averages_of(tmp_path / "run" / "checkpoints")
    assert list(found) == list(range(1, STEPS + 1))

    wide = torch.float64 if precision == "64" else torch.float32
    expected = {name: tensor.to(wide) for name, tensor in initial.items()}
    for step in range(1, STEPS + 1):
        weights = checkpoints.load_weights(tmp_path / "run" / "checkpoints" / checkpoints.folder_name(step))
        expected = {name: DECAY * e + (1 - DECAY) * weights[name].to(wide) for name, e in expected.items()}
        for name, tensor in expected.items():
            assert found[step][name].dtype == wide
            torch.testing.assert_close(found[step][name], tensor, rtol=1e-6, atol=1e-8)
    assert any(not torch.equal(found[STEPS][name], weights[name].to(wide)) for name in weights)


def test_a_run_that_goes_on_has_the_average_of_one_that_was_never_interrupted(tmp_path: Path) -> None:
    cache, settings = make_cache(tmp_path, SPLITS), (*SETTINGS, "scheduler=constant")
    fit(tmp_path / "whole", make_config("stream", *settings), cache)
    fit(tmp_path / "parts", make_config("stream", *settings, "trainer.max_steps=3"), cache)
    fit(tmp_path / "parts", make_config("stream", *settings), cache)
    whole, parts = (averages_of(tmp_path / name / "checkpoints") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(tensor, parts[step][name]) for step in whole for name, tensor in whole[step].items())


def test_the_average_changes_nothing_of_training(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, SPLITS)
    fit(tmp_path / "with", make_config("stream", *SETTINGS), cache)
    fit(tmp_path / "without", make_config("stream", *SETTINGS, "trainer.ema_decay=null"), cache)
    two = [checkpoints.find(tmp_path / name / "checkpoints", "latest") for name in ("with", "without")]
    manifests = [checkpoints.verify(folder) for folder in two]
    assert len({m.files[checkpoints.MODEL] for m in manifests}) == 1
    assert EMA not in manifests[1].files
    assert checkpoints.load_state(two[0]).keys() == checkpoints.load_state(two[1]).keys()
    assert ['"version": 3' in (folder / "manifest.json").read_text() for folder in two] == [True, False]


def test_the_models_own_weights_come_back_untouched() -> None:
    model = TinyModel(dtype=torch.float32)
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in distinct(model).items()}
    average = {name: torch.full_like(tensor, 7, dtype=torch.float64) for name, tensor in distinct(model).items()}
    with contextlib.suppress(RuntimeError), in_place_of_weights(model, average):
        assert all(bool((tensor == 7).all()) and tensor.dtype == torch.float32 for tensor in model.parameters())
        raise RuntimeError("planted")
    for name, tensor in distinct(model).items():
        assert tensor.data_ptr() == before[name][0]
        assert torch.equal(tensor, before[name][1])
    with pytest.raises(CheckpointError, match="lacks head, or has it in another shape"):
        in_place_of_weights(model, average | {"head": torch.zeros(1)}).__enter__()


def test_tied_weights_are_averaged_once_and_stay_tied(tmp_path: Path) -> None:
    model = torch.nn.ModuleDict({"one": torch.nn.Linear(2, 2, bias=False), "two": torch.nn.Linear(2, 2, bias=False)})
    model["two"].weight = model["one"].weight
    assert list(distinct(model)) == ["one.weight"]
    average = {"one.weight": torch.ones(2, 2)}
    folder = checkpoints.write(tmp_path, 1, dict(model.state_dict()), {}, {}, average)
    assert checkpoints.load_weights(folder, EMA).keys() == {"one.weight", "two.weight"}
    with average_of(folder, model) as digest:
        assert model["two"].weight is model["one"].weight
        assert torch.equal(model["two"].weight, torch.ones(2, 2))
    assert digest == checkpoints.sha256(folder / EMA)


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_a_decay_that_is_none_is_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.ema_decay is .*from 0 up to 1"):
        TrainerConfig(ema_decay=decay)
