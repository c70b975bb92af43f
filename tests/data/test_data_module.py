import functools
import itertools
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from lmexp import plugins
from lmexp.data.batch import Batch
from lmexp.data.cache import prepare
from lmexp.data.config import CustomDataConfig, MixtureConfig, TextFilesConfig
from lmexp.data.module import CorpusDataModule
from lmexp.data.plans import make_plan
from lmexp.data.windows import training_rows
from lmexp.errors import ConfigError
from lmexp.metrics.ignore import IGNORE
from lmexp.tokenizers.config import CharTokenizerConfig
from lmexp.training.config import TrainerConfig
from lmexp.training.trainer import corpus_steps

BATCH = 8
LENGTH = 8
STEPS = 40  # several epochs


KINDS = ("stream", "packed", "padded", "mixture")


@pytest.fixture
def module(make_cache, lines_file: Path, tmp_path: Path):
    """module(accumulate, rank, world_size, seed=..., kind=...): a data module over a small cache.

    kind: how windows are cut, or a mixture of two sources in packed windows.
    """
    single = make_cache(CharTokenizerConfig())
    common = {"document": "line", "validation_fraction": 0.2, "test_fraction": 0.2}
    words = tmp_path / "words.txt"
    words.write_text("".join(f"{i} and {i * i}\n" for i in range(200)), encoding="utf-8")
    parts = {
        "lines": TextFilesConfig(path=str(lines_file), **common),
        "words": TextFilesConfig(path=str(words), **common),
    }
    mixture = MixtureConfig(
        parts=parts, weights={"words": 2.0}, windows="packed", batch_size=BATCH, sequence_length=LENGTH
    )

    mixed = functools.cache(lambda: prepare(mixture, CharTokenizerConfig(), cache_root=tmp_path / "cache"))

    def make(
        accumulate: int = 1,
        rank: int | None = None,
        world_size: int | None = None,
        seed: int = 1,
        kind: str = "stream",
    ):
        if kind == "mixture":
            cache, config = mixed(), mixture
        else:
            cache, config = single, TextFilesConfig(batch_size=BATCH, sequence_length=LENGTH, windows=kind)
        return CorpusDataModule(cache, config, seed, accumulate, rank=rank, world_size=world_size)

    return make


