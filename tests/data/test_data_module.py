import itertools
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from lmexp import plugins
from lmexp.data.batch import Batch
from lmexp.data.config import CustomDataConfig, TextFilesConfig
from lmexp.data.module import CorpusDataModule
from lmexp.errors import ConfigError
from lmexp.tokenizers.config import CharTokenizerConfig

BATCH = 8
STEPS = 40  # several epochs


@pytest.fixture
def module(make_cache):
    """module(accumulate, rank, world_size, seed=...): a data module over one small cache."""
    cache = make_cache(CharTokenizerConfig())

    def make(accumulate: int = 1, rank: int | None = None, world_size: int | None = None, seed: int = 1):
        config = TextFilesConfig(batch_size=BATCH, sequence_length=8)
        return CorpusDataModule(cache, config, seed, accumulate, rank=rank, world_size=world_size)

    return make


def steps(module, accumulate: int, world_size: int, seed: int = 1) -> list[torch.Tensor]:
    """Tokens and targets of each step, (BATCH, seq + 1), from all ranks and micro-batches in their order."""
    ranks = [iter(module(accumulate, rank, world_size, seed).train_dataloader()) for rank in range(world_size)]
    found = []
    for _ in range(STEPS):
        parts = [next(rank) for _ in range(accumulate) for rank in ranks]
        assert all(part.tokens.shape == (BATCH // accumulate // world_size, 8) for part in parts)
        found.append(torch.cat([torch.cat([part.tokens, part.targets[:, -1:]], dim=1) for part in parts]))
    return found


@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (1, 2), (2, 2), (8, 1), (1, 8)])
def test_a_step_has_the_same_samples_for_any_ranks_and_micro_batches(module, world_size, accumulate) -> None:
    one = steps(module, 1, 1)
    other = steps(module, accumulate, world_size)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_seeds_give_other_samples(module) -> None:
    assert not torch.equal(steps(module, 1, 1, seed=1)[0], steps(module, 1, 1, seed=2)[0])


def test_training_starts_at_the_trainers_step(module) -> None:
    class Trainer:
        global_step, global_rank, world_size = 17, 1, 2

    data = module(2)
    data.trainer = Trainer()
    loader = data.train_dataloader()
    expected = list(itertools.islice(iter(module(2, 1, 2).train_dataloader()), 60))
    for step in (17, 3):  # a loader that is iterated again goes on from where the trainer is then
        Trainer.global_step = step
        found = list(itertools.islice(iter(loader), 10))
        for a, b in zip(found, expected[2 * step :], strict=False):
            assert torch.equal(a.tokens, b.tokens)
            assert torch.equal(a.sample_ids, b.sample_ids)


def test_batches_are_what_they_say(module) -> None:
    data = module(2, 0, 1)
    split = data.cache.splits["train"]
    batch = next(iter(data.train_dataloader()))
    assert batch.n_bytes is None
    assert batch.n_step_targets == BATCH * 8
    for tokens, targets, start in zip(batch.tokens, batch.targets, batch.sample_ids, strict=True):
        assert tokens.tolist() == split.tokens[start : start + 8].tolist()
        assert targets.tolist() == split.tokens[start + 1 : start + 9].tolist()
    assert {batch.tokens.dtype, batch.targets.dtype, batch.sample_ids.dtype} == {torch.int64}


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [None, 1, 7])
def test_evaluation_sees_each_token_once_for_any_ranks_and_batch_size(module, world_size, batch_size) -> None:
    if batch_size is None and world_size == 3:
        pytest.skip("8 sequences don't divide among 3 ranks")
    windows: dict[int, Batch] = {}
    for rank in range(world_size):
        loader = module(1, rank, world_size).evaluation_batches("validation", batch_size)
        batches = list(loader)
        assert len(batches) == len(loader)
        for batch in batches:
            assert batch.n_step_targets == batch.targets.numel() == batch.n_bytes.numel()
            for i, number in enumerate(batch.sample_ids.tolist()):
                assert number not in windows
                windows[number] = Batch(batch.tokens[i], batch.targets[i], batch.n_bytes[i], 0, batch.sample_ids)
    split = module().cache.splits["validation"]
    in_order = [windows[number] for number in sorted(windows)]
    assert torch.cat([window.tokens for window in in_order]).tolist() == split.tokens[:-1].tolist()
    assert torch.cat([window.targets for window in in_order]).tolist() == split.tokens[1:].tolist()
    assert torch.cat([window.n_bytes for window in in_order]).tolist() == split.token_bytes(1, split.n_tokens).tolist()


