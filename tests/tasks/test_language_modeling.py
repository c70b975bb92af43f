"""The loss of a batch is that of its targets, whatever stands around them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lmexp.data.batch import Batch
from lmexp.data.config import WINDOWS, TextFilesConfig
from lmexp.data.module import CorpusDataModule
from lmexp.evaluation.config import PerplexityConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.perplexity import Perplexity
from lmexp.models.config import GPTConfig
from lmexp.optim.config import AdamWConfig
from lmexp.optim.schedulers.config import ConstantConfig
from lmexp.tasks.language_modeling import LanguageModeling
from tests.evaluation.tiny import EOS, VOCAB, make_cache, random_documents

LENGTH, BATCH = 16, 8
SPLITS = {"train": random_documents(60, 1), "validation": random_documents(30, 2)}
every_window = pytest.mark.parametrize("windows", WINDOWS)


def make_task(model: nn.Module | None = None) -> LanguageModeling:
    torch.manual_seed(0)
    model = model or GPTConfig(n_layer=1, d_model=16, n_head=2, init_std=0.3).build(
        vocab_size=VOCAB, sequence_length=LENGTH
    )
    return LanguageModeling(model, optimizer=AdamWConfig(), scheduler=ConstantConfig(), total_steps=1).double()


def make_data(
    folder: Path, windows: str, *, accumulate: int = 1, rank: int = 0, world_size: int = 1
) -> CorpusDataModule:
    config = TextFilesConfig(batch_size=BATCH, sequence_length=LENGTH, windows=windows)
    cache = make_cache(folder, SPLITS)
    return CorpusDataModule(cache, config, 0, accumulate, rank=rank, world_size=world_size)


def micro_batches(folder: Path, windows: str, accumulate: int, world_size: int) -> list[Batch]:
    """Those of the first optimizer step, of all ranks."""
    batches = []
    for rank in range(world_size):
        loader = iter(
            make_data(folder, windows, accumulate=accumulate, rank=rank, world_size=world_size).train_dataloader()
        )
        batches += [next(loader) for _ in range(accumulate)]
    return batches


def document_nats(task: LanguageModeling, documents: Sequence[Sequence[int]]) -> tuple[float, int]:
    """Nats and number of the tokens of some documents, computed one piece of one document at a time."""
    nats, n = 0.0, 0
    for document in documents:
        text = torch.tensor([EOS, *document])
        for start in range(0, len(document), LENGTH):
            targets = text[start + 1 : start + LENGTH + 1]
            logits: Tensor = task.model(text[None, start : start + len(targets)])[0]
            nats -= logits.log_softmax(dim=-1)[torch.arange(len(targets)), targets].sum().item()
            n += len(targets)
    return nats, n


@every_window
def test_nats_and_targets_of_a_step_do_not_depend_on_how_it_is_shared(tmp_path: Path, windows: str) -> None:
    task = make_task()
    whole = [task.nats(batch) for batch in micro_batches(tmp_path, windows, 1, 1)]
    for accumulate, world_size in ((2, 1), (1, 4), (2, 2), (8, 1)):
        batches = micro_batches(tmp_path, windows, accumulate, world_size)
        parts = [task.nats(batch) for batch in batches]
        assert sum(n for _, n in parts) == whole[0][1]
        assert {batch.n_step_targets for batch in batches} == {whole[0][1]}
        nats = torch.stack([nats for nats, _ in parts]).sum()
        torch.testing.assert_close(nats, whole[0][0], rtol=1e-12, atol=0)
    assert whole[0][1] == BATCH * LENGTH if windows == "stream" else whole[0][1] < BATCH * LENGTH


@every_window
def test_positions_are_there_on_all_ranks_or_on_none(tmp_path: Path, windows: str) -> None:
    found = [batch.positions is not None for batch in micro_batches(tmp_path, windows, 2, 2)]
    for rank in range(2):
        found += [
            batch.positions is not None
            for batch in make_data(tmp_path, windows, rank=rank, world_size=2).val_dataloader()
        ]
    assert set(found) == {windows == "packed"}


@pytest.mark.parametrize("windows", ["packed", "padded"])
def test_an_epoch_has_the_loss_of_the_documents_one_by_one(tmp_path: Path, windows: str) -> None:
    task, data = make_task(), make_data(tmp_path, windows)
    nats, n = document_nats(task, SPLITS["train"])
    rows = data.train_dataloader().rows  # type: ignore[attr-defined]
    loader = iter(data.train_dataloader())
    seen: dict[int, tuple[float, int]] = {}
    for _ in range(-(-rows.n_samples // BATCH)):  # the last batch reaches into the next epoch
        batch = next(loader)
        for i, sample in enumerate(batch.sample_ids.tolist()):
            positions = None if batch.positions is None else batch.positions[i : i + 1]
            one = batch._replace(tokens=batch.tokens[i : i + 1], targets=batch.targets[i : i + 1], positions=positions)
            seen[sample] = task.nats(one)[0].item(), int((one.targets >= 0).sum())
    assert len(seen) == rows.n_samples
    assert sum(count for _, count in seen.values()) == n
    assert sum(one for one, _ in seen.values()) == pytest.approx(nats, rel=1e-10)


@every_window
def test_validation_finds_what_the_evaluation_finds(tmp_path: Path, windows: str) -> None:
    task, data = make_task(), make_data(tmp_path, windows)
    for number, batch in enumerate(data.val_dataloader()):
        task.validation_step(batch, number)
    figures = {name: float(value) for name, value in task.validation_metric.compute().items()}
    if windows != "stream":
        nats, n = document_nats(task, SPLITS["validation"])
        assert figures["loss"] == pytest.approx(nats / n, rel=1e-10)
    context = EvaluationContext(model=task.model, cache=data.cache, sequence_length=LENGTH, windows=windows)
    rows = Perplexity(PerplexityConfig(split="validation")).run(context)
    found = {row.name.removeprefix("perplexity/"): row.estimate for row in rows}
    assert {name: found[name] for name in figures} == pytest.approx(figures, rel=1e-10)


def test_a_model_that_knows_no_positions_learns_from_stream_and_padded_windows(tmp_path: Path) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Embedding(VOCAB, VOCAB)

        def forward(self, tokens: Tensor) -> Tensor:
            found: Tensor = self.logits(tokens)
            return found

    for windows in ("stream", "padded"):
        nats, n = make_task(Plain()).nats(micro_batches(tmp_path, windows, 1, 1)[0])
        assert nats.item() / n > 1