def steps(module, accumulate: int, world_size: int, seed: int = 1, kind: str = "stream") -> list[torch.Tensor]:
    """Tokens, targets and positions of each step, (BATCH, columns), from all ranks and micro-batches in their order."""
    ranks = [iter(module(accumulate, rank, world_size, seed, kind).train_dataloader()) for rank in range(world_size)]
    found = []
    for _ in range(STEPS):
        parts = [next(rank) for _ in range(accumulate) for rank in ranks]
        assert all(part.tokens.shape == (BATCH // accumulate // world_size, LENGTH) for part in parts)
        columns = [
            torch.cat([part.tokens, part.targets, *([] if part.positions is None else [part.positions])], dim=1)
            for part in parts
        ]
        n_targets = [int((part.targets != IGNORE).sum()) for part in parts]
        assert n_targets == [part.n_targets for part in parts]
        assert [part.n_step_targets for part in parts] == [sum(n_targets)] * len(parts)
        found.append(torch.cat(columns))
    return found


@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (1, 2), (2, 2), (8, 1), (1, 8)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_has_the_same_samples_for_any_ranks_and_micro_batches(module, kind, world_size, accumulate) -> None:
    one = steps(module, 1, 1, kind=kind)
    other = steps(module, accumulate, world_size, kind=kind)
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
    assert batch.positions is None
    assert batch.n_targets == BATCH // 2 * LENGTH
    assert batch.n_step_targets == BATCH * LENGTH
    for tokens, targets, start in zip(batch.tokens, batch.targets, batch.sample_ids, strict=True):
        assert tokens.tolist() == split.tokens[start : start + 8].tolist()
        assert targets.tolist() == split.tokens[start + 1 : start + 9].tolist()
    assert {batch.tokens.dtype, batch.targets.dtype, batch.sample_ids.dtype} == {torch.int64}


@pytest.mark.parametrize("kind", ["packed", "mixture"])
def test_packed_batches_are_documents_with_positions_of_their_own(module, kind) -> None:
    data = module(kind=kind)
    split, text = data.cache.splits["train"], data.cache.tokenizer
    eos = int(split.tokens[0])
    documents = {
        text.decode(split.tokens[start:stop].tolist()) for start, stop in itertools.pairwise(split.document_starts)
    }
    for batch in itertools.islice(iter(data.train_dataloader()), 20):
        assert {tensor.dtype for tensor in (batch.tokens, batch.targets, batch.positions)} == {torch.int64}
        for tokens, targets, positions in zip(batch.tokens, batch.targets, batch.positions, strict=True):
            begins = [*torch.nonzero(positions == 0).flatten().tolist(), LENGTH]
            assert begins[0] == 0
            for begin, end in itertools.pairwise(begins):
                assert positions[begin:end].tolist() == list(range(end - begin))
                if targets[begin] == IGNORE:
                    assert end == LENGTH
                    assert tokens[begin:].tolist() == [eos] * (end - begin)
                    assert targets[begin:].tolist() == [IGNORE] * (end - begin)
                    continue
                assert targets[begin : end - 1].tolist() == tokens[begin + 1 : end].tolist()
                piece = text.decode(targets[begin:end].tolist())
                assert any(piece in document for document in documents)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [None, 1, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_sees_each_token_once_for_any_ranks_and_batch_size(module, kind, world_size, batch_size) -> None:
    if batch_size is None and world_size == 3:
        pytest.skip("8 sequences don't divide among 3 ranks")
    seen = {}
    for rank in range(world_size):
        loader = module(1, rank, world_size, kind=kind).evaluation_batches("validation", batch_size)
        batches = list(loader)
        assert len(batches) == len(loader)
        for batch in batches:
            there = batch.targets != IGNORE
            assert batch.n_step_targets == batch.n_targets == int(there.sum())
            assert not batch.n_bytes[~there].any()
            for i, number in enumerate(batch.sample_ids.tolist()):
                assert number not in seen
                seen[number] = list(zip(*(part[i][there[i]].tolist() for part in batch[:2]), strict=True))
                seen[number] = [
                    (*pair, n) for pair, n in zip(seen[number], batch.n_bytes[i][there[i]].tolist(), strict=True)
                ]
    split = module(kind=kind).cache.splits["validation"]
    tokens = split.tokens.tolist()
    expected = list(zip(tokens[:-1], tokens[1:], split.token_bytes(1, split.n_tokens + 1).tolist(), strict=True))
    found = [triple for number in sorted(seen) for triple in seen[number]]
    assert sorted(found) == sorted(expected)
    assert kind != "stream" or found == expected
    assert sum(n for _, _, n in found) == split.n_bytes


@pytest.mark.parametrize("kind", KINDS)
def test_a_rank_for_which_no_batch_is_left_gets_one_in_which_nothing_is_predicted(module, kind) -> None:
    """Or Lightning would let it leave validation out, where the others wait for it."""
    n_batches = len(module(1, 0, 1, kind=kind).evaluation_batches("validation", 7))
    loader = module(1, n_batches, n_batches + 1, kind=kind).evaluation_batches("validation", 7)
    (batch,) = loader
    assert len(loader) == 1
    assert batch.n_targets == batch.n_bytes.sum() == len(batch.sample_ids) == 0
    assert (batch.targets == IGNORE).all()
    assert batch.targets.shape == batch.tokens.shape


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
    assert recorder.n_validated == data.cache.splits["validation"].n_tokens


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_has_the_rows_of_all_sources(module, kind) -> None:
    data = module(kind=kind)
    rows = training_rows(data.cache, data.config, seed=0)
    if kind != "stream":
        windows = data.config.windows
        assert rows.n_samples == make_plan(data.cache, windows, LENGTH).splits["train"].n_rows
    steps = corpus_steps(TrainerConfig(max_steps=None, max_epochs=3), data.config, data.cache)
    assert steps == 3 * rows.n_samples // BATCH


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