def test_evaluation_batches_are_the_micro_batches_of_training(module) -> None:
    assert next(iter(module(2, 0, 2).val_dataloader())).tokens.shape == (BATCH // 4, 8)
    assert next(iter(module().test_dataloader())).tokens.shape == (BATCH, 8)


def test_a_split_that_is_not_there_has_no_batches(make_cache) -> None:
    cache = make_cache(validation_fraction=0)
    data = CorpusDataModule(cache, TextFilesConfig(sequence_length=8), seed=0)
    assert list(data.val_dataloader()) == []
    assert list(data.test_dataloader()) != []


def test_nothing_is_drawn_from_global_random_numbers(module) -> None:
    before = torch.get_rng_state()
    data = module()
    next(iter(data.train_dataloader()))
    list(data.val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_that_does_not_divide_is_an_error_with_the_fix(module) -> None:
    with pytest.raises(ConfigError) as caught:
        module(3, 0, 2).train_dataloader()
    assert str(caught.value) == (
        "data.batch_size (8) must be divisible by processes x micro-batches "
        "(2 x trainer.accumulate_grad_batches=3); try data.batch_size=6"
    )


class Recorder(pl.LightningModule):
    """Notes the batches that Lightning hands over."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[Batch] = []
        self.n_validated = 0

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        assert isinstance(batch, Batch)
        self.seen.append(batch)
        return self.weight.sum()

    def validation_step(self, batch: Batch, index: int) -> None:
        self.n_validated += batch.targets.numel()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning 2.6 with torch 2.13
def test_lightning_trains_and_validates_on_it(module, tmp_path: Path) -> None:
    data, recorder = module(2), Recorder()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=5,
        accumulate_grad_batches=2,
        val_check_interval=10,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(recorder, data)
    expected = itertools.islice(iter(module(2, 0, 1).train_dataloader()), 10)
    assert [b.sample_ids.tolist() for b in recorder.seen] == [b.sample_ids.tolist() for b in expected]
    assert recorder.n_validated == data.cache.splits["validation"].n_tokens - 1


def test_a_users_data_module_gets_the_facts_it_names(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "my_data_package.py").write_text(
        "import pytorch_lightning as pl\n"
        "class MyData(pl.LightningDataModule):\n"
        "    def __init__(self, size, seed):\n"
        "        super().__init__()\n"
        "        self.size, self.seed = size, seed\n"
        "class NoData:\n"
        "    pass\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(plugins, "_trusted", {})
    target = "my_data_package:MyData"
    with pytest.raises(ConfigError, match="not trusted"):
        CustomDataConfig(target=target, args={"size": 3}).build(tokenizer=None, seed=5)
    plugins.trust(["my_data_package"])
    built = CustomDataConfig(target=target, args={"size": 3}).build(tokenizer=None, seed=5)
    assert (built.size, built.seed) == (3, 5)
    with pytest.raises(ConfigError, match=r"data\.args\.sise is not a parameter .*did you mean size"):
        CustomDataConfig(target=target, args={"sise": 3}).build(tokenizer=None, seed=5)
    with pytest.raises(ConfigError, match=r"expected a subclass of .*LightningDataModule"):
        CustomDataConfig(target="my_data_package:NoData").build(tokenizer=None, seed=5)
