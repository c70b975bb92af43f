"""Weights of another run fit the model to the last tensor, or the error says which don't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lmexp.config.compose import compose
from lmexp.errors import CheckpointError, ConfigError, UserError
from lmexp.tokenizers.byte import ByteTokenizer
from lmexp.tokenizers.char import CharTokenizer
from lmexp.training import checkpoints, initial_weights
from lmexp.training.trainer import build_model
from tests.config.test_freeze import frozen

TINY = ["model=gpt_tiny", "model.n_layer=2", "model.n_head=2", "model.d_model=8", "data.sequence_length=4"]
VOCAB = ByteTokenizer().vocab_size


def configured(*overrides: str, init_from: Path | None = None) -> Any:
    """A typed config."""
    more = [f"model.init_from={init_from}"] if init_from is not None else []
    return compose([*TINY, "tokenizer=byte", *overrides, *more]).config


def checked(config: Any, tokenizer: Any = None) -> dict[str, str]:
    return initial_weights.check(config, tokenizer, build_model(config, VOCAB))


def refused(config: Any, tokenizer: Any = None) -> str:
    with pytest.raises(UserError) as caught:
        checked(config, tokenizer)
    return str(caught.value)


@pytest.fixture
def trained() -> nn.Module:
    torch.manual_seed(3)
    return build_model(configured(), VOCAB)


@pytest.fixture
def run(tmp_path: Path, trained: nn.Module) -> Path:
    """A run folder with checkpoints at steps 4 and 8, the first of them the best, and a tokenizer."""
    run_dir = tmp_path / "outputs" / "x" / "20260101-000000-x-abcdef"
    (run_dir / "checkpoints").mkdir(parents=True)
    frozen(run_dir, *TINY, "tokenizer=byte")
    ByteTokenizer().save(run_dir / "tokenizer.json")
    for step in (8, 4):
        checkpoints.write(run_dir / "checkpoints", step, _as_saved(trained, step), {}, {})
    (run_dir / "checkpoints" / "LATEST").write_text("step-00000008\n")
    (run_dir / "checkpoints" / "BEST").write_text("step-00000004\n")
    return run_dir


def _as_saved(model: nn.Module, factor: int) -> dict[str, torch.Tensor]:
    """Its weights times a factor as Lightning hands them over, tied ones being one tensor."""
    made: dict[int, torch.Tensor] = {}
    return {
        f"model.{name}": made.setdefault(tensor.data_ptr(), tensor.detach() * factor)
        for name, tensor in model.state_dict().items()
    }


def test_a_run_gives_its_best_weights_a_folder_its_own_and_a_run_without_a_best_its_latest(
    run: Path, trained: nn.Module
) -> None:
    expected = {}
    for place, factor in ((run, 4), (run / "checkpoints" / "step-00000008", 8)):
        found = checked(configured(init_from=place), ByteTokenizer())
        model = build_model(configured(), VOCAB)
        initial_weights.load(model, Path(found["path"]), found["sha256"])
        for name, tensor in trained.state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor * factor), name
        expected[place] = found
        assert found["sha256"] == checkpoints.sha256(Path(found["path"]))
    (run / "checkpoints" / "BEST").unlink()
    assert checked(configured(init_from=run)) == expected[run / "checkpoints" / "step-00000008"]


def test_a_file_without_a_manifest_is_enough(tmp_path: Path, trained: nn.Module) -> None:
    weights = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    model = build_model(configured(), VOCAB)
    found = checked(configured(init_from=tmp_path))
    initial_weights.load(model, Path(found["path"]), found["sha256"])
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


class Tied(nn.Module):
    """One matrix under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.output = nn.Linear(3, 5, bias=False)
        self.output.weight = self.embedding.weight


def test_a_tied_tensor_may_be_there_once_or_twice_the_same(tmp_path: Path) -> None:
    config, values = configured(init_from=tmp_path), torch.arange(15.0).view(5, 3)
    for weights in (
        {"embedding.weight": values},
        {"output.weight": values},
        {"output.weight": values, "embedding.weight": values.clone()},
    ):
        save_file(weights, tmp_path / "model.safetensors")
        model = Tied()
        found = initial_weights.check(config, None, model)
        initial_weights.load(model, Path(found["path"]), found["sha256"])
        assert torch.equal(model.embedding.weight, values)
        assert torch.equal(model.output.weight, values)
    save_file({"output.weight": values, "embedding.weight": values + 1}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"two in the file: embedding\.weight and output\.weight"):
        initial_weights.check(config, None, Tied())


def test_tensors_that_are_missing_too_many_or_of_another_shape_are_named(run: Path) -> None:
    deeper = refused(configured("model.n_layer=3", init_from=run))
    assert "doesn't fit the model:\n  missing: blocks.2." in deeper
    assert "settings that differ: model.n_layer=2 there, 3 here" in deeper
    assert f"lmexp train from={run} model.init_from={run}" in deeper
    assert "unexpected: " not in deeper
    shallower = refused(configured("model.n_layer=1", init_from=run))
    assert "  unexpected: blocks.1." in shallower
    assert " more" in shallower
    assert "missing: " not in shallower
    wider = refused(configured("model.d_model=16", init_from=run))
    assert "of another shape: " in wider
    assert f"(expected [{VOCAB}, 16], found [{VOCAB}, 8])" in wider
    longer = refused(configured("data.sequence_length=8", init_from=run))
    assert "(expected [8, 8], found [4, 8])" in longer
    assert "settings that differ: data.sequence_length=4 there, 8 here" in longer


def test_other_tokens_are_refused_with_the_way_to_take_the_same(run: Path) -> None:
    told = refused(configured(init_from=run), CharTokenizer.train(["abc"]))
    assert f"tokenizer=saved tokenizer.path={run}" in told
    with pytest.raises(ConfigError, match="tokenizer=saved"):
        checked(configured(init_from=run / "checkpoints" / "step-00000004"), CharTokenizer.train(["abc"]))


def test_a_place_without_weights_is_told(run: Path, tmp_path: Path) -> None:
    assert f"did you mean {run.name}?" in refused(configured(init_from=Path(f"{run}x")))
    assert "this folder holds neither that nor run.json" in refused(configured(init_from=tmp_path))
    assert "is a file" in refused(configured(init_from=run / "run.json"))
    (run / "checkpoints" / "LATEST").unlink()
    (run / "checkpoints" / "BEST").unlink()
    assert f"model.init_from={run}: " in refused(configured(init_from=run))
    assert "there is no checkpoint 'best'" in refused(configured(init_from=run))


def test_a_damaged_file_is_refused(run: Path, tmp_path: Path) -> None:
    folder = run / "checkpoints" / "step-00000004"
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    for place in (run, folder):
        assert "damaged" in refused(configured(init_from=place))
    (tmp_path / "model.safetensors").write_bytes(b"no weights at all")
    assert "not a safetensors file" in refused(configured(init_from=tmp_path))


def test_weights_that_have_changed_since_or_are_gone_are_refused(run: Path) -> None:
    config = configured(init_from=run)
    found, model = checked(config), build_model(config, VOCAB)
    path = Path(found["path"])
    path.write_bytes((run / "checkpoints" / "step-00000008" / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="the run was made to start from"):
        initial_weights.load(model, path, found["sha256"])
    path.unlink()
    with pytest.raises(CheckpointError, match=r"can't be read .* has no checkpoint of its own yet"):
        initial_weights.load(model, path, found["sha256"])
